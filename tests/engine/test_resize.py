"""`realloc` of long blocks: they grow where they lie or with their pages, and shrink in place."""

import ctypes
import mmap

import numpy
import pytest

import memlimits
from memlimits import memory
from support.functions import changed, holds, write
from support.kernel import (
    contents,
    is_locked,
    locked,
    mapped_bytes,
    needs_lockable,
    resident,
    unmapped,
)
from support.units import KIB, MIB, PAGE

HUGE_PAGE = 2 * MIB
BEHIND = 64 * KIB  # where in a huge page a block begins that asks for them


def grown_by(n, before):
    """What changes with n bytes more, and never more than those, after the peak was reset."""
    return {"footprint": n, "active": n, "peak": before["active"] + n}


@pytest.fixture
def in_the_way():
    """Map a page right behind a block, which cannot grow where it is then."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    mapped = []

    def put(address):
        fixed_noreplace = 0x100000
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed_noreplace
        if libc.mmap(address, PAGE, 0, flags, -1, 0) == address:
            mapped.append(address)

    yield put
    for address in mapped:
        libc.munmap(address, PAGE)


@pytest.mark.core
@pytest.mark.parametrize(
    ("n", "longer"),
    [
        (512 * KIB, MIB),
        (MIB, 2 * MIB),
        (2 * MIB, 3 * MIB + 1),
        (3 * MIB, 6 * MIB),
        (3 * MIB, 64 * MIB),
        (9 * MIB, 18_000_001),
    ],
)
def test_contents_are_kept_longer_and_shorter(blocks, n, longer):
    address = blocks.resize(blocks.make(n), longer)
    assert holds(address, n)
    assert address % PAGE == 0
    write(address, longer)
    address = blocks.resize(address, n)
    assert holds(address, n)
    assert address % PAGE == 0


@pytest.mark.core
@pytest.mark.host
def test_a_longer_block_is_the_same_resource_and_only_what_is_new_counts(blocks):
    address = blocks.make(4 * MIB)
    memlimits.reset_peak_memory()
    before = memory.counters()
    assert blocks.resize(address, 10 * MIB)
    assert changed(before) == grown_by(6 * MIB, before)


@pytest.mark.host
def test_a_block_that_cannot_stay_moves_with_its_pages(blocks, in_the_way):
    address = blocks.make(4 * MIB)
    in_the_way(address + 4 * MIB)
    memlimits.reset_peak_memory()
    before, pages = memory.counters(), resident()
    moved = blocks.resize(address, 12 * MIB)
    # At once: what a test compares contents with may stay in malloc's hands.
    pages_then = resident()
    assert moved != address
    assert moved % HUGE_PAGE == BEHIND
    assert holds(moved, 4 * MIB)
    assert unmapped((address, 4 * MIB))
    assert mapped_bytes(moved, 12 * MIB) == 12 * MIB
    assert pages_then - pages < MIB
    assert changed(before) == grown_by(8 * MIB, before)


@pytest.mark.core
@pytest.mark.host
def test_a_block_that_gets_long_enough_for_huge_pages_is_copied_into_them(blocks):
    address = blocks.make(3 * MIB)
    before = memory.counters()
    address = blocks.resize(address, 5 * MIB)
    assert changed(before)["misses"] == 1
    assert address % HUGE_PAGE == BEHIND
    assert holds(address, 3 * MIB)


@pytest.mark.host
def test_a_block_grows_into_free_addresses_where_it_lies(blocks):
    address = blocks.resize(blocks.make(40 * MIB), 4 * MIB)
    assert blocks.resize(address, 20 * MIB) == address
    assert holds(address, 4 * MIB)


@pytest.mark.host
def test_shrinking_returns_the_tail(blocks):
    address = blocks.make(40 * MIB)
    before, pages = memory.counters(), resident()
    assert blocks.resize(address, 4 * MIB - 1) == address
    assert pages - resident() > 35 * MIB  # at once, as above
    assert contents(address + 4 * MIB, 1) is None
    assert holds(address, 4 * MIB - 1)
    assert changed(before) == {"footprint": -36 * MIB, "active": -36 * MIB}


@pytest.mark.core
@pytest.mark.parametrize("n", [20 * MIB, 30 * MIB, 40 * MIB - 1, 40 * MIB])
def test_between_half_and_all_nothing_happens(blocks, n):
    address = blocks.make(40 * MIB)
    before = memory.counters()
    assert blocks.resize(address, n) == address
    assert changed(before) == {}
    assert holds(address, 40 * MIB)


@pytest.mark.core
@pytest.mark.host
@pytest.mark.parametrize("policy", ["strict", "guideline"])
def test_long_blocks_grow_in_huge_pages_where_the_limit_has_room(blocks, policy):
    memlimits.set_memory_policy(policy)
    address = blocks.make(16 * MIB)
    before = memory.counters()
    memlimits.set_memory_limit(before["footprint"] + 3 * MIB)
    address = blocks.resize(address, 16 * MIB + 1)
    assert changed(before)["active"] == 2 * MIB
    address = blocks.resize(address, 18 * MIB + 1)
    assert changed(before)["active"] == 2 * MIB + PAGE
    assert changed(before).get("overruns", 0) == 0
    assert holds(address, 16 * MIB)


# ---- wired ----


@needs_lockable(32 * MIB)
def test_a_wired_block_is_wired_when_it_is_longer(blocks):
    memlimits.set_wired_limit(24 * MIB)
    address = blocks.make(4 * MIB)
    assert is_locked(address)
    address = blocks.resize(address, 8 * MIB)
    assert holds(address, 4 * MIB)
    assert is_locked(address)
    assert locked() == memlimits.get_wired_memory() >= 8 * MIB


@needs_lockable(32 * MIB)
def test_a_block_is_wired_once_it_is_short_enough(blocks):
    memlimits.set_wired_limit(8 * MIB)
    address = blocks.make(20 * MIB)
    assert locked() == 0
    address = blocks.resize(address, 30 * MIB)
    assert locked() == 0
    address = blocks.resize(address, 6 * MIB)
    assert holds(address, 6 * MIB)
    assert is_locked(address)
    assert locked() == memlimits.get_wired_memory() == 6 * MIB


# ---- NumPy ----


@pytest.mark.host
def test_an_array_is_resized_without_a_second_one(govern):
    array = numpy.arange(4 * MIB)
    memlimits.reset_peak_memory()
    before = memory.counters()
    array.resize(8 * MIB, refcheck=False)
    assert changed(before)["peak"] == before["active"] + 32 * MIB
    assert numpy.array_equal(array[: 4 * MIB], numpy.arange(4 * MIB))
    assert not array[4 * MIB :].any()
    array.resize(MIB, refcheck=False)
    assert changed(before)["active"] == -24 * MIB
    assert numpy.array_equal(array, numpy.arange(MIB))


@pytest.mark.host
def test_fromiter_takes_little_more_than_its_result(govern):
    memlimits.reset_peak_memory()
    before = memory.counters()
    array = numpy.fromiter(range(4 * MIB), "i8")
    # It asks for half as much again each time.
    assert memlimits.get_peak_memory() - before["active"] < 32 * MIB * 3 // 2 + 2 * MIB
    assert numpy.array_equal(array, numpy.arange(4 * MIB))
