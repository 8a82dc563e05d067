"""`memlimits run --count`: what the memory limit is on."""

import functools
import json
import os
import re
import sys

import pytest

from support.commands import runner
from support.units import MIB

pytestmark = pytest.mark.usefixtures("buffered_streams")

# Half of the limit is Python's own.
HALF = """
import numpy
held = bytearray(b"x") * (150 << 20)
arrays = []
try:
    while True:
        arrays.append(numpy.ones(1 << 17))
except MemoryError:
    print(len(arrays))
"""


def run_with_numpy(run, source, *options, **keywords):
    return run(source, "--govern=numpy", *options, **keywords)


@pytest.fixture
def run(tmp_path):
    return functools.partial(run_with_numpy, runner(tmp_path))


@pytest.mark.host
def test_the_report_says_what_the_process_held(run, tmp_path):
    done = run(HALF, "--memory-limit=300MiB", "--count=process", "--report=report.json")
    assert 100 <= int(done.stdout) < 150
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["memory_count"] == "process"
    refusal = report["last_refusal"]
    assert (refusal["counted"], refusal["blocked_by"]) == ("process", "limit")
    assert 298 * MIB < refusal["process"] <= 302 * MIB
    number = f"{refusal['process']:,}"
    assert f" MiB ({number} bytes)\n".encode() in done.stderr
    assert re.search(rb"^memlimits:   the process held ", done.stderr, re.M)
    assert report["process_peak_resident"] - report["process_files"] < 310 * MIB


# More than the limit, with what nobody governs: what is idle has to go, and more than is asked for.
IDLE = """
import mmap
import numpy
arrays = [numpy.ones(1 << 16, numpy.uint8) for _ in range(1000)]
del arrays
other = mmap.mmap(-1, 20 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
other.write(b"x" * (20 << 20))
print(numpy.ones(3 << 20, numpy.uint8).sum())
"""


@pytest.mark.host
def test_idle_memory_goes_for_what_the_process_holds_besides(run):
    done = run(IDLE, "--memory-limit=95MiB", "--count=process")
    assert int(done.stdout) == 3 * MIB


# Most of what is idle has to go for it.
RESERVE = """
import mmap
import memlimits
import numpy
arrays = [numpy.ones(1 << 16, numpy.uint8) for _ in range(1000)]
del arrays
other = mmap.mmap(-1, {others} << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
other.write(b"x" * ({others} << 20))
with memlimits.reserve({mib} << 20):
    held = numpy.ones({mib} << 20, numpy.uint8)
    print(held.sum())
"""


@pytest.mark.host
@pytest.mark.parametrize(("count", "others", "mib"), [("given", 1, 60), ("process", 20, 3)])
def test_idle_memory_goes_for_a_reservation(run, count, others, mib):
    source = RESERVE.format(others=others, mib=mib)
    done = run(source, "--memory-limit=95MiB", f"--count={count}")
    assert int(done.stdout) == mib * MIB


# As a reader of tables does: it asks for more than it fills.
PART = """
import numpy
arrays = [numpy.empty(1 << 21) for _ in range(30)]
for array in arrays:
    array[: 1 << 19] = 1
print(sum(int(array[: 1 << 19].sum()) for array in arrays) >> 19)
"""


@pytest.mark.host
def test_what_is_resident_may_fit_where_what_was_given_does_not(run, tmp_path):
    done = run(PART, "--memory-limit=200MiB", "--count=resident", "--report=report.json")
    assert done.stdout == b"30\n"
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["refusals"], report["overruns"]) == (0, 0)
    assert report["peak"] >= 480 * MIB
    assert report["process_peak_resident"] < 300 * MIB
    assert b"MemoryError" in run(PART, "--memory-limit=200MiB", "--count=given", code=1).stderr
    done = run(PART + "numpy.ones(1 << 24)", "--memory-limit=200MiB", "--count=resident", code=1)
    assert re.search(rb"^memlimits:   not touched and not counted 3\d\d", done.stderr, re.M)
    assert b", of it not touched 3" in done.stderr


