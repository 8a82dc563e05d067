"""The rules of the tests themselves: where they lie, how long they are, what reaches inside."""

import ast
import re

import pytest

from support.places import ROOT, TESTS

pytestmark = pytest.mark.inside

PACKAGE = ROOT / "memlimits"
# Those of the package but the ground, where only declarations lie; and beside them what spans
# rooms, C's side of it, what takes long, and the site.
ROOMS = {path.parent.name.removeprefix("_") for path in PACKAGE.glob("*/__init__.py")} - {"base"}
OTHERS = {"house", "c_interface", "drills", "plugin", "site"}

FILES = sorted(TESTS.rglob("test_*.py"))
# Any name in the package that is not public, imported or in the source of a program. _malloc is:
# memlimits.h has its name.
PRIVATE = r"_(?!malloc\b)[A-Za-z]\w*"
INSIDE = re.compile(
    rf'memlimits(\.\w+)*\.{PRIVATE}|"memlimits" / "_'
    rf"|from memlimits(\.\w+)* import (\([^)]*|[^\n]*)\b{PRIVATE}"
)


def reaches_inside(path):
    return bool(INSIDE.search(path.read_text()))


def supports(tree):
    """The modules of tests/support that are imported anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "support":
            _, _, module = node.module.partition(".")
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
    return found


SUPPORTS = {path.stem: ast.parse(path.read_text()) for path in (TESTS / "support").glob("*.py")}


def inner_supports():
    inner = {name for name in SUPPORTS if reaches_inside(TESTS / "support" / f"{name}.py")}
    while more := {name for name in SUPPORTS if supports(SUPPORTS[name]) & inner} - inner:
        inner |= more
    return inner


INNER_SUPPORTS = inner_supports()


def functions(tree):
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def inner_fixtures():
    sources = [path.read_text() for path in TESTS.rglob("conftest.py")]
    return {
        function.name
        for source in sources
        for function in functions(ast.parse(source))
        if supports(function) & INNER_SUPPORTS
        or INSIDE.search(ast.get_source_segment(source, function))
    }


INNER_FIXTURES = inner_fixtures()


def uses_inner_fixtures(tree):
    arguments = {argument.arg for function in functions(tree) for argument in function.args.args}
    return bool(arguments & INNER_FIXTURES - {function.name for function in functions(tree)})


def is_marked(tree):
    marks = [node.value for node in tree.body if ast.unparse(node).startswith("pytestmark =")]
    return any("pytest.mark.inside" in ast.unparse(mark) for mark in marks)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_tests_the_inside_of_a_module_says_so(path):
    """By itself, by what it has from tests/support, or by a fixture of a conftest.py."""
    tree = ast.parse(path.read_text())
    inside = (
        reaches_inside(path) or bool(supports(tree) & INNER_SUPPORTS) or uses_inner_fixtures(tree)
    )
    assert is_marked(tree) == inside


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ("from memlimits._heap.cache import Cache", True),
        ("from memlimits import memory, _system", True),
        ("from memlimits import (\n    memory,\n    _system,\n)", True),
        ("from memlimits.adapters import _numpy", True),
        ("from memlimits import _TESTED as TESTED", True),
        ("run('print(memlimits._device.device.Device())')", True),
        ('ROOT / "memlimits" / "_lock.pxd"', True),
        ("from memlimits import _malloc, memory", False),
        ("from memlimits.sizes import parse_size", False),
        ("memlimits.__all__, memlimits.memory.counters()", False),
    ],
)
def test_what_reaches_inside(source, inside):
    assert bool(INSIDE.search(source)) == inside


def test_no_file_is_long():
    sources = [
        path for path in TESTS.rglob("*") if path.suffix in {".py", ".pyx", ".c", ".m", ".h"}
    ]
    lengths = {path: len(path.read_text().splitlines()) for path in sources}
    assert len(lengths) > 100
    assert {path.name: length for path, length in lengths.items() if length > 500} == {}


def test_tests_lie_in_the_rooms_of_what_they_test():
    folders = {path.relative_to(TESTS).parts[0] for path in FILES}
    assert folders == ROOMS | OTHERS
    assert {path.parent.parent for path in FILES} == {TESTS}


def test_no_two_files_have_one_name():
    names = [path.name for path in FILES]
    assert sorted(names) == sorted(set(names))
