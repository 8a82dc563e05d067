"""What MLX documents of its memory functions, checked on ours and, where it is installed, on MLX.

https://ml-explore.github.io/mlx/build/html/python/memory_management.html
"""

import contextlib
import gc
import itertools
import re
import subprocess
import sys

import pytest

import memlimits
from support.places import ROOT

MIB = 1024 * 1024
LIMITS = ["memory", "cache", "wired"]


class Ours:
    """memlimits, and something that takes a number of bytes."""

    functions = memlimits
    wires = has_maximum = True
    has_devices = False

    def take(self, nbytes):
        return memlimits.allocate(nbytes, zeroed=True)


class Mlx:
    """MLX, whose arrays take memory when they are evaluated."""

    has_devices = True

    def __init__(self):
        self.functions = pytest.importorskip("mlx.core", reason="MLX is not installed")
        # Without Metal its set_wired_limit does nothing, and its device_info() has no sizes.
        self.wires = self.has_maximum = self.functions.metal.is_available()

    def take(self, nbytes):
        array = self.functions.zeros((nbytes,), dtype=self.functions.uint8)
        self.functions.eval(array)
        return array


@pytest.fixture(params=[Ours, Mlx], ids=["memlimits", "mlx"])
def library(request):
    """One of the two, its limits put back when the test ends."""
    library = request.param()
    functions = library.functions
    with contextlib.ExitStack() as stack:
        for which in LIMITS:
            if which != "wired" or library.wires:
                setter = getattr(functions, f"set_{which}_limit")
                previous = setter(0)
                setter(previous)
                stack.callback(setter, previous)
        yield library
        gc.collect()
    functions.clear_cache()


def skip_unless_it_wires(library, which):
    if which == "wired" and not library.wires:
        pytest.skip("without Metal MLX keeps no wired limit")


@pytest.mark.filterwarnings("ignore:a wired limit of")  # above what this user may lock
@pytest.mark.parametrize(
    ("which", "limit"),
    [
        *itertools.product(LIMITS, [10, 0, 4096, 10**9]),
        *itertools.product(["memory", "cache"], [2**63 - 1, 2**63, 2**64 - 1]),
    ],
)
def test_a_limit_makes_the_round_trip(library, which, limit):
    skip_unless_it_wires(library, which)
    setter = getattr(library.functions, f"set_{which}_limit")
    first = setter(limit)
    assert setter(limit) == limit
    assert setter(first) == limit
    assert setter(first) == first


@pytest.mark.parametrize("limit", [10, 10**9, 2**64 - 1])
def test_get_memory_limit_is_what_was_set(library, limit):
    library.functions.set_memory_limit(limit)
    assert library.functions.get_memory_limit() == limit


@pytest.mark.parametrize("limit", [-1, 1.5, "10", None, 2**64])
def test_what_is_no_number_of_bytes_is_an_error(library, limit):
    before = library.functions.get_memory_limit()
    with pytest.raises((TypeError, ValueError)):
        library.functions.set_memory_limit(limit)
    assert library.functions.get_memory_limit() == before


def test_a_memory_limit_of_10_bytes_is_a_guideline(library):
    base = library.functions.get_active_memory()
    previous = library.functions.set_memory_limit(10)
    held = library.take(MIB)
    assert library.functions.get_active_memory() - base >= MIB
    assert library.functions.set_memory_limit(previous) == 10
    assert bytes(memoryview(held))[:10] == bytes(10)


def test_active_memory_rises_and_falls(library):
    base = library.functions.get_active_memory()
    held = [library.take(MIB) for _ in range(3)]
    assert 3 * MIB <= library.functions.get_active_memory() - base < 3 * MIB + 1000
    held.clear()
    assert library.functions.get_active_memory() == base


def test_a_cache_limit_of_0_keeps_the_cache_empty(library):
    library.functions.clear_cache()
    library.functions.set_cache_limit(0)
    for nbytes in (100, 40_000, MIB, 5 * MIB):
        library.take(nbytes)
        gc.collect()
        library.take(100)  # MLX trims its cache at the next allocation
        assert library.functions.get_cache_memory() == 0


def test_clear_cache_empties_the_cache(library):
    library.functions.set_cache_limit(64 * MIB)
    library.take(5 * MIB)
    gc.collect()
    assert library.functions.get_cache_memory() >= 5 * MIB
    library.functions.clear_cache()
    assert library.functions.get_cache_memory() == 0


