"""Everything that README.md and docs/ show is run, and shows the same here.

(The README's Cython: test_c_interface.)
"""

import doctest
import os
import re
import shlex
import subprocess
import sys

import pytest

from support.places import ROOT

BLOCKS = {
    page: re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    for page in (
        "README.md",
        "docs/guides/containers.md",
        "docs/guides/holders.md",
        "docs/guides/workers.md",
        "docs/guides/recordings.md",
        "docs/guides/servers.md",
    )
}


def blocks(language, page="README.md"):
    found = [text for name, text in BLOCKS[page] if name == language]
    assert found
    return found


def commands():
    """Return each `$ command` of the console blocks with the output shown below it."""
    parts = [
        part
        for page in BLOCKS
        if page
        not in ("docs/guides/holders.md", "docs/guides/recordings.md", "docs/guides/servers.md")
        for block in blocks("console", page)
        for part in block.split("$ ")[1:]
    ]
    return [part.split("\n", 1) for part in parts]


def test_every_block_is_of_a_kind_that_is_tested():
    # "python" is Metal's: tests/bindings/test_metal_queue.py runs it.
    languages = {page: {language for language, _ in found} for page, found in BLOCKS.items()}
    assert languages == {
        "README.md": {"console", "cython", "pycon", "python", "sh"},
        "docs/guides/containers.md": {"console", "pycon"},
        # Its commands are run by tests/cli/test_cli_record.py.
        "docs/guides/holders.md": {"pycon", "sh"},
        # The block on Dask is what tests/adapters/test_dask.py does.
        "docs/guides/workers.md": {"console", "python"},
        "docs/guides/recordings.md": {"pycon"},
        # Its commands are those of tests/cli/test_cli_pool.py.
        "docs/guides/servers.md": {"sh", "pycon"},
    }


@pytest.mark.parametrize("page", [page for page in BLOCKS if page != "docs/guides/workers.md"])
def test_tour(page, tmp_path):
    tour = tmp_path / "tour.txt"
    # Objects that are never governed without the GIL are not refused there.
    left_out = "govern_python" if "t" in sys.abiflags else None
    shown = [block for block in blocks("pycon", page) if not left_out or left_out not in block]
    tour.write_text("\n".join(shown))
    # A process of its own: the tour shows counters that start at 0, and sets limits.
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "doctest", "-o", "ELLIPSIS", tour],
        cwd=tmp_path,
        check=True,
    )


@pytest.mark.parametrize(("command", "shown"), commands())
def test_console(command, shown, tmp_path):
    pytest.importorskip("numpy")
    # Not in the source tree, whose package would be found before the installed one.
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program, *arguments = shlex.split(command)
    assert program == "memlimits"
    run = subprocess.run(
        [sys.executable, "-m", "memlimits", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert doctest.OutputChecker().check_output(shown, run.stdout, doctest.ELLIPSIS), run.stdout


@pytest.mark.parametrize("block", blocks("sh"))
def test_scripts_exist(block):
    shell, script = block.split()
    assert shell == "sh"
    assert (ROOT / script).is_file()
