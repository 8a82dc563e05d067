"""Builds libmlim.a from objc/ and the Cython modules over it.

Environment: MEMLIMITS_WERROR=1 makes the C compiler's warnings errors (Cython's always are),
MEMLIMITS_SANITIZE=address,undefined builds for those sanitizers, MEMLIMITS_DEBUG=1 for debuggers,
MEMLIMITS_DEVICE=host or metal for another device than the platform's own,
MACOSX_DEPLOYMENT_TARGET for another oldest macOS than 13.3.
"""

import os
import sys
import sysconfig
from glob import glob

import numpy
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

OLDEST_MACOS = "13.3"


def deployment_target():
    """The oldest macOS that is built for. Extensions may not be for an older one than Python is."""
    pythons = str(sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET") or OLDEST_MACOS)
    return max(OLDEST_MACOS, pythons, key=lambda version: [int(n) for n in version.split(".")])


WARNINGS = ["-Wall", "-Wextra"]
# What Cython writes by design: unused helpers and parameters, partly initialised type objects.
CYTHON_FLAGS = [
    *WARNINGS,
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]
# Two numbers side by side would be changed as one vector, which takes longer to be read again: 1 to
# 2 % of a pair of malloc and free of one small block (gcc 12).
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-fno-tree-slp-vectorize"]
LINK_FLAGS = ["-pthread"]

if os.environ.get("MEMLIMITS_WERROR") == "1":
    FLAGS += ["-Werror"]
if os.environ.get("MEMLIMITS_DEBUG") == "1":
    FLAGS += ["-O0", "-g3", "-UNDEBUG"]
if sanitizers := os.environ.get("MEMLIMITS_SANITIZE"):
    FLAGS += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
    LINK_FLAGS += [f"-fsanitize={sanitizers}"]
    # Locks are biased sooner, for what goes wrong only where that is ended.
    FLAGS += ["-DMEMLIMITS_TIMES_ALONE=64"]
    # Cython adds 0 to the null pointer that stands for no arguments.
    CYTHON_FLAGS += ["-fno-sanitize=pointer-overflow"]

# A build of one kind reuses nothing of another.
VARIANT = "build-debug" if os.environ.get("MEMLIMITS_DEBUG") == "1" else "build"
if sanitizers:
    VARIANT += "-" + sanitizers.replace(",", "-")

DEVICE = os.environ.get("MEMLIMITS_DEVICE") or ("metal" if sys.platform == "darwin" else "host")
LIBRARY = "mlim"
SOURCES = sorted(glob("objc/host_*.c" if DEVICE == "host" else "objc/metal_*.m"))
HEADERS = ["objc/mlim.h", f"objc/{DEVICE}.h"]
PUBLIC_HEADER = "memlimits/include/memlimits.h"
if DEVICE != "host":
    VARIANT += f"-{DEVICE}"
FRAMEWORKS = []
if sys.platform == "darwin":
    # Neither is linked weakly: the oldest macOS aimed at has both. What came later, residency sets
    # above all, is looked up by its name or guarded by @available; no symbol is linked for it.
    FRAMEWORKS = ["-framework", "Metal", "-framework", "Foundation"]
    os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", deployment_target())
# Linked into one file: memlimits/_modules.pyx says why, and makes them from it.
TOGETHER = [
    "_modules",
    "_limits",
    "_resource",
    "_misuse",
    "_accounts",
    "_pagemap",
    "_bins",
    "_cache",
    "_heap",
    "_heaps",
    "_residency_sets",
    "_residency",
    "_asked",
    "_core",
    "_controls",
    "_fork",
    "_settings",
    "_statistics",
    "_purgeable",
    "_pressure",
    "_room",
    "_waiting",
    "_idle",
    "_refusals",
    "_floors",
    "_growth",
    "_resize",
    "_charging",
    "_callers",
    "_arguments",
    "_allocator",
    "_contexts",
    "_budgets",
    "_scopes",
    "_dlpack",
    "_buffer",
    "_wiring",
    "_getters",
    "_system",
    "_malloc",
    "adapters._numpy",
]
# The one that links libmlim, and those that not every program imports.
ALONE = ["_device", "_metal", "cli._imports", "cli._start"]

Options.warning_errors = True


class BuildExtensions(build_ext):
    """Builds the C library before the modules that link or include it."""

    def run(self):
        self.run_command("build_clib")
        super().run()

    def build_extensions(self):
        """Compile what changed. By itself all of an extension would be compiled anew."""
        compile_one = self.compiler._compile

        def compile_changed(made, source, *options):
            # What is linked is linked anew only where an object is new: so that of libmlim, too.
            linked = SOURCES if source.endswith("_device.c") else []
            if self.force or newer_group([source, *HEADERS, PUBLIC_HEADER, *linked], made):
                compile_one(made, source, *options)

        self.compiler._compile = compile_changed
        super().build_extensions()


def core_extension(name):
    return Extension(
        f"memlimits.{name}",
        [f"memlimits/{name.replace('.', '/')}.pyx"],
        include_dirs=["objc", "memlimits/include"],
        depends=[*HEADERS, *SOURCES] if name == "_device" else [HEADERS[0], PUBLIC_HEADER],
        extra_compile_args=[*FLAGS, *CYTHON_FLAGS],
        extra_link_args=[*LINK_FLAGS, *FRAMEWORKS] if name == "_device" else LINK_FLAGS,
    )


def linked_together(extensions):
    """Give the first the sources of all, and what the one for NumPy needs."""
    first = extensions[0]
    first.sources = [source for extension in extensions for source in extension.sources]
    first.include_dirs.append(numpy.get_include())
    first.define_macros += [
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ]
    return first


def in_c(*extensions):
    return cythonize(
        extensions,
        compiler_directives={
            "language_level": "3",
            "auto_pickle": False,
            "freethreading_compatible": True,
        },
    )


setup(
    libraries=[
        (
            LIBRARY,
            {
                "sources": SOURCES,
                "include_dirs": ["objc"],
                "cflags": [*FLAGS, *WARNINGS, "-fPIC", "-fvisibility=hidden"],
                "obj_deps": {"": HEADERS},
            },
        )
    ],
    ext_modules=[
        linked_together(in_c(*map(core_extension, TOGETHER))),
        *in_c(*map(core_extension, ALONE)),
    ],
    cmdclass={"build_ext": BuildExtensions},
    options={"build": {"build_base": VARIANT}},
)
