"""Builds extensions against the memlimits that this Python finds, as its users would."""

from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

import memlimits

HERE = Path(__file__).parent
# What of these was copied here is built.
IN_C = [
    ("in_c", "in_c.c", "-std=c11"),
    ("in_cpp", "in_cpp.cpp", "-std=c++11"),
    ("in_guide", "in_guide.c", "-std=c11"),
    ("pool", "pool.c", "-std=c11"),
    ("storm", "storm.c", "-std=c11"),
]
STRICT = ["-O1", "-Wall", "-Wextra", "-Werror"]
# What Cython writes by design.
CYTHON = [
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]

Options.warning_errors = True


def in_c(name, source, standard):
    return Extension(
        name,
        [source],
        include_dirs=[memlimits.get_include()],
        define_macros=[("MODULE_NAME", f'"{name}"'), ("MODULE_INIT", f"PyInit_{name}")],
        extra_compile_args=[*STRICT, standard],
    )


def in_cython(path):
    return Extension(
        path.stem,
        [path.name],
        # For the test of the lock.
        define_macros=[("MEMLIMITS_TIMES_ALONE", "64")],
        extra_compile_args=[*STRICT, *CYTHON],
    )


setup(
    name="users",
    ext_modules=[
        *(in_c(*words) for words in IN_C if (HERE / words[1]).exists()),
        *cythonize(
            [in_cython(path) for path in sorted(HERE.glob("*.pyx"))],
            compiler_directives={"language_level": "3"},
        ),
    ],
)
