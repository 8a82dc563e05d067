"""The benchmarks' arithmetic, and that each target has a theme. What they measure is no test."""

import ast
import importlib

import pytest

from support.places import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


class Clock:
    """Sides of a machine that gets slower all the time."""

    def __init__(self):
        self.calls = []

    def side(self, name, ns):
        def timed(number):
            self.calls.append(name)
            return ns * number * (1 + len(self.calls) // 2)

        return timed


def test_sides_alternate_and_their_ratio_outlives_a_drift(load):
    clock = Clock()
    sides = {"fast": clock.side("fast", 100.0), "slow": clock.side("slow", 300.0)}
    found = load("timing").compare(sides, rounds=8, seconds=1e-6, warm_up=3)
    assert clock.calls[-16:] == ["fast", "slow"] * 8
    assert found.samples["fast"] == sorted(found.samples["fast"])
    assert found.spread("fast") > 0.2
    # Within a round the second side meets one step more of the drift.
    assert 2.9 < found.ratio("slow", "fast") < 3.7
    assert 1 / 3.7 < found.ratio("fast", "slow") < 1 / 2.9


@pytest.mark.parametrize(
    ("least", "most", "number"), [(1, 1 << 40, 100), (1, 7, 7), (300, 1 << 40, 300)]
)
def test_a_sample_takes_about_the_time_asked_for(load, least, most, number):
    numbers = []

    def timed(count):
        numbers.append(count)
        return count * 1000.0

    load("timing").compare(
        {"side": timed}, rounds=2, seconds=1e-4, warm_up=50, least=least, most=most
    )
    assert numbers[0] == 50
    assert numbers[-2:] == [number] * 2


def test_median_and_spread(load):
    found = load("timing").Comparison({"a": [4.0, 1.0, 3.0, 2.0, 100.0], "b": [2.0] * 5})
    assert found.median("a") == 3
    assert found.spread("a") == pytest.approx((4 - 2) / 3)
    assert found.ratio("a", "b") == 1.5


def test_a_verdict_is_on_the_right_side_of_its_bound(load):
    targets = load("targets")
    most = targets.Target("1", "", 1.4, True)
    least = targets.Target("1", "", 6, False)
    none = targets.Target("9", "", 0, True, "bytes")
    assert [most.met(value) for value in (1.3, 1.4, 1.5)] == [True, True, False]
    assert [least.met(value) for value in (5.9, 6, 7)] == [False, True, True]
    assert [none.met(value) for value in (0, 1)] == [True, False]
    assert (most.margin(0.7), least.margin(3)) == (pytest.approx(2), pytest.approx(0.5))
    assert [none.margin(value) for value in (0, 1)] == [1, 0]


def test_every_target_is_some_themes_and_a_figure_has_a_target(load):
    names = set()
    for path in BENCHMARKS.glob("bench_*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        names |= {node.value for node in tree if isinstance(node, ast.Constant)}
    assert set(load("targets").TARGETS) - names == set()
    with pytest.raises(KeyError):
        load("report").Report().judge("no such target", "", 1.0)


def test_every_theme_is_run(load):
    source = (BENCHMARKS / "__main__.py").read_text()
    [themes] = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "THEMES"
    ]
    files = {path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py")}
    assert sorted(themes) == sorted(files)
