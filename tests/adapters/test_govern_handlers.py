"""NumPy's own handler with our functions, and handlers of other libraries beside it."""

import contextvars
import ctypes
import importlib.util
import shutil
import sys
import types
import warnings

import numpy
import pytest
from numpy._core.multiarray import get_handler_name, get_handler_version

import memlimits
from memlimits.adapters import why_numpy_is_not_governed
from support.commands import runner
from support.governed import GOVERNED, PLAIN, owner, owner_here
from support.handlers import current, named, of_capsule, other_library, set_handler
from support.units import KIB, MIB

pytestmark = pytest.mark.usefixtures("plain_numpy")


def test_arrays_say_what_they_said():
    before = numpy.ones(3)
    with memlimits.govern_numpy():
        during = numpy.ones(3)
        assert get_handler_name(during) == get_handler_name() == "default_allocator"
        assert get_handler_version(during) == get_handler_version(before)
    assert owner(during) == GOVERNED


def test_numpys_functions_are_replaced_once():
    """What copied them meanwhile finds them valid for good."""
    with memlimits.govern_numpy():
        functions = bytes(of_capsule(current()))
    for _ in range(3):
        assert bytes(of_capsule(current())) == functions
        with memlimits.govern_numpy():
            assert bytes(of_capsule(current())) == functions


def test_the_functions_called_in_every_state():
    """Of blocks of either owner, large and small, whoever frees them and when."""
    with memlimits.govern_numpy():
        heap = of_capsule(current())

    def make(n):
        blocks = [heap.malloc(None, n), heap.calloc(None, 1, n), heap.realloc(None, None, n)]
        for block in blocks:
            ctypes.memset(block, 7, n)
        return blocks

    active = memlimits.get_active_memory()
    for n in (16, 1000, 5000, 300_000):
        plain = make(n)
        assert memlimits.get_active_memory() == active
        with memlimits.govern_numpy():
            governed = make(n)
            assert memlimits.get_active_memory() - active >= 3 * n
            plain[0] = heap.realloc(None, plain[0], 3 * n)
            governed[0] = heap.realloc(None, governed[0], 3 * n)
            heap.free(None, governed.pop(), n)
            heap.free(None, plain.pop(), n)
        governed[0] = heap.realloc(None, governed[0], 4 * n)
        plain[1] = heap.realloc(None, plain[1], 4 * n)
        for block in plain + governed:
            assert ctypes.string_at(block, n) == b"\x07" * n
        for block, length in zip(plain + governed, (3 * n, 4 * n, 4 * n, n), strict=True):
            heap.free(None, block, length)
        heap.free(None, None, 0)
        assert memlimits.get_active_memory() == active


def test_a_handler_of_another_library_is_left_alone_and_told_of():
    with other_library("tracer"):
        before = current()
        with pytest.warns(RuntimeWarning, match="'tracer' of another library"):
            governing = memlimits.govern_numpy()
        assert current() is before
        assert (get_handler_name(), owner_here()) == ("tracer", PLAIN)
        assert "'tracer'" in why_numpy_is_not_governed()
        # In other contexts nothing of it.
        assert contextvars.Context().run(owner_here) == GOVERNED
        assert contextvars.Context().run(why_numpy_is_not_governed) is None
        governing.close()
        assert current() is before


def test_a_handler_that_is_set_meanwhile_is_left_alone():
    with memlimits.govern_numpy() as governing:
        with other_library("tracer"):
            before = current()
            assert owner_here() == PLAIN
            assert "'tracer'" in why_numpy_is_not_governed()
            governing.close()
            assert current() is before
        assert owner_here() == PLAIN


def test_a_warning_that_is_an_error_leaves_nothing_open():
    with other_library("tracer"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="tracer"):
            memlimits.govern_numpy()
    assert owner_here() == PLAIN


def test_our_arrays_under_another_librarys_handler():
    with other_library("tracer"):
        before = current()
        array = memlimits.empty(100)
        assert (get_handler_name(array), owner(array)) == ("memlimits", GOVERNED)
        assert memlimits.zeros(3, object).tolist() == [0] * 3
        assert current() is before


def test_one_that_wraps_numpys_own_is_governed_through_it():
    """As tracers do: they count, and call the functions that were there."""
    with memlimits.govern_numpy():
        wrapper, inner = named("wrapper"), of_capsule(current())
        of_capsule(wrapper).malloc = inner.malloc
        of_capsule(wrapper).calloc = inner.calloc
        of_capsule(wrapper).realloc = inner.realloc
        of_capsule(wrapper).free = inner.free
        before = set_handler(wrapper)
        try:
            array = numpy.arange(1000)
            assert (get_handler_name(array), owner(array)) == ("wrapper", GOVERNED)
            array.resize(5000, refcheck=False)
        finally:
            set_handler(before)
    assert array[:1000].tolist() == list(range(1000))
    del array


