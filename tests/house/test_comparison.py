"""Every command of docs/comparison.md shows what the page says, where its tool is installed."""

import ctypes.util
import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cgroup import MEMORY_V1, needs_groups, remove
from support.places import ROOT

pytestmark = pytest.mark.host

PAGE = (ROOT / "docs" / "comparison.md").read_text()
# What is installed beside this Python is found first, as where an environment is active.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
# Not run, which the page has to say.
ONLY_READ = {"RMM"}
SECTIONS = {
    title: re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}
INSTALLED = {
    "memlimits": lambda: True,
    "ulimit": lambda: True,
    "Control groups": lambda: True,  # needs_groups tells
    "tcmalloc": lambda: ctypes.util.find_library("tcmalloc_minimal"),
    "memray": lambda: importlib.util.find_spec("memray"),
    "Fil": lambda: shutil.which("fil-profile", path=PATH),
    "MLX": lambda: importlib.util.find_spec("mlx"),
}


def commands(title):
    """Return each `$ command` of a section with the output that is shown below it."""
    found = [text for language, text in SECTIONS[title] if language == "console"]
    parts = [part for text in found for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return [part.partition("\n")[::2] for part in parts]


@pytest.fixture
def clone(tmp_path):
    """The top of a clone, as far as the page knows it, but not the package in its source."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def check(title, clone, group="take"):
    for command, shown in commands(title):
        run = subprocess.run(
            ["sh", "-c", command.replace("memory/take", f"memory/{group}")],
            cwd=clone,
            env={**os.environ, "PATH": PATH, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Some shells say which process it was, others say only this.
        seen = re.sub(r"^.*\bKilled\b.*$", "Killed", run.stdout, flags=re.M)
        # memray says this of a Python that was linked at a fixed address, as Debian 12's is.
        seen = re.sub(r"^.*Correcting symbol .*\n", "", seen, flags=re.M)
        matches = doctest.OutputChecker().check_output(shown, seen, doctest.ELLIPSIS)
        assert matches, f"{command}\n{seen}"


@pytest.mark.parametrize("title", [name for name in INSTALLED if name != "Control groups"])
def test_a_command_shows_what_the_page_says(title, clone):
    if not INSTALLED[title]():
        pytest.skip(f"{title} is not installed")
    pytest.importorskip("numpy")
    check(title, clone)


@needs_groups
def test_a_group_kills_what_memlimits_refuses_in_time(clone):
    pytest.importorskip("numpy")
    group = MEMORY_V1 / f"take-{os.getpid()}"
    try:
        check("Control groups", clone, group.name)
    finally:
        if group.exists():
            remove(group)


def test_every_row_has_a_command():
    rows = re.findall(r"^\| \[.*?\]\(#(.*?)\) \|", PAGE, re.M)
    titles = {title.lower().replace(" ", "-"): title for title in SECTIONS}
    assert list(titles) == rows
    assert {title for title in SECTIONS if not commands(title)} == ONLY_READ
    assert {*INSTALLED} == {*SECTIONS} - ONLY_READ
    # Each row of the first table has one in the second.
    [second] = re.findall(r"^\| \| counts .*?\n\n", PAGE, re.M | re.S)
    assert second.count("\n|") == len(rows) + 1
    for title in ONLY_READ:
        assert "read and not run" in PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
