"""Compiles the drivers, once, into a directory that goes with the run."""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"
# A process that the run starts finds there what the run has compiled.
VARIABLE = "MEMLIMITS_BENCHMARKS"
if VARIABLE not in os.environ:
    _directory = tempfile.TemporaryDirectory(prefix="memlimits-benchmarks-")
    os.environ[VARIABLE] = _directory.name
FOLDER = Path(os.environ[VARIABLE])


def shared_library(source: str, *options: str) -> Path:
    """Compile a C or C++ file of drivers/ as the library of its name."""
    path = FOLDER / f"{Path(source).stem}.so"
    if not path.exists():
        in_cpp = source.endswith(".cpp")
        compiler = (sysconfig.get_config_var("CXX") or "c++") if in_cpp else "cc"
        words = [*shlex.split(compiler), "-std=c++20" if in_cpp else "-std=c11", "-D_GNU_SOURCE"]
        words += ["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread", str(DRIVERS / source)]
        _run(*words, *options, "-o", str(path))
    return path


def cython_module(name: str) -> Path:
    """Compile a Cython file of drivers/ in place, and return the directory to import it from."""
    if not list(FOLDER.glob(f"{name}.*.so")):
        source = FOLDER / f"{name}.pyx"
        source.write_text((DRIVERS / f"{name}.pyx").read_text())
        _run(sys.executable, "-m", "Cython.Build.Cythonize", "-3", "-q", "-i", str(source))
    return FOLDER


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stdout}{done.stderr}")
