"""The example gives the right answer within its limit, and numbers when it cannot."""

import csv
import gzip
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest

from support.places import ROOT

DIGITS = ROOT / "examples" / "digits.py"
MIB = 1 << 20
IMAGES, PIXELS, CHUNK = 1797, 64, 64
ONE_TEMPORARY = CHUNK * IMAGES * PIXELS * 8
EVERY_ROW = IMAGES * IMAGES * PIXELS * 8


@pytest.fixture
def data():
    try:
        return distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    except PackageNotFoundError:
        pytest.skip("scikit-learn, whose data the example reads, is not installed")


def memlimits_run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "memlimits", "run", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def answer(data):
    """What the program should print, from integers and one matrix product."""
    with gzip.open(data, "rt", newline="") as file:
        table = np.array([[int(float(field)) for field in row] for row in csv.reader(file)])
    images, digits = table[:, :-1], table[:, -1]
    assert images.shape == (IMAGES, PIXELS)
    squares = (images**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (images @ images.T)
    np.fill_diagonal(distances, distances.max() + 1)
    # Where several images are equally near they show the same digit, so the choice is free.
    for row in range(IMAGES):
        assert np.unique(digits[distances[row] == distances[row].min()]).size == 1
    right = int((digits[distances.argmin(axis=1)] == digits).sum())
    assert right == 1776  # as scikit-learn's KNeighborsClassifier with LeaveOneOut says
    return f"{right} of {IMAGES} digits recognised (98.8%)\n"


def test_digits_within_its_limit(answer, tmp_path):
    report = tmp_path / "report.json"
    run = memlimits_run(
        "--memory-limit", "256MiB", "--report", report, DIGITS, "--chunk", CHUNK, cwd=tmp_path
    )
    assert (run.returncode, run.stdout) == (0, answer), run.stderr
    facts = json.loads(report.read_text())
    assert facts["memory_limit"] == 256 * MIB
    assert 2 * ONE_TEMPORARY <= facts["peak"] <= 256 * MIB
    assert facts["refusals"] == 0


def test_digits_without_memlimits(answer):
    run = subprocess.run(
        [sys.executable, DIGITS, "--chunk", str(CHUNK)], capture_output=True, text=True, check=True
    )
    assert run.stdout == answer


@pytest.mark.parametrize(
    ("limit", "arguments", "requested"),
    [("64MiB", ["--chunk", CHUNK], ONE_TEMPORARY), ("256MiB", [], EVERY_ROW)],
)
def test_digits_under_too_small_a_limit(data, limit, arguments, requested, tmp_path):
    report = tmp_path / "report.json"
    run = memlimits_run(
        "--memory-limit", limit, "--report", report, DIGITS, *arguments, cwd=tmp_path
    )
    assert (run.returncode, run.stdout) == (1, "")
    traceback, _, after = run.stderr.partition("MemoryError")
    assert traceback.startswith("Traceback (most recent call last):")
    assert f"({requested:,} bytes)" in after
    facts = json.loads(report.read_text())
    assert facts["last_refusal"]["requested"] == requested
    assert facts["last_refusal"]["blocked_by"] == "limit"


@pytest.mark.parametrize(("limit", "status"), [("200MiB", 1), ("2GiB", 0)])
def test_one_gibibyte(limit, status, tmp_path):
    script = tmp_path / "gibibyte.py"
    script.write_text("import numpy\nassert numpy.empty(1 << 27).nbytes == 1 << 30\n")
    run = memlimits_run("--memory-limit", limit, "--policy", "strict", script, cwd=tmp_path)
    assert run.returncode == status, run.stderr
    assert ("MemoryError" in run.stderr) == bool(status)
    assert ("(1,073,741,824 bytes)" in run.stderr) == bool(status)
