"""`empty` and `zeros`: NumPy's arrays in memlimits' memory."""

import gc
import sys
import tracemalloc

import numpy
import pytest

import memlimits
from memlimits.adapters import _numpy
from support.governed import GOVERNED, PLAIN, owner, owner_here
from support.kernel import locked, mapped_bytes, needs_lockable, resident
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.usefixtures("plain_numpy")]


DTYPES = [
    None,
    bool,
    "i1",
    ">u2",
    "f2",
    float,
    "c16",
    "longdouble",
    "M8[ns]",
    "S5",
    "U3",
    "V7",
    object,
    [("a", "i4"), ("b", "f8", (2,)), ("c", "U2")],
    [("o", object), ("x", "i2")],
    ("f4", (3,)),
    numpy.dtypes.StringDType(),
]

SHAPES = [(), 0, 7, (7,), (3, 0, 2), (4, 5), (1, 4, 1), (1,) * 40, numpy.int64(6), [2, 3]]
SHAPES += [(numpy.int8(2), 3)]


def layout(array):
    owned = type(array), array.base, array.flags.owndata
    return array.shape, array.dtype, array.strides, array.flags.num, array.nbytes, owned


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_zeros_is_what_numpy_makes(dtype, order):
    for shape in SHAPES:
        ours = memlimits.zeros(shape, dtype, order)
        theirs = numpy.zeros(shape, dtype, order)
        assert layout(ours) == layout(theirs)
        assert numpy.array_equal(ours, theirs)
        assert owner(ours) == GOVERNED
        assert ours.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_empty_is_a_writable_array_of_its_own(dtype, order):
    for shape in SHAPES:
        ours, theirs = memlimits.empty(shape, dtype, order), numpy.empty(shape, dtype, order)
        assert layout(ours) == layout(theirs)
        assert owner(ours) == GOVERNED
        assert ours.ctypes.data % 64 == 0
        ours[...] = numpy.zeros(shape, dtype)
        assert numpy.array_equal(ours, numpy.zeros(shape, dtype))


PLAIN_TYPES = [numpy.dtype(code) for code in "?bBhHiIlLqQefdgFDG"]
NAMES = [bool, int, float, complex, None, "<f4", ">f4", "=i8", "|b1", "b1", "f8", "double", "int_"]
NAMES += [numpy.dtype("f4", metadata={"unit": "m"}), numpy.dtype(">c16"), numpy.dtype("M8[s]")]
NAMES += map(numpy.dtype, DTYPES)
NAMES += [numpy.int_, numpy.bool_, numpy.dtypes.Float32DType, numpy.dtype("f4").type]
for _dtype in PLAIN_TYPES:
    NAMES += [_dtype, _dtype.char, _dtype.str, _dtype.name, _dtype.type, _dtype.newbyteorder()]


@pytest.mark.parametrize("name", ["empty", "zeros"])
def test_every_name_of_a_type_means_what_it_means_to_numpy(name):
    for dtype in NAMES:
        for shape in (5, (2, 3)):
            ours = getattr(memlimits, name)(shape, dtype)
            theirs = getattr(numpy, name)(shape, dtype)
            assert layout(ours) == layout(theirs), dtype
            assert ours.dtype.char == theirs.dtype.char
            assert ours.dtype.metadata == theirs.dtype.metadata
            assert owner(ours) == GOVERNED


@pytest.mark.parametrize(
    "dtype", [object, numpy.dtype(object), numpy.dtype("O,i4"), numpy.dtypes.StringDType()]
)
def test_what_needs_its_memory_initialised_gets_it(dtype):
    for n in (1, 100, 10_000):
        size = n * numpy.empty(1, dtype).nbytes
        memlimits.empty(size, "u1").fill(0xAA)
        ours, theirs = memlimits.empty(n, dtype), numpy.zeros(n, dtype)
        assert owner(ours) == GOVERNED
        if ours.dtype.kind == "O":
            assert ours.tolist() == [None] * n
        ours[...] = theirs
        assert ours.tolist() == theirs.tolist()


def test_shape_and_type_may_be_anything_that_numpy_takes():
    class Shape(tuple):
        pass

    class Int(int):
        pass

    class Typed:
        dtype = numpy.dtype("i2")

    for shape in (Shape((2, 3)), Int(3), (Int(3), 2), range(1, 4), numpy.array([2, 3]), bytes(3)):
        assert layout(memlimits.empty(shape)) == layout(numpy.empty(shape))
    for dtype in (Typed, [("a", "i4")], {"names": ["a"], "formats": ["f4"]}, "i4,f8", "2f4"):
        assert layout(memlimits.zeros(3, dtype)) == layout(numpy.zeros(3, dtype))


@pytest.mark.parametrize("order", ["c", "f", None])
def test_orders_that_numpy_takes(order):
    assert layout(memlimits.empty((2, 3), "f4", order)) == layout(numpy.empty((2, 3), "f4", order))


