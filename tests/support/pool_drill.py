"""The drill of the ledger that processes share, compiled from the source tree's own files."""

import os
import subprocess
import sys
import sysconfig

from support.places import ROOT, TESTS

_TRANSLATE = """
import sys
from Cython.Build import cythonize
cythonize(sys.argv[2:], build_dir=sys.argv[1], quiet=True, include_path=["."],
          compiler_directives={"cdivision": True, "language_level": 3})
"""
_SOURCES = ["memlimits/_ledger/pool.pyx", "tests/ledger/pool_drill.pyx"]


def build(folder):
    """Make the module `pool_drill` in a folder."""
    assert TESTS == ROOT / "tests"
    words = [sys.executable, "-c", _TRANSLATE, str(folder), *_SOURCES]
    subprocess.run(words, cwd=ROOT, check=True)
    (folder / "point.h").write_text("void drill_point(void);\n")
    compiler = os.environ.get("CC", "gcc").split()
    flags = ["-shared", "-fPIC", "-O2", "-std=c11", "-D_GNU_SOURCE", "-ffunction-sections"]
    flags += ["-Wl,--gc-sections", "-Iobjc", f"-I{sysconfig.get_path('include')}"]
    # Whatever the library does to a word of the pool, the drill comes before it.
    flags += ["-DMEMLIMITS_BEFORE_WORD=drill_point();", "-include", str(folder / "point.h")]
    sources = [*(str(folder / source.replace(".pyx", ".c")) for source in _SOURCES)]
    sources.append("objc/shared.c")
    made = folder / f"pool_drill{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([*compiler, *flags, *sources, "-o", str(made)], cwd=ROOT, check=True)


def drill(folder, file, members, limit, operations=0, kills=0, seed=1):
    """Run it in a process of its own. Operations, refusals, kills and the most in use at once."""
    program = f"""
import sys
sys.path.insert(0, {str(folder)!r})
import pool_drill
print(*pool_drill.drill({str(file)!r}, {members}, {limit}, {operations}, {kills}, {seed}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]
