"""Build the source distribution and, of that, a wheel for each of some Pythons; check and try them.

wheels.py [--out DIR] [--tests WHICH] PYTHON...

What each is tried with besides a few lines: none, some, core (the tests so marked) or whole (all).
Needs what .ci/wheels/run.sh installs.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

import old_glibc
from trove_classifiers import classifiers

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = f"manylinux_2_{old_glibc.MINOR}_{platform.machine()}"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "memlimits")
# Besides the package, the wheel has what Python runs as it starts, where Python looks for that.
TOP_LEVEL = "memlimits,_memlimits_start.py"
TESTS = {
    "none": None,
    "some": [
        "tests/c_interface",
        "tests/house/test_module.py",
        "tests/adapters/test_without_numpy.py",
    ],
    "core": ["-m", "core", "tests"],
    "whole": ["tests"],
}
# Run without NumPy, and where there is no compiler.
TRIAL = """
import memlimits, sys
memlimits.set_memory_limit(64 << 20)
memlimits.set_memory_policy("strict")
memlimits.allocate(1 << 20).release()
try:
    memlimits.allocate(100 << 20)
except memlimits.MemoryLimitError as error:
    assert error.blocked_by == "limit"
else:
    sys.exit("100 MiB were given")
try:
    memlimits.zeros(3)
except ImportError as error:
    assert "pip install numpy" in str(error)
else:
    sys.exit("there is a NumPy")
"""
# As C code asks, since Python's objects are not governed without the GIL.
REFUSED = """
import ctypes
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
print("given:", malloc(ctypes.c_size_t(200 << 20)))
"""


# Where the newest NumPy has no wheel, as for the free-threaded 3.13, an older one has.
os.environ["PIP_ONLY_BINARY"] = "hypothesis,numpy"


def say(text):
    print(f"memlimits: {text}", file=sys.stderr, flush=True)


def run(*words, **options):
    """Run it; what it printed is shown where it fails, which ends this."""
    done = subprocess.run(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nmemlimits: failed: {' '.join(map(str, words))}")
    return done.stdout


def tool(name, *words):
    """Run a command of this Python's environment."""
    folder = Path(sys.executable).parent
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return run(folder / name, *words, env=os.environ | {"PATH": path})


def make_sdist(out):
    tool("python", "-m", "build", "--sdist", "--outdir", out, ROOT)
    [sdist] = out.glob("memlimits-*.tar.gz")
    return sdist


def unpack(sdist, folder):
    """What a user builds of. C that Cython has made here of the same sources is taken over."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [source] = folder.iterdir()
    if (ROOT / "build/cython").exists():
        shutil.copytree(ROOT / "build/cython", source / "build/cython")
    return source


def make_environment(python, folder):
    run(python, "-m", "venv", folder)
    return folder / "bin/python"


def build(python, source, folder, out):
    """A wheel that runs with that glibc and every later one."""
    pip = make_environment(python, folder / "builder")
    compiler = old_glibc.make(CACHE / f"glibc-2.{old_glibc.MINOR}")
    # Python's own words for the linker may name folders of this machine.
    made_by = {"CC": str(compiler), "LDSHARED": f"{compiler} -shared", "MEMLIMITS_WERROR": "1"}
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "raw", source]
    run(pip, *words, env=os.environ | made_by)
    [raw] = (folder / "raw").glob("*.whl")
    before = {*out.glob("*.whl")}
    tool("auditwheel", "repair", "--strip", "--only-plat", "--plat", PLATFORM, "-w", out, raw)
    [wheel] = {*out.glob("*.whl")} - before
    return wheel


def check(sdist, wheel):
    """What else holds of each."""
    shown = tool("auditwheel", "show", wheel)
    if f'"{PLATFORM}"' not in shown:
        raise SystemExit(f"{wheel.name} is not as {PLATFORM} asks for:\n{shown}")
    # Of what is no module there, it knows .pth files alone.
    start = ",memlimits.start" if "memlimits.start" in zipfile.ZipFile(wheel).namelist() else ""
    tool("check-wheel-contents", "--ignore", "W003", "--toplevel", TOP_LEVEL + start, wheel)
    tool("twine", "check", "--strict", sdist, wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if unknown := {*project["classifiers"]} - {*classifiers}:
        raise SystemExit(f"PyPI knows no such classifiers: {', '.join(unknown)}")


def try_out(python, wheel, folder, tests):
    """Install it where there is no compiler, and run what tells that it works."""
    fresh = make_environment(python, folder / "fresh")
    alone = {"PATH": str(fresh.parent), "HOME": str(folder)}
    began = time.monotonic()
    run(fresh, "-m", "pip", "install", "--quiet", "--no-index", wheel, env=alone)
    say(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, "
        f"installed in {time.monotonic() - began:.1f} s")  # fmt: skip
    run(fresh, "-W", "error", "-c", TRIAL, env=alone, cwd=folder)
    limit = ["run", "--memory-limit", "100MiB", "--count", "given", "--govern", "all"]
    said = run(fresh.with_name("memlimits"), *limit, "-c", REFUSED, env=alone, cwd=folder)
    if "given: None" not in said or "refused 200 MiB" not in said:
        raise SystemExit(f"memlimits run refused nothing:\n{said}")
    if TESTS[tests] is not None:
        needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
        run(fresh, "-m", "pip", "install", "--quiet", *needed["test-requires"])
        words = [ROOT / word if word.startswith("tests") else word for word in TESTS[tests]]
        # Modules of the tests' own do not say that they need no GIL.
        environ = os.environ | ({"PYTHON_GIL": "0"} if "t-manylinux" in wheel.name else {})
        words = ["-m", "pytest", "-q", "-n", "auto", "-c", ROOT / "tox.ini", *words]
        shown = run(fresh, *words, cwd=folder, env=environ)
        say(f"{wheel.name}: {shown.splitlines()[-1]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--tests", choices=TESTS, default="core")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for old in [*options.out.glob("*.whl"), *options.out.glob("*.tar.gz")]:
        old.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        sdist = make_sdist(options.out)
        source = unpack(sdist, Path(temporary, "source"))
        for number, python in enumerate(options.pythons):
            folder = Path(temporary, str(number))
            wheel = build(python, source, folder, options.out)
            check(sdist, wheel)
            try_out(python, wheel, folder, options.tests)
    built = f"{len(options.pythons)} wheels and {sdist.name}"
    say(f"built, checked and tried: {built}, in {options.out}")


if __name__ == "__main__":
    main()