def test_peak_resets_to_0_and_counts_from_there(library):
    held = library.take(8 * MIB)
    assert library.functions.get_peak_memory() >= 8 * MIB
    base = library.functions.get_active_memory() - 8 * MIB
    del held
    gc.collect()
    library.functions.reset_peak_memory()
    assert library.functions.get_peak_memory() == 0
    held = library.take(MIB)
    assert MIB <= library.functions.get_peak_memory() - base < MIB + 1000
    del held
    assert library.functions.get_peak_memory() - base >= MIB


def test_a_wired_limit_above_the_maximum_is_a_value_error(library):
    if not library.has_maximum:
        pytest.skip("without Metal MLX names no maximum")
    maximum = library.functions.device_info()["max_recommended_working_set_size"]
    before = library.functions.set_wired_limit(0)
    for limit in (maximum + 1, 2 * maximum):
        with pytest.raises(ValueError, match="limit"):
            library.functions.set_wired_limit(limit)
    assert library.functions.set_wired_limit(before) == 0


def test_device_info_names_the_device(library):
    info = library.functions.device_info()
    assert isinstance(info["device_name"], str)
    assert isinstance(info["architecture"], str)
    if library.has_maximum:
        assert 0 < info["max_recommended_working_set_size"] < info["memory_size"]


def test_device_info_takes_a_device(library):
    info = library.functions.device_info()
    assert library.functions.device_info(None) == library.functions.device_info(d=None) == info
    device = library.functions.default_device() if library.has_devices else "cpu"
    assert library.functions.device_info(device) == info


def test_the_size_of_arrays_is_that_of_their_blocks(library):
    size = library.functions.get_array_buffer_size
    base = library.functions.get_active_memory()
    one, other, third = (library.take(n) for n in (100_000, MIB, 100))
    total = size(one) + size(other) + size(third)
    assert 100_000 + MIB + 100 <= total == library.functions.get_active_memory() - base
    assert size([one, (other, {"x": third})], {1: [[], ()], 2: None}, one, "text", 5) == total
    assert size(one, [one, [one]]) == size(one)
    assert size() == size(None) == size([{}]) == size({one.nbytes: 1}) == 0


def test_what_is_no_tree_of_arrays_has_no_size(library):
    held = library.take(MIB)
    assert library.functions.get_array_buffer_size(iter([held]), object(), len) == 0
    with pytest.raises(TypeError):
        library.functions.get_array_buffer_size(tree=held)


@pytest.mark.parametrize("name", ["clear_cache", "reset_peak_memory"])
def test_what_has_nothing_to_say_returns_none(library, name):
    assert getattr(library.functions, name)() is None


# ---- docs/mlx.md ----

PAGE = ROOT / "docs" / "mlx.md"
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| .+ \|$", PAGE.read_text(), re.M)

EACH_IN_A_CHILD = """
import ast, os, sys
if sys.argv[1] == "memlimits":
    import memlimits as m
    take = m.allocate
else:
    import mlx.core as m
    def take(n):
        array = m.zeros(n, dtype=m.uint8)
        m.eval(array)
        return array
for row in sys.argv[2:]:
    if os.fork() == 0:
        *before, last = ast.parse(row).body
        try:
            exec(compile(ast.Module(before, []), row, "exec"))
            print(repr(eval(compile(ast.Expression(last.value), row, "eval"))), flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize(("library", "column"), [("mlx", 1), ("memlimits", 2)])
def test_the_table_of_differences_is_what_is_seen(library, column):
    if library == "mlx" and pytest.importorskip("mlx.core").metal.is_available():
        pytest.skip("the page shows what is seen on a CPU")
    rows = [row[0] for row in ROWS]
    words = [sys.executable, "-c", EACH_IN_A_CHILD, library, *rows]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert dict(zip(rows, done.stdout.splitlines(), strict=True)) == {
        row[0]: row[column] for row in ROWS
    }


def test_every_row_of_the_table_differs():
    assert len(ROWS) == PAGE.read_text().count("\n| `") >= 12
    assert all(mlx != ours for _, mlx, ours in ROWS)


def test_the_page_names_every_function_that_follows_mlx():
    named = set(re.findall(r"`(\w+)`", PAGE.read_text().split("What MLX documents")[0]))
    follow = {
        name
        for name in memlimits.__all__
        if "mlx.core." in (getattr(memlimits, name).__doc__ or "")
    }
    assert named - {"memlimits"} == follow
