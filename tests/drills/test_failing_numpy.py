"""A NumPy that returns a wrong result where malloc gives it nothing is found out, another is not.

`numpy.linalg.inv` of 2.3.3 did; NumPy's pull request 29811 is in 2.3.4.
"""

import os
import subprocess
import sys

import pytest

from support.interposed import LIBRARY
from support.places import ROOT

pytestmark = [
    pytest.mark.inside,
    pytest.mark.host,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
    pytest.mark.skipif(sys.version_info >= (3, 15), reason="NumPy 2.3 is of Python 3.11 to 3.14"),
]


def run_with(version, folder):
    """Run the example with this NumPy; return the status, and what pytest said."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--target", folder, f"numpy=={version}"], check=True, timeout=300)
    command = [sys.executable, "-m", "memlimits", "run", "--quiet", "--govern", "all"]
    example = ROOT / "examples" / "test_inverse.py"
    options = ["-rA", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "pytest", *options, example],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_the_one_before(tmp_path):
    status, said = run_with("2.3.3", tmp_path)
    assert status == pytest.ExitCode.TESTS_FAILED, said
    assert "request 1 (80 bytes): wrong: AssertionError in test_inverse" in said


def test_the_one_after(tmp_path):
    status, said = run_with("2.3.4", tmp_path)
    assert status == pytest.ExitCode.OK, said
    assert "without a refusal: passed\nrequest 1 (80 bytes): raised: MemoryError in inv" in said
