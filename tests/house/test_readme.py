"""Everything that README.md, the quickstart and the guides show is run, and shows the same here."""

import doctest
import os
import re
import shlex
import subprocess
import sys

import pytest

import memlimits
from support.places import ROOT

# What each page shows, in which languages. Blocks "console" and "pycon" are run here, others by the
# test that is named above the page.
LANGUAGES = {
    "README.md": {"console", "pycon", "sh"},
    "docs/quickstart.md": {"console", "pycon"},
    "docs/guides/budgets.md": {"pycon"},
    # test_c_interface
    "docs/guides/c.md": {"c", "cython"},
    # test_kubernetes has its YAML.
    "docs/guides/containers.md": {"console", "pycon", "yaml"},
    # test_cli_record
    "docs/guides/holders.md": {"pycon", "sh"},
    "docs/guides/how-much.md": {"console", "pycon"},
    "docs/guides/libraries.md": {"pycon"},
    # test_metal_queue
    "docs/guides/macos.md": {"python"},
    "docs/guides/mlx.md": {"pycon"},
    "docs/guides/policies.md": {"console", "pycon"},
    "docs/guides/program.md": {"console"},
    "docs/guides/recordings.md": {"pycon"},
    # test_guides
    "docs/guides/servers.md": {"pycon", "sh"},
    # test_uninstall does the rest.
    "docs/guides/undo.md": {"pycon"},
    # test_cuda
    "docs/guides/wired.md": {"pycon", "python"},
    # test_guides, test_dask
    "docs/guides/workers.md": {"console", "python", "text"},
}
# test_prometheus, test_jupyter, test_cli_help, test_testing_page, test_cli_top
ELSEWHERE = {"monitoring.md", "notebooks.md", "terminal.md", "testing.md", "top.md"}
# These show nothing that could be run.
PROSE = {"functions.md", "index.md", "numpy.md"}
BLOCKS = {
    page: re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    for page in LANGUAGES
}


def blocks(language, page="README.md"):
    found = [text for name, text in BLOCKS[page] if name == language]
    assert found
    return found


def commands():
    """Return each `$ command` of the console blocks with the output shown below it."""
    parts = [
        part
        for page, languages in LANGUAGES.items()
        if "console" in languages
        for block in blocks("console", page)
        for part in block.split("$ ")[1:]
    ]
    return [part.split("\n", 1) for part in parts]


def test_every_block_is_of_a_kind_that_is_tested():
    shown = {page: {language for language, _ in found} for page, found in BLOCKS.items()}
    assert shown == LANGUAGES
    guides = {path.name for path in (ROOT / "docs/guides").iterdir()}
    assert guides - {page.rpartition("/")[2] for page in LANGUAGES} == ELSEWHERE | PROSE


@pytest.mark.parametrize("page", [page for page in LANGUAGES if "pycon" in LANGUAGES[page]])
def test_tour(page, tmp_path):
    if page.endswith("wired.md") and memlimits.device_info()["wired_capacity"] < 4 << 20:
        pytest.skip("this process may lock less than 4 MiB")
    if page.endswith("mlx.md"):
        pytest.importorskip("mlx.core")
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
