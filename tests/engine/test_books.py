"""What debug and sanitizer builds look at whenever the heaps stand still.

That such a build looks at all is held here; what it says of broken code was seen by breaking it.
"""

import os
import re
from pathlib import Path

import pytest

from memlimits import memory
from memlimits._bindings.system_info import checks
from support.places import ROOT
from support.process import execute

pytestmark = [pytest.mark.inside, pytest.mark.core]

VARIABLES = ("MEMLIMITS_DEBUG", "MEMLIMITS_COVERAGE", "MEMLIMITS_SANITIZE")
looks = pytest.mark.skipif(checks() is None, reason="not a debug or sanitizer build")


def sanitized():
    """Whether a sanitizer runs in this process, as it must where the library is built for one."""
    maps = Path("/proc/self/maps")
    return maps.exists() and re.search(r"lib\w*[at]san", maps.read_text()) is not None


@pytest.mark.skipif(not sanitized(), reason="no sanitizer runs")
def test_a_build_for_a_sanitizer_looks():
    assert checks() is not None


@looks
@pytest.mark.parametrize(
    "step",
    [memory.reset_peak_memory, memory.clear_cache, memory.stats],
    ids=lambda step: step.__name__,
)
def test_each_stop_is_looked_at(step):
    before = checks()
    step()
    assert checks() > before


@looks
@pytest.mark.host
def test_a_write_to_a_freed_block_is_found_at_the_next_stop():
    """The one rule that a program can break: a freed block says which is the next."""
    program = """
        import ctypes, resource
        import memlimits
        from memlimits import memory

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        kept, block = memlimits.allocate(100), memlimits.allocate(100)
        address = block.ptr
        del block
        memory.reset_peak_memory()
        print("sound", flush=True)
        ctypes.memset(address, 1, 8)
        memory.reset_peak_memory()
        print("not seen", flush=True)
    """
    done = execute(program)
    assert (done.stdout, done.returncode) == ("sound\n", -6), done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith("memlimits: a rule of its own does not hold: ")
    assert "was it written to?" in said


def compiled_with(**variables):
    """The options that setup.py compiles with, read off the real one; nothing is built."""
    script = """
        import setuptools
        setuptools.setup = lambda **given: print(*given["ext_modules"][0].extra_compile_args)
        with open("setup.py") as file:
            exec(compile(file.read(), "setup.py", "exec"))
    """
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = execute(script, cwd=ROOT, env={**kept, **variables}, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in a clone")
def test_the_switch_is_set_where_it_has_to_be():
    switch = "-DMEMLIMITS_ASSERTIONS=1"
    assert switch not in compiled_with()
    for variable, value in zip(VARIABLES, ("1", "1", "thread"), strict=True):
        assert switch in compiled_with(**{variable: value}), variable
