"""pip removes all of an installed memlimits, also what lies beside the package."""

import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import pytest

from support.children import INSTALLED

pytest.importorskip("pip")
pytestmark = pytest.mark.skipif(not INSTALLED, reason="memlimits is not installed")


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}


def test_uninstalling_leaves_nothing(tmp_path):
    """In an environment of its own, with the files that pip noted of the one here."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    before = files_below(environment)
    here = Path(sysconfig.get_path("purelib"))
    there = environment / here.relative_to(sys.prefix)
    for file in distribution("memlimits").files:
        target = Path(there, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(here, file).read_bytes())
    added = files_below(environment) - before
    assert {"_memlimits_start.py", "memlimits.pth"} < {path.name for path in added}

    # Python writes some more, and what starts below is governed.
    program = "import memlimits, subprocess, sys; subprocess.run([sys.executable, '-c', ''])"
    python = environment / "bin/python"
    words = [python, "-m", "memlimits", "run", "--memory-limit=1GiB", "-c", program]
    done = subprocess.run(words, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert ", 2 processes," in done.stderr
    words = [sys.executable, "-m", "pip", "--python", python, "uninstall", "--yes", "memlimits"]
    subprocess.run(words, check=True, cwd=tmp_path, capture_output=True)
    assert files_below(environment) == before
