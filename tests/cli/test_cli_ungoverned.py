"""What the report says of memory that is not governed."""

import json
import re
import subprocess
import sys

import pytest

import memlimits
from memlimits.cli.report import describe
from support.commands import runner
from support.units import MIB

pytestmark = pytest.mark.usefixtures("buffered_streams")

QUIET = {
    **memlimits.stats()._asdict(),
    "budgets": [],
    "last_refusal": None,
    "passed_by": 0,
    "governed": "numpy",
    "ungoverned_objects": None,
    "ungoverned": None,
    "ungoverned_children": None,
    "processes": None,
}


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


@pytest.mark.parametrize(
    ("ungoverned", "resident", "told"),
    [(64, 100, False), (65, 100, True), (100, 400, False), (101, 400, True)],
)
def test_what_is_worth_a_word(ungoverned, resident, told):
    changes = {"ungoverned_peak": ungoverned * MIB, "process_peak_resident": resident * MIB}
    line = f"about {ungoverned} MiB were not governed: --govern python adds Python's objects, "
    assert (line in describe({**QUIET, **changes})) == told


@pytest.mark.host
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("held = bytearray(b'x') * (200 << 20)", True),
        ("import numpy; held = numpy.ones(25 << 20)", False),
        ("import numpy; held = numpy.ones(25 << 20); del held", False),
        # The system can drop it again.
        ("import mmap; held = mmap.mmap(file.fileno(), 0, access=1); sum(held[::4096])", False),
    ],
    ids=["Python's", "NumPy's", "cached", "of a file"],
)
def test_what_was_not_governed(run, tmp_path, source, told):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(200 << 20)
    source = f"file = open('file', 'rb'); {source}"
    done = run(source, "--memory-limit=1GiB", "--govern=numpy", "--report=report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (b" were not governed: " in done.stderr) == told
    assert (report["ungoverned_peak"] >= 190 * MIB) == told
    assert report["ungoverned_peak"] < (220 * MIB if told else 60 * MIB)
    assert report["process_peak_resident"] > 190 * MIB
    resident = re.search(
        rb"peak: governed ([\d.]+) (?:Mi)?B of ([\d.]+) MiB resident, ", done.stderr
    )
    assert float(resident[2]) == pytest.approx(report["process_peak_resident"] / MIB, abs=0.01)
    assert (float(resident[1]) < 1) == ("numpy" not in source)


@pytest.mark.host
def test_what_was_resident_before_the_program_was_started_is_not_its_own(run, tmp_path):
    """Python's options have it started anew: in the same process, by one that had more."""
    before = "held = bytearray(b'x') * (200 << 20)\n"
    words = ["-m", "memlimits", "run", "--report", tmp_path / "report.json", "-X", "dev", "-c", ""]
    end = f"os.execv(sys.executable, [sys.executable, *{list(map(str, words))}])"
    source = f"import os, sys\n{before}{end}"
    done = subprocess.run([sys.executable, "-c", source], stderr=subprocess.PIPE)
    assert b" were not governed: " not in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["process_peak_resident"] < 100 * MIB


needs_pymalloc = pytest.mark.skipif(
    "t" in sys.abiflags, reason="mimalloc allocates Python's objects, and is not governed"
)

# Of C code by malloc, and from no malloc.
MALLOC = """
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
ctypes.memset(libc.malloc(200 << 20), 1, 200 << 20)
"""
MAPPED = "held = mmap.mmap(-1, 200 << 20, flags=34); held[::4096] = b'x' * (200 << 8)"


@pytest.mark.host
@pytest.mark.parametrize(
    ("level", "source", "advice"),
    [
        (
            "numpy",
            MALLOC,
            b"--govern python adds Python's objects, --govern all what malloc gives ",
        ),
        ("python", MALLOC, b"--govern all adds what malloc gives to libraries\n"),
        pytest.param("python", "held = bytearray(b'x') * (200 << 20)", None, marks=needs_pymalloc),
        ("python", MAPPED, b"--govern all adds what malloc gives to libraries\n"),
    ],
)
def test_what_to_add_follows_from_the_level(run, tmp_path, level, source, advice):
    source = f"import ctypes, mmap\n{source}"
    done = run(source, "--memory-limit=1GiB", f"--govern={level}", "--report=report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["governed"] == level
    assert (b" MiB were not governed: " in done.stderr) == (advice is not None)
    assert (report["ungoverned_peak"] >= 190 * MIB) == (advice is not None)
    assert (advice or b"") in done.stderr
