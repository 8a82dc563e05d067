"""Who held most, as `memlimits run` tells of a refusal."""

import json

import pytest

from support.commands import runner
from support.units import MIB

pytest.importorskip("numpy")

PROGRAM = """
import numpy

def read(n):
    return numpy.ones(n << 20, numpy.uint8)

def rest():
    return [numpy.ones(100_000, numpy.uint8) for _ in range(60)]

held = read(20), rest(), read(10)
try:
    read(100)
finally:
    del held
"""


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


def refused(run, tmp_path, *options, program=PROGRAM, **keywords):
    """The lines that a program writes to stderr, and the holders in its report."""
    options += ("--memory-limit=64MiB", "--report=report.json")
    done = run(program, *options, code=1, **keywords)
    report = json.loads((tmp_path / "report.json").read_text())
    return done.stderr.decode().splitlines(), report["last_refusal"]["holders"]


@pytest.mark.parametrize("level", ["numpy", "python"])
def test_note_and_report_say_it(run, tmp_path, level):
    lines, holders = refused(run, tmp_path, f"--govern={level}", "--holders=1MiB")
    (note,) = [line for line in lines if line.startswith("memlimits: refused 100 MiB")]
    assert "; held by read (program.py:5) 30 MiB" in note
    (line,) = [line for line in lines if line.startswith("memlimits:   held by read (")]
    assert line.endswith("program.py:5): 30 MiB, blocks: 2")
    first = holders[0]
    assert (first["line"], first["function"], first["nbytes"]) == (5, "read", 30 * MIB)
    assert first["blocks"] == 2
    assert [frame[2] for frame in first["stack"]][-2:] == ["read", "ones"]
    # Of 6 MB in short blocks: by six samples, in the mean.
    assert all(holder["nbytes"] < 20 * MIB for holder in holders[1:])


def test_of_short_blocks_too_where_samples_are_many(run, tmp_path):
    _, holders = refused(run, tmp_path, "--govern=numpy", "--holders=8KiB")
    (nbytes,) = [holder["nbytes"] for holder in holders if holder["function"].startswith("rest")]
    assert 5 * MIB < nbytes < 8 * MIB


@pytest.mark.parametrize(
    ("options", "environment"),
    [([], {}), (["--holders=0"], {"MEMLIMITS_HOLDERS": "1MiB"}), ([], {"MEMLIMITS_HOLDERS": "0"})],
)
def test_nobody_is_named_where_that_is_off(run, tmp_path, monkeypatch, options, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lines, holders = refused(run, tmp_path, "--govern=numpy", *options)
    assert holders == []
    assert not any("held by" in line for line in lines)


def test_children_are_told_of_as_well(run, tmp_path):
    program = f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-c", {PROGRAM!r}], capture_output=True, text=True)
print(done.stderr.splitlines()[-1])
"""
    done = run(program, "--govern=numpy", "--memory-limit=64MiB", "--holders=32KiB")
    assert b"; held by read (<string>:5) 30 MiB" in done.stdout


@pytest.mark.parametrize("size", ["1KiB", "2TiB", "-1", "much", "5"])
def test_bad_sizes(run, size):
    done = run("", f"--holders={size}", code=2)
    assert "argument --holders: " in done.stderr.decode()
    assert size.strip("-") in done.stderr.decode()
