"""Links from page to page lead to a file that is there, and to a heading in it; pages are whole."""

import doctest
import re
import subprocess
import sys

import pytest

import memlimits
from support.places import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not in a clone")


def without_code(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def anchors(path):
    """Those that GitHub and MyST give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", without_code(path), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path):
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(path))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_guide_is_among_the_guides():
    guides = ROOT / "docs/guides"
    listed = re.findall(r"^([\w-]+)$", (guides / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(
        path.stem for path in guides.glob("*.md") if path.stem != "index"
    )


def test_all_functions_are_seen_at_a_glance():
    shown = re.findall(r"`([\w.]+)", (ROOT / "docs/guides/functions.md").read_text())
    functions = {
        name for name in memlimits.__all__ if not isinstance(getattr(memlimits, name), type)
    }
    assert {*functions, "limits", *shown} == {*shown}


@pytest.mark.host
def test_a_programs_workers_are_refused_as_the_guide_shows(tmp_path):
    pytest.importorskip("numpy")
    page = (ROOT / "docs/guides/workers.md").read_text()
    (program, shown), *_ = re.findall(
        r"^```python\n(.*?)^```$.*?^```text\n(.*?)^```$", page, re.M | re.S
    )
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, "program.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert doctest.OutputChecker().check_output(shown, done.stdout, doctest.ELLIPSIS), done.stdout


@pytest.mark.parametrize(
    "question",
    [
        "containers.md",  # my job is killed
        "how-much.md",
        "holders.md",
        "libraries.md",  # does it work with torch
        "performance.md",
        "workers.md",
        "macos.md",
        "notebooks.md",
        "undo.md#undo",
        "undo.md#uninstall",
    ],
)
def test_a_strangers_question_is_one_link_away(question):
    readme = links(ROOT / "README.md")
    assert [link for link in readme if link.endswith("/" + question)] != []