def test_by_default_the_limit_is_on_what_was_given(run):
    done = run(HALF, "--memory-limit=300MiB")
    assert 290 <= int(done.stdout) <= 300
    assert b"touched" not in done.stderr


def test_a_variable_stands_for_it(run):
    source = "import memlimits; print(memlimits.get_memory_count())"
    environ = {**os.environ, "MEMLIMITS_COUNT": "process"}
    assert run(source, env=environ).stdout == b"process\n"
    assert run(source, "--count", "given", env=environ).stdout == b"given\n"
    done = run(source, env={**environ, "MEMLIMITS_COUNT": "proces"}, code=2)
    assert (
        b"memlimits: variable MEMLIMITS_COUNT: invalid count 'proces': write one of " in done.stderr
    )


def test_what_is_no_count(run):
    done = run("print(1)", "--count=all", code=2)
    assert b"error: argument --count: invalid count 'all': write one of given, " in done.stderr
    assert done.stdout == b""


@pytest.mark.host
@pytest.mark.parametrize("policy", ["strict", "wait"])
def test_a_limit_below_what_the_process_holds_by_itself(run, policy):
    options = "--memory-limit=2MiB", "--count=process", f"--policy={policy}"
    done = run("print(1)", *options, code=2)
    assert done.stdout == b""
    sentence = (
        rb"memlimits: a memory limit of 2 MiB \(2,097,152 bytes\) that counts the process is "
    )
    sentence += (
        rb"below what that holds, and needs, before the program, [\d.]+ MiB \([\d,]+ bytes\)"
    )
    sentence += rb": give more, or --count resident, under which only what is governed counts\n"
    assert re.fullmatch(sentence, done.stderr)
    needs = int(re.findall(rb"\(([\d,]+) bytes\)", done.stderr)[1].replace(b",", b""))
    # Each run holds a little more or less; a start takes so much at most.
    options = f"--memory-limit={needs - (1 << 19)}B", *options[1:]
    assert b"MemoryError" not in run("print(1)", *options, code=2).stderr


@pytest.mark.host
def test_a_guideline_goes_on_with_one(run):
    done = run("print(1)", "--memory-limit=2MiB", "--count=process", "--policy=guideline")
    assert done.stdout == b"1\n"


FULL = """
import memlimits
held = [memlimits.allocate(10 << 20)]  # which nobody touches
try:
    while True:
        held.append(bytearray(b"x") * (1 << 20))
except MemoryError:
    error = memlimits.last_refusal()
    print(error.requested, error.footprint, error.process, error.untouched, error.kept_back)
    raise
"""


@pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's")
@pytest.mark.host
@pytest.mark.parametrize("count", ["given", "resident", "process"])
def test_the_numbers_of_a_refusal_add_up(tmp_path, count):
    options = "--govern=python", f"--count={count}", "--memory-limit=100MiB"
    done = runner(tmp_path)(FULL, *options, code=1)
    requested, footprint, process, untouched, kept_back = map(int, done.stdout.split())
    counted = {
        "given": footprint,
        "resident": footprint - untouched,
        "process": process + untouched,
    }[count]
    # Nobody asks before the process takes what is not governed.
    beside = MIB // 4 if count == "process" else 0
    assert counted + kept_back <= 100 * MIB + beside
    assert counted + kept_back + requested + MIB // 4 > 100 * MIB
    assert kept_back == 7 * MIB
    assert done.stderr.count(b", kept back for errors 7 MiB") == 1
    assert b"memlimits:   kept back for errors 7 MiB (7,340,032 bytes)\n" in done.stderr
    if count == "process":
        assert untouched >= 10 * MIB
        assert b", given and not touched yet " in done.stderr
        assert b"memlimits:   given and not touched yet " in done.stderr
