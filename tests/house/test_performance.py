"""docs/performance.md names what the benchmarks have, all of it."""

import ast
import re

from support.places import ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text()
BENCHMARKS = ROOT / "benchmarks"


def themes():
    source = ast.parse((BENCHMARKS / "__main__.py").read_text())
    [found] = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "THEMES"
    ]
    return found


def test_each_theme_is_explained_in_the_order_of_the_benchmarks():
    table = PAGE.partition("| theme |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.M)
    assert [name for cell in cells for name in re.findall(r"`(\w+)`", cell)] == themes()


def test_what_is_run_is_there():
    assert set(re.findall(r"--only (\w+)", PAGE)) <= set(themes())
    for script in re.findall(r"\b((?:benchmarks|examples|tests)/\w+\.\w+)", PAGE):
        assert (ROOT / script).is_file(), script
    assert re.findall(r"^```(\w+)", PAGE, re.M) == ["sh", "sh"]
    environment = re.search(r"sh tests/run\.sh -e (\w+)", PAGE)[1]
    assert f"[testenv:{environment}]" in (ROOT / "tox.ini").read_text()
