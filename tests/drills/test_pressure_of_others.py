"""A second process takes a control group's memory: the idle cache of the first one shrinks."""

import subprocess
import sys
import textwrap

import pytest

from support.cgroup import inside, needs_groups, nested, set_limit
from support.process import PRELUDE
from support.units import MIB

pytestmark = [pytest.mark.host, needs_groups]

# Holds 64 MiB live and 128 MiB idle, then allocates nothing: says what became of them when asked.
IDLE = """
    import hashlib, json
    live = [memlimits.allocate(4 * MIB) for _ in range(16)]
    for at, block in enumerate(live):
        memoryview(block)[:] = bytes([at + 1]) * (4 * MIB)
    small = [memlimits.allocate(1000) for _ in range(1000)]
    for block in small:
        memoryview(block)[:] = b"s" * 1000
    blocks = [memlimits.allocate(8 * MIB) for _ in range(16)]
    for block in blocks:
        memoryview(block)[:] = b"x" * (8 * MIB)
    while blocks:
        blocks.pop().release()
    memlimits.set_pressure_trim({available} * MIB)
    running = memlimits.auto_trim(0.02)
    active = memlimits.get_active_memory()

    def state():
        whole = all(bytes(block) == bytes([at + 1]) * (4 * MIB) for at, block in enumerate(live))
        whole = whole and all(bytes(block) == b"s" * 1000 for block in small)
        same = memlimits.get_active_memory() == active
        print(json.dumps({{**memory.counters(), "whole": whole and same}}), flush=True)

    state()
    for line in sys.stdin:
        state()
    running.close()
    del live, small, block
    memlimits.clear_cache()
    consistent()
"""

# Takes memory until it has so many bytes, a MiB at a time, and no faster than a program computes.
TAKE = """
    import sys, time
    held = []
    for _ in range(int(sys.argv[1])):
        held.append(bytearray(b"t") * (1 << 20))
        time.sleep(0.002)
    print("taken", flush=True)
    sys.stdin.read()
"""


class Program:
    """A process in the group, spoken to by lines."""

    def __init__(self, group, source, *arguments):
        words = [*inside(group), sys.executable, "-c", textwrap.dedent(source), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, text=True, **pipes)

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def read(self):
        import json

        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.communicate(timeout=60)
        return self.process.returncode


def idle_program(group, available):
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(IDLE.format(available=available))
    return Program(group, source)


@pytest.fixture
def group():
    with nested() as (made,):
        set_limit(made, 320 * MIB)
        yield made


def test_an_idle_program_gives_its_cache_to_another(group):
    first = idle_program(group, 48)
    before = first.read()
    assert before["cache"] >= 128 * MIB
    assert before["whole"]
    # The group has 320 MiB, the first holds about 210 of it: without its cache there is enough.
    second = Program(group, TAKE, "160")
    assert second.process.stdout.readline() == "taken\n"
    after = first.ask()
    assert second.end() == 0
    assert after["whole"]
    assert after["cache"] <= 64 * MIB
    assert after["pressure_trims"] >= 2  # as it went on
    assert after["pressure_trimmed"] == before["cache"] - after["cache"]
    assert after["active"] == before["active"]
    assert (after["trims"], after["decays"], after["refusals"]) == (0, 0, 0)
    assert first.end() == 0


def test_without_it_one_of_the_two_is_killed(group):
    """What the drill above is worth."""
    first = idle_program(group, 0)
    first.read()
    second = Program(group, TAKE, "160")
    taken = second.process.stdout.readline()
    ends = {second.end(), first.end()}
    assert taken == "" or ends != {0}
    assert -9 in ends


def test_without_pressure_the_cache_stays(group):
    first = idle_program(group, 48)
    before = first.read()
    second = Program(group, TAKE, "10")
    assert second.process.stdout.readline() == "taken\n"
    after = first.ask()
    assert second.end() == 0
    assert (after["cache"], after["pressure_trims"]) == (before["cache"], 0)
    assert first.end() == 0
