"""`wire` and `unwire`: Buffers, arrays and blocks of C that are there already."""

import ctypes

import numpy as np
import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.buffer import allocate_in
from memlimits._bindings.wiring import unwire, wire
from support.blocks import unwired
from support.functions import free, malloc, realloc
from support.kernel import is_locked, needs_lockable
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.core, needs_lockable(8 * MIB)]


@pytest.fixture
def default():
    """The default allocator, with a wired limit."""
    memlimits.clear_cache()
    memlimits.set_wired_limit(4 * MIB)
    yield
    memlimits.set_wired_limit(0)


def test_a_buffer_is_wired_later(allocator):
    allocator.set_wired_limit(4 * MIB)
    scratch, block = allocate_in(allocator, 3 * MIB), allocate_in(allocator, 2 * MIB)
    assert [scratch.wired, block.wired] == [True, False]
    wire(block)
    assert [scratch.wired, block.wired] == [False, True]
    assert is_locked(block.ptr)
    unwire(block)
    assert block.wired  # as long as nothing else needs its place
    wire(scratch)
    assert [scratch.wired, block.wired] == [True, False]


def test_what_is_wired_now_goes_before_what_waits_for_its_turn(allocator):
    allocator.set_wired_limit(4 * MIB)
    first = allocate_in(allocator, 4 * MIB, wired=True)
    block, waiting = allocate_in(allocator, 3 * MIB), allocate_in(allocator, 3 * MIB, wired=True)
    first.release()
    assert not waiting.wired
    wire(block)
    assert [block.wired, waiting.wired] == [True, False]


def test_each_unwire_takes_one_wire_back(allocator):
    block = allocate_in(allocator, MIB, wired=True)
    wire(block)
    unwire(block)
    assert unwired(allocator)[0] == MIB
    unwire(block)
    assert unwired(allocator)[0] == 0
    before = allocator.counters()
    with pytest.raises(ValueError, match="was not asked to be wired"):
        unwire(block)
    assert allocator.counters() == before


@pytest.mark.parametrize("part", [slice(None), slice(None, None, -1), slice(-10, None)])
def test_an_array_by_any_part_of_it(default, part):
    scratch, array = memlimits.allocate(3 * MIB), memlimits.zeros(2 * MIB, "u1")
    memlimits.wire(array[part])
    assert is_locked(array.ctypes.data)
    assert is_locked(array.ctypes.data + array.nbytes - 1)
    assert not scratch.wired
    memlimits.unwire(array)
    with pytest.raises(ValueError, match="not asked"):
        memlimits.unwire(array[part])


@pytest.mark.parametrize("dtype", ["f8", "M8[s]", "O", "S3", [("a", "i4"), ("b", "f8")]])
def test_arrays_of_any_type(default, dtype):
    array = memlimits.empty((300, 400), dtype)
    read_only = array.T
    read_only.flags.writeable = False
    memlimits.wire(read_only)
    assert is_locked(array.ctypes.data)


def test_an_array_of_governed_numpy(default):
    with memlimits.govern_numpy():
        array = np.ones(MIB, "u1")
    memlimits.wire(array)
    assert memory.counters()["wired_requested"] == MIB
    del array
    assert memory.counters()["wired_requested"] == 0


def test_a_short_array_is_wired_with_its_slab_until_that_has_no_block(default):
    arrays = [memlimits.zeros(1000, "u1") for _ in range(3)]
    memlimits.wire(arrays[0])
    slab = memory.counters()["wired_requested"]
    assert slab >= 64 * KIB
    assert is_locked(arrays[0].ctypes.data)
    del arrays[1:]
    assert memory.counters()["wired_requested"] == slab
    del arrays
    assert memory.counters()["wired_requested"] == 0
    again = memlimits.zeros(1000, "u1")
    assert memory.counters()["wired_requested"] == 0
    with pytest.raises(ValueError, match="not asked"):
        memlimits.unwire(again)


def test_a_slab_that_was_empty_before_forgets_as_well(default):
    """It is kept as it is cut then, and served without a look at what it was."""
    for _ in range(3):
        memlimits.zeros(1000, "u1")
    array = memlimits.zeros(1000, "u1")
    memlimits.wire(array)
    del array
    again = memlimits.zeros(1000, "u1")
    assert memory.counters()["wired_requested"] == 0
    assert len(again) == 1000


@pytest.mark.parametrize("n", [1000, 3 * MIB])
@pytest.mark.parametrize("reserved", [0, 8 * MIB])
def test_what_is_charged_to_a_budget_is_forgotten_as_well(default, n, reserved):
    with memlimits.budget("weights") as budget, memlimits.reserve(reserved):
        asked, later = memlimits.allocate(n, wired=True), memlimits.allocate(n)
        memlimits.wire(later)
        assert budget.active > 0
        del asked, later
        assert memory.counters()["wired_requested"] == budget.active == 0
        again = memlimits.allocate(n)
        assert memory.counters()["wired_requested"] == 0
    del again
    assert memory.counters()["wired_requested"] == budget.active == 0


def test_blocks_of_c(default):
    address = malloc(MIB)
    memlimits.wire((ctypes.c_char * MIB).from_address(address))
    assert is_locked(address)
    free(address)
    assert memory.counters()["wired_requested"] == 0


def test_a_block_of_c_that_is_resized_and_not_wired_yet(default):
    memlimits.set_wired_limit(0)
    address = malloc(4 * MIB)
    memlimits.wire((ctypes.c_char * 8).from_address(address))
    address = realloc(address, 8 * MIB)
    free(address)
    assert memory.counters()["wired_requested"] == 0


@pytest.mark.parametrize("function", [wire, unwire])
@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.zeros(100), ValueError),
        (bytearray(100), ValueError),
        (b"bytes", ValueError),
        (3, TypeError),
        (None, TypeError),
    ],
)
def test_foreign_memory_is_refused_and_nothing_changes(default, function, array, error):
    before = memory.counters()
    message = (
        "the memory of this" if error is ValueError else "a Buffer or have the buffer protocol"
    )
    with pytest.raises(error, match=f"{message}.*{type(array).__name__}"):
        function(array)
    assert memory.counters() == before


def test_the_error_says_the_way_out(default):
    with pytest.raises(ValueError, match=r"memlimits\.allocate.*[Cc]opy it"):
        memlimits.wire(np.zeros(100))


def test_a_released_buffer_can_not_be_wired(allocator):
    block = allocate_in(allocator, MIB)
    block.release()
    with pytest.raises(ValueError, match="released"):
        wire(block)


def test_no_view_is_left_behind(allocator):
    block = allocate_in(allocator, MIB)
    wire(block)
    unwire(block)
    with pytest.raises(ValueError, match="not asked"):
        unwire(block)
    block.release()
