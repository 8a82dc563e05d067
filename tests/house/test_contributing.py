"""What CONTRIBUTING.md, SECURITY.md and CHANGELOG.md name is there."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

import memlimits

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").exists(), reason="not in a clone")


def text(name):
    return (ROOT / name).read_text()


def test_its_paths_are_there():
    page = re.sub(
        r"^## A stranger's walk\n.*?(?=^## )", "", text("CONTRIBUTING.md"), flags=re.M | re.S
    )
    named = re.findall(
        r"(?<![\w/.-])((?:[.]?\w+/)+[\w.]*|setup\.py|\.pre-commit-config\.yaml)", page
    )
    made = {".venv/bin/pip", ".venv/bin/python"}
    paths = {name for name in named if "NAME" not in name and "ROOM" not in name} - made
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_it_names_every_environment():
    tox = ConfigParser()
    tox.read_string(text("tox.ini"))
    table = re.search(r"^## The environments\n.*?(?=^## )", text("CONTRIBUTING.md"), re.M | re.S)[0]
    first, last = re.search(r"`py3(\d+)` to `py3(\d+)`", table).groups()
    named = set(re.findall(r"`([\w-]+)`", table))
    named |= {f"py3{minor}" for minor in range(int(first), int(last) + 1)}
    listed = set(re.findall(r"[\w-]+", tox["tox"]["env_list"]))
    assert listed - named == set()
    pythons = {name for name in named if name.startswith("py3")}
    assert pythons <= listed


def test_the_changelog_tells_of_this_version():
    version = memlimits.__version__
    headings = re.findall(r"^## \[(.*?)\](.*)$", text("CHANGELOG.md"), re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == version
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in headings[1:])


def test_the_changelog_names_what_is_there():
    import memlimits

    added = "".join(
        re.findall(r"^### Added$(.*?)(?=^##)", text("CHANGELOG.md") + "##", re.M | re.S)
    )
    names = re.findall(r"`((?:[a-z]+_)+[a-z]+)`", added)
    assert len(names) > 15
    in_c = text("memlimits/include/memlimits.h")
    of_objects = {*dir(memlimits.Buffer), *vars(memlimits.stats())}
    assert [
        n for n in names if not hasattr(memlimits, n) and n not in in_c and n not in of_objects
    ] == []


def walks():
    """Each walk's steps: the file, and the names that it is said to have."""
    section = re.search(
        r"^## A stranger's walk\n.*?(?=^## )", text("CONTRIBUTING.md"), re.M | re.S
    )[0]
    parts = re.split(r"\n\n(?=\S[^\n]*:\n\n1\.)", section)[1:]
    for part in parts:
        title, steps = part.split("\n", 1)
        found = re.findall(r"^\d+\. `(.*?)`: (.*?)(?=^\d+\. |\Z)", steps, re.M | re.S)
        yield title, [(path, re.findall(r"`(\w+)`", said)) for path, said in found]


def test_the_walks_are_short_and_their_steps_are_there():
    steps = list(walks())
    assert [len(files) <= most for (_, files), most in zip(steps, (6, 12, 8, 5), strict=True)]
    for title, files in steps:
        assert len({path for path, _ in files}) == len(files), title
        for path, names in files:
            source = (ROOT / "memlimits" / path).read_text()
            assert names
            assert [name for name in names if not re.search(rf"\b{name}\(", source)] == [], path


def test_the_line_to_stop_at_makes_a_block():
    (line,) = re.findall(r"break growth\.pyx:(\d+)", text("CONTRIBUTING.md"))
    source = text("memlimits/_engine/growth.pyx").split("\n")[int(line) - 1]
    assert "make(core, growth, &buffer)" in source