def test_resize_keeps_contents():
    for n in (1, 500, 5000, 300_000):
        array = memlimits.empty(n)
        array[:] = numpy.arange(n)
        for new in (2 * n, n // 2 + 1, 40 * n, 1):
            known = min(len(array), new)
            expected = numpy.concatenate([array[:known].copy(), numpy.zeros(new - known)])
            array.resize(new, refcheck=False)
            assert numpy.array_equal(array, expected)
            assert owner(array) == GOVERNED


def traced():
    snapshot = tracemalloc.take_snapshot()
    inside = tracemalloc.DomainFilter(inclusive=True, domain=numpy.lib.tracemalloc_domain)
    return sum(trace.size for trace in snapshot.filter_traces([inside]).traces)


@pytest.mark.parametrize("shape", [(), 1000, (3, 4), 0, MIB])
def test_tracemalloc_sees_what_numpy_would_show_it(shape):
    tracemalloc.start()
    try:
        before = traced()
        theirs = numpy.empty(shape, "f4")
        size = traced() - before
        ours = memlimits.empty(shape, "f4"), memlimits.zeros(shape, "f4", "F")
        assert traced() - before == 3 * size > 0
        del ours, theirs
        assert traced() == before
    finally:
        tracemalloc.stop()


def test_arrays_leave_nothing_behind():
    types = numpy.dtype("f8"), numpy.dtype("i2")

    def cycle():
        memlimits.empty(10)
        memlimits.zeros((3, 4), types[1], "F")
        memlimits.empty((2, 2), dtype="f4")
        memlimits.empty([2], "i2")
        with pytest.raises(ValueError, match="negative"):
            memlimits.empty(-1, "f8")

    def held():
        gc.collect()
        return sys.getrefcount(_numpy.own_handler()), *map(sys.getrefcount, types)

    for _ in range(50):
        cycle()
    before, blocks = held(), sys.getallocatedblocks()
    for _ in range(400):
        cycle()
    assert all(abs(now - then) < 10 for now, then in zip(held(), before, strict=True))
    assert sys.getallocatedblocks() - blocks < 100


def test_arguments_by_keyword_and_by_default():
    assert memlimits.empty(shape=3, dtype="i2", order="C").dtype == numpy.int16
    assert memlimits.zeros((2, 3), order="F").flags.f_contiguous
    assert memlimits.empty(2).dtype == memlimits.zeros(2).dtype == numpy.float64


@pytest.mark.parametrize("name", ["empty", "zeros"])
@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [
        (-1, float, "C"),
        ((2, -3), float, "C"),
        (1.5, float, "C"),
        ("3", float, "C"),
        (None, float, "Q"),
        (3, "nonsense", "C"),
        (3, float, "Z"),
        (2**64, float, "C"),
        (2**62, float, "C"),
        ((2**40, 2**40), "i1", "C"),
        ((2**32, 2**32, 0, 2), "i1", "C"),
        ((1,) * 65, float, "C"),
        ((2**29, 2**29, 2**29), float, "C"),
        ((2**29,) * 32, float, "F"),
        ((2**29, -1), float, "C"),
        ((2, "3"), float, "C"),
        ((), "nonsense", "C"),
        (-1, "nonsense", "C"),
        (3, [], "Z"),
        (3, float, "K"),
        (True, float, "C"),
        ((2, True), float, "C"),
        (2**60, "S16", "C"),
    ],
)
def test_errors_are_numpys(name, shape, dtype, order):
    def outcome(module):
        try:
            return getattr(module, name)(shape, dtype, order).shape
        except Exception as error:
            return type(error), str(error)

    assert outcome(memlimits) == outcome(numpy)


@pytest.mark.parametrize("name", ["empty", "zeros"])
def test_a_refusal_has_numbers_and_leaves_no_trace(name):
    held = memlimits.allocate(MIB)
    active, size = memlimits.get_active_memory(), resident()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(active + 8 * MIB - 1)
    handlers = sys.getrefcount(_numpy.own_handler())
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        getattr(memlimits, name)((1024, 1024), "f8")
    handlers_then = sys.getrefcount(_numpy.own_handler())
    assert handlers_then == handlers
    assert (caught.value.requested, caught.value.blocked_by) == (8 * MIB, "limit")
    assert caught.value.limit == active + 8 * MIB - 1
    assert caught.value.__cause__ is None
    assert memlimits.get_active_memory() == active
    assert resident() - size < MIB
    assert owner_here() == PLAIN
    held.release()


def test_a_memory_error_of_another_cause_is_not_taken_for_a_refusal():
    class Shape:
        def __index__(self):
            raise MemoryError("own")

    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(0)
    with pytest.raises(memlimits.MemoryLimitError):
        memlimits.empty(10 * MIB)
    with pytest.raises(MemoryError, match="own"):
        memlimits.empty(Shape())


def test_zeros_are_zeros_after_dirty_reuse():
    for n in (1, 64, 1000, 4096, 32 * KIB, 100_000, MIB, 5 * MIB):
        dirty = memlimits.empty(n, "u1")
        dirty.fill(255)
        start = dirty.ctypes.data
        del dirty
        clean = memlimits.zeros(n, "u1")
        assert clean.ctypes.data == start
        assert not clean.any()


def test_an_array_gives_its_block_back(govern):
    memlimits.set_cache_limit(0)
    array = numpy.ones(4 * MIB, "u1")
    span = (array.ctypes.data, array.nbytes)
    assert mapped_bytes(*span) == 4 * MIB
    view = array[5:]
    del array
    assert view.base is not None
    assert mapped_bytes(*span) == 4 * MIB
    del view
    assert mapped_bytes(*span) < MIB


@needs_lockable(4 * MIB)
def test_wired_arrays_go_first_until_they_are_gone():
    with memlimits.limits(wired=2 * MIB):
        scratch = memlimits.allocate(2 * MIB)
        for dtype, n in (("f4", 500_000), ("M8[s]", 200_000), (object, 1000)):
            array = memlimits.zeros(n, dtype, wired=True)
            assert not scratch.wired or array.nbytes < 64 * KIB
            assert memlimits.stats().wired_requested >= array.nbytes
            assert memlimits.stats().unwired_requested == 0
            del array
            assert memlimits.stats().wired_requested == 0
        assert memlimits.empty(0, wired=True).size == 0
        array = memlimits.empty(500_000, "f4", wired=True)
        assert locked() >= array.nbytes
        memlimits.unwire(array)
        with pytest.raises(ValueError, match="was not asked to be wired"):
            memlimits.unwire(array)
