"""What setup.py makes, and of what."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "setup.py"
# Beside sources: what is imported.
KINDS = {
    "memlimits": {".py", ".pyi", ".pyx", ".pxd", ".h", ".typed", ".so", ".pyc"},
    "objc": {".c", ".h", ".m"},
}
MODULE = '''"""Two lines."""
cdef int half(int n) noexcept nogil:
    return n // 2

def quarter(n):
    """A string, a constant and a code object, for Cython to make when it is imported."""
    return half(half(n)) or "nothing of 12345678901234567890"
'''

pytestmark = pytest.mark.skipif(not SETUP.exists(), reason="not in a source tree")


def function(name):
    """One function of setup.py, which cannot be imported without building."""
    tree = ast.parse(SETUP.read_text())
    [found] = [node for node in tree.body if getattr(node, "name", None) == name]
    scope = {"Path": Path}
    exec(compile(ast.Module([found], []), SETUP, "exec"), scope)
    return scope[name]


def rows_from(text, name):
    """The rows that these directives say are from lines of this file, with those lines."""
    file, line = None, 0
    for row in text.splitlines():
        if directive := re.match(r'#line (\d+) "(.*)"', row):
            line, file = int(directive[1]), directive[2]
        else:
            if file == name:
                yield line, row
            line += 1


@pytest.mark.skipif(not list(ROOT.glob("build/cython*")), reason="was built elsewhere")
@pytest.mark.parametrize("folder", KINDS)
def test_a_build_leaves_nothing_among_the_sources_but_what_is_imported(folder):
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if path.suffix not in KINDS[folder]] == []


def test_nothing_private_of_setuptools_is_used():
    tree = ast.walk(ast.parse(SETUP.read_text()))
    names = [node.attr for node in tree if isinstance(node, ast.Attribute)]
    assert "compile" in names
    assert [name for name in names if name.startswith("_")] == []


def test_lines_of_a_debug_build_are_those_of_statements(tmp_path):
    (tmp_path / "halves.pyx").write_text(MODULE)
    words = [sys.executable, "-m", "cython", "-3", "--line-directives", "halves.pyx"]
    subprocess.run(words, cwd=tmp_path, check=True)
    made = tmp_path / "halves.c"
    before = list(rows_from(made.read_text(), "halves.pyx"))
    function("end_sections")(made)
    text = made.read_text()
    after = list(rows_from(text, "halves.pyx"))
    assert {2, 3, 7} <= {line for line, _ in after}
    # What is made when it is imported is of no line.
    makes_constants = re.compile(r"static int __Pyx_InitConstants\(.*\{")
    assert any(makes_constants.match(row) for _, row in before)
    assert not any(makes_constants.match(row) for _, row in after)
    # The directives that it wrote are true.
    own = re.compile(rf'#line (\d+) "{re.escape(str(made))}"')
    found = [(number, own.match(row)) for number, row in enumerate(text.splitlines(), start=1)]
    assert all(int(match[1]) == number + 1 for number, match in found if match)
    assert len([1 for _, match in found if match]) > 10
    function("end_sections")(made)
    assert made.read_text() == text
