"""`empty` and `zeros`: NumPy's arrays in memlimits' memory."""

import numpy
import pytest
from numpy._core.multiarray import get_handler_name

import memlimits
from support.governed import GOVERNED, PLAIN, handler_here
from support.kernel import mapped_bytes, resident
from support.units import KIB, MIB

pytestmark = pytest.mark.usefixtures("plain_numpy")


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

SHAPES = [(), 0, 7, (3, 0, 2), (4, 5), numpy.int64(6), [2, 3]]


def layout(array):
    return array.shape, array.dtype, array.strides


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_zeros_is_what_numpy_makes(dtype, order):
    for shape in SHAPES:
        ours = memlimits.zeros(shape, dtype, order)
        theirs = numpy.zeros(shape, dtype, order)
        assert (ours.shape, ours.dtype, ours.strides) == (
            theirs.shape,
            theirs.dtype,
            theirs.strides,
        )
        assert numpy.array_equal(ours, theirs)
        assert (type(ours), ours.base, ours.flags.owndata) == (numpy.ndarray, None, True)
        assert get_handler_name(ours) == GOVERNED
        assert ours.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_is_a_writable_array_of_its_own(dtype):
    for shape in SHAPES:
        ours, theirs = memlimits.empty(shape, dtype), numpy.empty(shape, dtype)
        assert (ours.shape, ours.dtype, ours.strides) == (
            theirs.shape,
            theirs.dtype,
            theirs.strides,
        )
        assert (ours.base, ours.flags.owndata, ours.flags.writeable) == (None, True, True)
        assert get_handler_name(ours) == GOVERNED
        ours[...] = numpy.zeros(shape, dtype)
        assert numpy.array_equal(ours, numpy.zeros(shape, dtype))


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
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        getattr(memlimits, name)((1024, 1024), "f8")
    assert (caught.value.requested, caught.value.blocked_by) == (8 * MIB, "limit")
    assert caught.value.limit == active + 8 * MIB - 1
    assert caught.value.__cause__ is None
    assert memlimits.get_active_memory() == active
    assert resident() - size < MIB
    assert handler_here() == PLAIN
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