def test_why_numpy_is_not_governed():
    assert "is not governed" in why_numpy_is_not_governed()
    with memlimits.govern_numpy():
        assert why_numpy_is_not_governed() is None


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


SETS_A_HANDLER = """
import sys
sys.path[:0] = {path!r}
import numpy
from support.handlers import named, set_handler
set_handler(named("tracer"))
numpy.ones(1 << 20)
"""


def test_run_reports_a_handler_of_another_library(run):
    done = run(SETS_A_HANDLER.format(path=sys.path), "--memory-limit=100MiB")
    assert b"'tracer' of another library" in done.stderr
    assert b"not governed" not in run("import numpy; numpy.ones(9)").stderr


@pytest.fixture
def unaligned(plain_numpy):
    with memlimits.govern_numpy(aligned=False) as governing:
        yield governing


SIZES = [1, 32, 64, 100, 5000, 32 * KIB - 32, 32 * KIB, 64 * KIB, MIB, 9 * MIB]


def test_unaligned_arrays_start_at_no_multiple_of_64(unaligned):
    active = memlimits.get_active_memory()
    for n in SIZES:
        arrays = [numpy.empty(n, "u1"), numpy.zeros(n, "u1"), numpy.ones(n, "u1")]
        assert {array.ctypes.data % 64 for array in arrays} == {32}
        assert {owner(array) for array in arrays} == {GOVERNED}
        assert (arrays[1].any(), arrays[2].all()) == (False, True)
        assert memlimits.get_active_memory() - active >= 3 * (n + 32)
        for array in arrays:
            array.fill(7)
        del array, arrays
        assert memlimits.get_active_memory() == active
        assert not numpy.zeros(n, "u1").any()
    assert memlimits.empty(MIB).ctypes.data % 64 == 0


def test_unaligned_arrays_are_resized_and_outlive_the_governing():
    arrays = []
    for first in SIZES:
        with memlimits.govern_numpy(aligned=False):
            array = numpy.arange(first, dtype="u2")
        for n in [*SIZES, first]:
            known = min(len(array), n)
            expected = numpy.concatenate([array[:known], numpy.zeros(n - known, "u2")])
            array.resize(n, refcheck=False)
            assert numpy.array_equal(array, expected)
            assert array.ctypes.data % 64 == 32
        arrays.append(array)


def test_any_that_is_open_and_wants_arrays_unaligned_gets_them_so():
    with memlimits.govern_numpy():
        assert numpy.ones(9).ctypes.data % 64 == 0
        with memlimits.govern_numpy(aligned=False) as inner:
            aligned = numpy.ones(MIB)
            assert aligned.ctypes.data % 64 == 32
            memlimits.govern_numpy().close()
            assert numpy.ones(9).ctypes.data % 64 == 32
            inner.close()
            inner.close()
            assert numpy.ones(9).ctypes.data % 64 == 0
        assert owner_here() == GOVERNED


@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 32, 2**63, 2**63 - 1])
def test_huge_sizes_are_refused_unaligned_too(unaligned, size):
    heap = of_capsule(current())
    block = heap.calloc(None, 1, 100)
    active = memlimits.get_active_memory()
    assert heap.malloc(None, size) is None
    assert heap.calloc(None, 1, size) is None
    assert heap.calloc(None, size, 3) is None
    assert heap.realloc(None, block, size) is None
    assert memlimits.get_active_memory() == active
    assert ctypes.string_at(block, 100) == bytes(100)
    heap.free(None, block, 100)


JAX_IS_IMPORTED = """
import numpy
print(numpy.ones(3).ctypes.data % 64)
import jaxlib
print(numpy.ones(3).ctypes.data % 64)
import jaxlib.{name}
print(numpy.ones(3).ctypes.data % 64, numpy.ones(1 << 20).ctypes.data % 64)
"""


def test_run_unaligns_arrays_once_jax_is_imported(run, tmp_path):
    """JAX needs too much to be installed here: a package of its name, with real C code in it."""
    found = [importlib.util.find_spec(name) for name in ("_csv", "_queue", "_heapq", "_json")]
    compiled = next(spec for spec in found if spec and spec.has_location)
    (tmp_path / "jaxlib").mkdir()
    (tmp_path / "jaxlib" / "__init__.py").touch()
    shutil.copy(compiled.origin, tmp_path / "jaxlib")
    done = run(JAX_IS_IMPORTED.format(name=compiled.name))
    assert done.stdout.split() == [b"0", b"0", b"32", b"32"]


def test_govern_numpy_unaligns_arrays_where_jax_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxlib", types.ModuleType("jaxlib"))
    with memlimits.govern_numpy():
        assert numpy.ones(3).ctypes.data % 64 == 32
    with memlimits.govern_numpy(aligned=True):
        assert numpy.ones(3).ctypes.data % 64 == 0
