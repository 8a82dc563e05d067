"""Every block of code on the site has a test that runs it."""

import re
import shlex
import subprocess
import sys

import pytest

from support.places import ROOT, TESTS

DOCS = ROOT / "docs"
RUN = {"c", "console", "cython", "pycon", "python", "sh", "yaml"}
SOURCES = {path: path.read_text() for path in TESTS.rglob("test_*.py")}

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="not in a clone")


def blocks(text):
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def names(source, page):
    """Whether a test names a page, or takes all of its folder."""
    folder, _, last = page.rpartition("/")
    whole = folder and "*.md" in source and re.search(rf'["/]{re.escape(folder)}"', source)
    return bool(whole or re.search(rf'["/]{re.escape(last)}"', source))


def unrun(pages, sources):
    """Pages with blocks that could be run, and that no test names."""
    for page, text in pages.items():
        languages = {language for language, _ in blocks(text)}
        if languages & RUN and not any(names(source, page) for source in sources):
            yield page


def test_a_test_runs_each_page():
    """Which has to look at what languages the page has, as those that there are do."""
    pages = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.rglob("*.md")}
    assert len(pages) > 20
    assert list(unrun(pages, SOURCES.values())) == []


def test_a_page_that_none_runs_is_found():
    shown = "```pycon\n>>> 1\n1\n```\n"
    pages = {"guides/new.md": shown, "how/a.md": shown, "old.md": shown, "why.md": "No."}
    sources = ['"docs/old.md"', "why.md", 'FOLDER / "how").glob("*.md")', '"docs/guides"']
    assert list(unrun(pages, sources)) == ["guides/new.md"]


@pytest.mark.host
def test_the_first_page_shows_what_is_so(tmp_path):
    pytest.importorskip("numpy")
    shown = blocks((DOCS / "index.md").read_text())
    assert [language for language, _ in shown] == ["sh", "pycon"]
    tour = tmp_path / "tour.txt"
    tour.write_text(shown[1][1])
    words = [sys.executable, "-W", "error", "-m", "doctest", "-o", "ELLIPSIS", tour]
    subprocess.run(words, cwd=tmp_path, check=True)


@pytest.mark.host
def test_the_first_pages_command_runs_a_program(tmp_path):
    (_, text), _ = blocks((DOCS / "index.md").read_text())
    install, command = (shlex.split(line, comments=True) for line in text.splitlines())
    # From a clone: nobody has the name on PyPI.
    assert install == ["pip", "install", ".[numpy]"]
    (tmp_path / command[-1]).write_text("import numpy; numpy.ones(1 << 29)")
    assert command[0] == "memlimits"
    words = [sys.executable, "-m", "memlimits", *command[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "refused 4 GiB" in done.stderr
    assert "memory limit 2 GiB" in done.stderr
