"""What lint runs stands in one place, and sees every source."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-config.yaml"
pytestmark = pytest.mark.skipif(not HOOKS.exists(), reason="not in a clone")


def hooks():
    """The text of each hook by its id."""
    return dict(re.findall(r"- id: ([\w-]+)\n(.*?)(?=\n +- id:|\Z)", HOOKS.read_text(), re.DOTALL))


def test_every_tool_has_one_exact_version():
    named = re.findall(r"additional_dependencies:(?: &\w+)? \[(.*?)\]", HOOKS.read_text())
    tools = [tool.split("==") for tool in named]
    assert [tool for tool in tools if len(tool) != 2] == []
    assert len({name for name, _ in tools}) == len(tools)
    assert all(re.search(r"additional_dependencies: ", text) for text in hooks().values())


def test_tox_names_none_of_the_tools():
    lint = re.search(r"^\[testenv:lint\]\n.*?(?=^\[)", (ROOT / "tox.ini").read_text(), re.M | re.S)
    tools = {re.search(r"entry: (\S+)", text)[1] for text in hooks().values()}
    assert "clang-format" in tools
    assert [tool for tool in tools if tool in lint[0]] == []
    assert "pre-commit run --all-files" in lint[0]


def test_no_c_source_is_left_out_of_the_style():
    """Where it is switched off in a file, it is for a list that the file says it is."""
    folders = [ROOT / name for name in ("objc", "memlimits", "tests", "benchmarks")]
    if not folders[0].exists():
        pytest.skip("not in a clone")
    paths = [path for folder in folders for path in folder.rglob("*.[chm]*")]
    sources = [path for path in paths if path.suffix in (".c", ".h", ".m", ".cpp")]
    assert len(sources) > 40
    off = [
        str(path.relative_to(ROOT))
        for path in sources
        if "clang-format off" in path.read_text(errors="replace")
    ]
    assert off == ["tests/fake_metal/rules.h"]
