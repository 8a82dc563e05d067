"""What docs/guides/testing.md shows is run, and shows the same here."""

import doctest
import re
import shlex
import subprocess
import sys

import pytest

from support.places import ROOT

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.host

PAGE = (ROOT / "docs" / "guides" / "testing.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_every_block_is_run():
    languages = re.findall(r"^```(\w*)\n.*?^```$", PAGE, re.M | re.S)
    assert languages == ["python", "console", "pycon", "console"]


@pytest.mark.parametrize("block", blocks("console"))
def test_console(block, pytester):
    (suite,) = blocks("python")
    pytester.makepyfile(test_load=suite)
    command, shown = block.removeprefix("$ ").split("\n", 1)
    program, *options = shlex.split(command)
    assert program == "pytest"
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options)
    found = result.stdout.str()
    how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(shown, found, how), found


def test_pycon(tmp_path):
    tour = tmp_path / "tour.txt"
    tour.write_text("\n".join(blocks("pycon")))
    words = [sys.executable, "-W", "error", "-m", "doctest", "-o", "ELLIPSIS", tour]
    subprocess.run(words, cwd=tmp_path, check=True)
