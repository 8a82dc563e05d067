"""The closing report of a program that ends above its limit."""

import json
import re

import pytest

from memlimits.cli import main
from support.commands import runner
from support.units import MIB

pytestmark = [pytest.mark.usefixtures("buffered_streams"), pytest.mark.host]

# What malloc gave is touched when nothing is left to ask for.
TOUCHED_LATER = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
blocks = [libc.malloc(30 << 20) for _ in range(5)]
for block in blocks:
    ctypes.memset(block, 1, 30 << 20)
print("done")
"""
# Python's objects, with the limit lowered below them.
LOWERED = """
import memlimits
held = [bytearray(b"x") * (30 << 20), [object() for _ in range(200_000)]]
memlimits.set_memory_limit(10 << 20)
"""


def report_of(tmp_path, source, *options, **keywords):
    done = runner(tmp_path)(source, *options, "--report=report.json", **keywords)
    return done, json.loads((tmp_path / "report.json").read_text())


@pytest.fixture
def malloc_is_governed(tmp_path):
    done = runner(tmp_path)("pass", "--govern=all")
    if b"cannot" in done.stderr:
        pytest.skip("malloc cannot be governed here")


@pytest.mark.usefixtures("malloc_is_governed")
def test_what_is_touched_later_passes_the_limit_and_the_report_says_so(tmp_path):
    done, report = report_of(tmp_path, TOUCHED_LATER, "--govern=all", "--memory-limit=100MiB")
    assert done.stdout == b"done\n"
    assert b"Error" not in done.stderr
    assert (report["memory_limit"], report["policy"]) == (100 * MIB, "strict")
    assert report["memory_count"] == "resident"
    assert report["refusals"] == 0, report["last_refusal"]
    assert 50 * MIB <= report["passed_by"] < 60 * MIB
    assert b", limit 100 MiB (strict, on what is resident)\n" in done.stderr
    line = (
        rb"memlimits: passed by about 5\d[.\d]* MiB: the limit counts what is resident, and more "
    )
    line += rb"was touched after it was given\n"
    assert re.search(line, done.stderr)


@pytest.mark.usefixtures("malloc_is_governed")
def test_what_was_touched_later_and_freed_counts_by_the_peak(tmp_path):
    source = TOUCHED_LATER + "libc.free.argtypes = [ctypes.c_void_p]\n"
    source += "for block in blocks: libc.free(block)"
    _, report = report_of(tmp_path, source, "--govern=all", "--memory-limit=100MiB")
    assert 40 * MIB <= report["passed_by"] < 70 * MIB


@pytest.mark.usefixtures("malloc_is_governed")
def test_what_is_not_touched_passes_nothing(tmp_path):
    source = TOUCHED_LATER.replace("ctypes.memset", "int or ")
    done, report = report_of(tmp_path, source, "--govern=all", "--memory-limit=100MiB")
    assert report["passed_by"] == 0
    assert report["untouched"] > 140 * MIB
    assert b"passed" not in done.stderr


@pytest.mark.parametrize("policy", ["strict", "wait"])
def test_a_limit_that_was_lowered_below_what_is_held(tmp_path, policy):
    """No object more could be made for the report."""
    done, report = report_of(tmp_path, LOWERED, "--memory-limit=100MiB", f"--policy={policy}")
    assert (report["memory_limit"], report["policy"]) == (10 * MIB, policy)
    assert report["refusals"] == report["overruns"] == 0
    assert b"Error" not in done.stderr
    assert b", limit 10 MiB (" in done.stderr


def test_memory_that_is_not_governed_passes_a_limit_on_the_process(tmp_path):
    source = "held = bytearray(b'x') * (90 << 20)"
    options = "--govern=numpy", "--count=process", "--memory-limit=70MiB"
    done, report = report_of(tmp_path, source, *options)
    assert 20 * MIB < report["passed_by"] < 60 * MIB
    assert b"MiB: the limit counts the process, and what is not governed is not " in done.stderr
    done, report = report_of(tmp_path, source, *options, "--policy=guideline")
    assert report["passed_by"] > 20 * MIB
    assert b"passed" not in done.stderr


def test_an_option_before_the_command_says_where_it_goes(capfd):
    assert main(["--memory-limit", "64MiB", "program.py"]) == 2
    assert "options follow a command: memlimits run --memory-limit" in capfd.readouterr().err


@pytest.mark.parametrize("word", ["--memory-limit", "--memory-limit=64MiB"])
def test_an_option_behind_the_program_is_told_of_where_none_stands_before(tmp_path, word):
    done = runner(tmp_path)("pass", args=[word, "64MiB"])
    line = f"memlimits: warning: {word} stands behind the program, and is its own: ".encode()
    assert done.stderr.startswith(line)
    done = runner(tmp_path)("pass", "--cache-limit=64MiB", args=[word, "64MiB"])
    assert b"warning" not in done.stderr
