"""Builds libmlim from objc/ and the Cython modules over it: what changed, on all processors.

Environment: MEMLIMITS_WERROR=1 makes the C compiler's warnings errors (Cython's always are),
MEMLIMITS_SANITIZE=address,undefined builds for those sanitizers, MEMLIMITS_DEBUG=1 for debuggers,
MEMLIMITS_COVERAGE=1 for gcov, all of these with assertions and with the lines of the .pyx files;
MEMLIMITS_DEVICE=host or metal for another device than the platform's own,
MACOSX_DEPLOYMENT_TARGET for another oldest macOS than 13.3. After another CC or CFLAGS all is to be
built again: `build_ext --force`.
"""

import ast
import multiprocessing
import os
import re
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from glob import glob
from pathlib import Path

import numpy
from Cython import __version__ as cython
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.modified import newer_group

OLDEST_MACOS = "13.3"
MACOS = sys.platform == "darwin"


def deployment_target():
    """The oldest macOS that is built for. Extensions may not be for an older one than Python is."""
    pythons = str(sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET") or OLDEST_MACOS)
    return max(OLDEST_MACOS, pythons, key=lambda version: [int(n) for n in version.split(".")])


# Two numbers side by side would be changed as one vector, which takes longer to be read again: 1 to
# 2 % of a pair of malloc and free of one small block (gcc 12).
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-fvisibility=hidden", "-fno-tree-slp-vectorize"]
FLAGS += ["-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra"]
# What Cython writes by design: unused helpers and parameters, partly initialised type objects.
CYTHON_FLAGS = [
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]
# What makes a module of each of LINKED is used by nothing, and left out.
LINK_FLAGS = ["-pthread", "-Wl,-dead_strip" if MACOS else "-Wl,--gc-sections"]

# Objects of one kind of build are none of another's.
VARIANT = "build"
ASSERTIONS = False
if os.environ.get("MEMLIMITS_WERROR") == "1":
    FLAGS += ["-Werror"]
if os.environ.get("MEMLIMITS_DEBUG") == "1":
    FLAGS += ["-O0", "-g3", "-UNDEBUG"]
    VARIANT, ASSERTIONS = f"{VARIANT}-debug", True
if os.environ.get("MEMLIMITS_COVERAGE") == "1":
    FLAGS += ["-O0", "--coverage", "-fprofile-update=atomic"]
    LINK_FLAGS += ["--coverage"]
    VARIANT, ASSERTIONS = f"{VARIANT}-coverage", True
if sanitizers := os.environ.get("MEMLIMITS_SANITIZE"):
    # In less than half the time that it takes with what Python was compiled with. Of what is for
    # debuggers, a sanitizer's report has functions and lines.
    FLAGS += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g1", "-O1"]
    LINK_FLAGS += [f"-fsanitize={sanitizers}"]
    # Locks are biased sooner, for what goes wrong only where that is ended.
    FLAGS += ["-DMEMLIMITS_TIMES_ALONE=64"]
    # Cython adds 0 to the null pointer that stands for no arguments.
    CYTHON_FLAGS += ["-fno-sanitize=pointer-overflow"]
    VARIANT, ASSERTIONS = f"{VARIANT}-{sanitizers.replace(',', '-')}", True
if ASSERTIONS:
    FLAGS += ["-DMEMLIMITS_ASSERTIONS=1"]

DEVICE = os.environ.get("MEMLIMITS_DEVICE") or ("metal" if MACOS else "host")
if DEVICE == "metal":
    VARIANT += "-metal"
FRAMEWORKS = []
if MACOS:
    # Neither is linked weakly: the oldest macOS aimed at has both. What came later, residency sets
    # above all, is looked up by its name or guarded by @available; no symbol is linked for it.
    FRAMEWORKS = ["-framework", "Metal", "-framework", "Foundation"]
    os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", deployment_target())

LIBMLIM = sorted(glob("objc/host_*.c" if DEVICE == "host" else "objc/metal_*.m"))
LIBMLIM += ["objc/shared.c"]
# All sources are compiled anew with these.
DEPENDS = ["setup.py", "objc/mlim.h", "objc/shared.h", "objc/page.h", f"objc/{DEVICE}.h"]
DEPENDS += ["objc/interpose.h", "memlimits/include/memlimits.h"]
# The C that Cython writes is for any Python, device and compiler.
GENERATED = "build/cython-lines" if ASSERTIONS else "build/cython"


def listed(name):
    """The paths of one of the lists in memlimits/_modules.pyx, which says what each is of."""
    with open("memlimits/_modules.pyx") as file:
        found = re.search(rf"^{name} = (\(.*?\))$", file.read(), re.DOTALL | re.MULTILINE)
    return [f"memlimits/{module.replace('.', '/')}.pyx" for module in ast.literal_eval(found[1])]


LINKED = listed("LINKED")
MODULES = ["memlimits/_modules.pyx", *listed("MADE"), *listed("FIRST_USED")]
ALONE = listed("ALONE")


# What stands in for malloc: no module, and nothing of ours is linked to it. A compiler that knows
# what malloc does would have some of its functions call themselves.
INTERPOSED = [
    Extension(
        "memlimits.lib.libinterpose",
        sorted(glob("objc/interpose*.c")),
        depends=["setup.py", "objc/interpose.h"],
        extra_compile_args=[*FLAGS, "-fno-builtin"],
        # Who calls one of its functions comes in once, also where another library is before it. It
        # is initialised before all others.
        extra_link_args=[*LINK_FLAGS, "-Wl,-Bsymbolic-functions", "-Wl,-z,initfirst", "-ldl"],
    )
] * (sys.platform == "linux" and DEVICE == "host" and not sanitizers)


def extension(path, *sources, link_flags=()):
    """One file of the package, of the module at this path and of more sources."""
    return Extension(
        path.removesuffix(".pyx").replace("/", "."),
        [path, *sources],
        include_dirs=["objc", "memlimits/include", numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
        ],
        depends=DEPENDS,
        extra_compile_args=FLAGS,
        extra_link_args=[*LINK_FLAGS, "-lm", "-ldl", *link_flags],
    )


def processors():
    """How many of them this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def c_of(path):
    """The C that is made of a .pyx."""
    return f"{GENERATED}/{path.removesuffix('.pyx')}.c"


def is_made(made, sources, version):
    """Whether this C is there, made by that version of Cython, and older than none of the sources.

    Cython itself compares it with its own files, too, which are newer wherever it was installed
    anew: each environment that builds a wheel would have all C made, and with it all objects.
    """
    made = Path(made)
    if not made.exists():
        return False
    with made.open() as file:
        if file.readline().split() != ["/*", "Generated", "by", "Cython", version, "*/"]:
            return False
    return all(Path(source).stat().st_mtime_ns <= made.stat().st_mtime_ns for source in sources)


def end_sections(path):
    """Have C that is no statement's be at its own line, and not after that of the last statement.

    Of Cython's directives `#line` each goes on to the next; the comments that begin its sections
    become some that say where the section is.
    """
    text = Path(path).read_text()
    lines = [
        f'#line {number + 1} "{path}"' if line.startswith("/* #### Code section: ") else line
        for number, line in enumerate(text.split("\n"), start=1)
    ]
    if "\n".join(lines) != text:
        Path(path).write_text("\n".join(lines))


class BuildExtensions(build_ext):
    """Translates and compiles what changed, several files at once. Then each extension is linked.

    By itself `build_ext` would compile all sources of an extension anew, one after the other.
    """

    def build_extensions(self):
        # `--parallel` is also True, for as many as there are.
        jobs = processors() if self.parallel in (None, True) else self.parallel
        self.translate(jobs, LINKED, cdivision=True)
        self.translate(jobs, [*MODULES, *ALONE])
        extension_of = {source: ext for ext in self.extensions for source in ext.sources}
        with ThreadPoolExecutor(jobs) as pool:
            # After an error those that have not begun are given up.
            made = pool.map(self.compile, extension_of.values(), extension_of)
            self.objects = dict(zip(extension_of, made, strict=True))
        super().build_extensions()

    def translate(self, jobs, paths, **directives):
        """Have Cython write its C, where it has to."""
        sources = ["setup.py", *glob("memlimits/**/*.p[xy][dx]", recursive=True)]
        if not self.force and all(is_made(c_of(path), sources, cython) for path in paths):
            return
        # Only a forked process has what was set in Cython's options here.
        can_fork = sys.platform == "linux"
        if can_fork:
            multiprocessing.set_start_method("fork", force=True)
        cythonize(
            paths,
            build_dir=GENERATED,
            emit_linenums=ASSERTIONS,
            nthreads=jobs if can_fork else 0,
            # Cython by itself compares only its own sources.
            force=self.force or any(newer_group(["setup.py"], c_of(path)) for path in paths),
            quiet=not self.verbose,
            compiler_directives={
                "language_level": "3",
                "auto_pickle": False,
                "freethreading_compatible": True,
                # Functions as C would write them, with no type of Cython's own: the interpreter
                # calls those directly, and methods check what they are called on.
                "binding": False,
                "embedsignature": True,
                "embedsignature.format": "clinic",
                **directives,
            },
        )

    def compile(self, ext, source):
        """Make the object of one source, unless there is a newer one. Called by several threads."""
        flags, macros = ext.extra_compile_args, ext.define_macros
        if source in LINKED:
            macros = [*macros, ("CYTHON_NO_PYINIT_EXPORT", "1")]
        if source.endswith(".pyx"):
            source = c_of(source)
            flags = [*flags, *CYTHON_FLAGS]
            if ASSERTIONS:
                end_sections(source)
        [made] = self.compiler.object_filenames([source], output_dir=self.build_temp)
        if self.force or newer_group([source, *ext.depends], made):
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=flags,
            )
        return made

    def get_ext_filename(self, fullname):
        # What is no module is not to be found as one.
        if fullname.endswith("libinterpose"):
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)

    def copy_extensions_to_source(self):
        # What lies there may be of another kind of build, and newer.
        self.force = True
        os.makedirs("memlimits/lib", exist_ok=True)
        super().copy_extensions_to_source()

    def build_extension(self, ext):
        objects = [self.objects[source] for source in ext.sources]
        linked = copy(ext)
        linked.sources, linked.depends, linked.extra_objects = [], objects, objects
        super().build_extension(linked)


class BuildPython(build_py):
    """Puts what Python runs as it starts beside the package, where Python looks for that."""

    def run(self):
        super().run()
        # The sources stay where they are then, and only what is written to the latter is installed.
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else None
        for path in hooks():
            self.copy_file(path, os.path.join(folder or self.build_lib, os.path.basename(path)))

    def get_source_files(self):
        return [*super().get_source_files(), *sorted(glob("hook/*"))]


def hooks():
    """The files of hook/ for this version. From 3.15 on Python runs a .start in a .pth's place."""
    names = ["_memlimits_start.py", "memlimits.pth"]
    if sys.version_info >= (3, 15):
        names.append("memlimits.start")
    return [f"hook/{name}" for name in names]


def beside():
    """What shells and man look for under the prefix: share/, which share/make.sh makes."""
    folders = sorted({os.path.dirname(path) for path in glob("share/*/**", recursive=True)})
    found = {
        folder: [path for path in glob(f"{folder}/*") if os.path.isfile(path)] for folder in folders
    }
    return [(folder, files) for folder, files in found.items() if files]


Options.warning_errors = True

setup(
    ext_modules=[
        extension(*MODULES, *LINKED, *LIBMLIM, link_flags=FRAMEWORKS),
        *map(extension, ALONE),
        *INTERPOSED,
    ],
    cmdclass={"build_ext": BuildExtensions, "build_py": BuildPython},
    data_files=beside(),
    options={"build": {"build_base": VARIANT}},
)
