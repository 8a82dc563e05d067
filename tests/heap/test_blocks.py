"""Blocks: their size, their alignment, and whether they read as zeros."""

import pytest

from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import private
from support.kernel import is_locked, mapped_bytes, needs_lockable
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core]

# One of each way that memory is laid out: 64-byte classes, eighths of powers of two, the longest
# block of a slab, pages, and lengths from which pages are dropped instead of cleared.
SIZES = [1, 63, 64, 65, 512, 513, 1000, 4096, 5000, 32 * KIB]

SIZES += [32 * KIB + 1, 100_000, MIB - 1, MIB, MIB + 1, 5 * MIB]


def expected_capacity(n):
    """Multiples of 64 up to 512, eight sizes a power of two up to 32 KiB, then 32, in pages."""
    power = 1 << (n - 1).bit_length() - 1 if n > 1 else 0
    if n <= 512:
        step = 64
    elif n <= 32 * KIB:
        step = power // 8
    else:
        step = max(power // 32, PAGE)
    return -(-n // step) * step


@pytest.mark.parametrize("n", SIZES)
def test_size_capacity_and_alignment(n):
    allocator = Allocator()
    buffers = [allocate_in(allocator, n) for _ in range(10)]
    assert {len(buffer) for buffer in buffers} == {buffer.nbytes for buffer in buffers} == {n}
    assert {buffer.capacity for buffer in buffers} == {expected_capacity(n)}
    assert {buffer.ptr % (64 if n <= 32 * KIB else PAGE) for buffer in buffers} == {0}
    assert all(mapped_bytes(buffer.ptr, buffer.capacity) == buffer.capacity for buffer in buffers)


def test_every_small_size_gets_the_class_that_the_design_names():
    allocator = Allocator()
    for n in range(1, 33 * KIB, 61):
        assert allocate_in(allocator, n).capacity == expected_capacity(n), n


def test_32_kib_blocks_start_on_a_page():
    """`allocate` promises pages from 32 KiB on."""
    allocator = Allocator()
    assert {allocate_in(allocator, 32 * KIB).ptr % PAGE for _ in range(9)} == {0}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kept", [0, 1])
def test_zeroed_blocks_read_as_zeros_fresh_and_after_use(n, kept):
    """A block that is kept keeps its slab: the others then come from its free list."""
    allocator = Allocator()
    fresh = [allocate_in(allocator, n, zeroed=True) for _ in range(7)]
    assert all(bytes(buffer) == bytes(n) for buffer in fresh)
    used = set()
    for buffer in fresh:
        memoryview(buffer)[:] = b"\xff" * n
        used.add(buffer.ptr)
    for buffer in fresh[kept:]:
        buffer.release()
    again = [allocate_in(allocator, n, zeroed=True) for _ in range(7 - kept)]
    assert {buffer.ptr for buffer in again} <= used
    assert all(bytes(buffer) == bytes(n) for buffer in again)


@pytest.mark.parametrize("n", [64, 5000, 100_000])
def test_zeroed_blocks_in_a_dirty_resource_of_another_size(n):
    """64 KiB that were one long block, cut into a slab, or the other way round."""
    allocator = Allocator()
    whole = allocate_in(allocator, 64 * KIB)
    memoryview(whole)[:] = b"\xff" * (64 * KIB)
    start = whole.ptr
    whole.release()
    blocks = [allocate_in(allocator, n, zeroed=True) for _ in range(16)]
    assert n == 100_000 or start in {block.ptr // PAGE * PAGE for block in blocks}
    assert all(bytes(block) == bytes(n) for block in blocks)


@needs_lockable(4 * MIB)
@pytest.mark.host
@pytest.mark.parametrize("n", [1000, 100_000, 2 * MIB])
def test_zeroed_blocks_on_wired_pages(n):
    """Locked pages cannot be dropped: they have to be cleared."""
    allocator = Allocator()
    allocator.set_wired_limit(4 * MIB)
    dirty = allocate_in(allocator, n)
    memoryview(dirty)[:] = b"\xff" * n
    assert is_locked(dirty.ptr)
    start = dirty.ptr
    dirty.release()
    clean = allocate_in(allocator, n, zeroed=True)
    assert clean.ptr == start
    assert is_locked(start)
    assert bytes(clean) == bytes(n)


def test_not_zeroed_is_the_default_and_keeps_what_was_there():
    allocator = Allocator()
    buffer = allocate_in(allocator, 2 * MIB)
    memoryview(buffer)[:] = b"\xee" * (2 * MIB)
    buffer.release()
    assert bytes(allocate_in(allocator, 2 * MIB)) == b"\xee" * (2 * MIB)


def test_capacity_and_alignment_of_every_size():
    allocator = private()
    sizes = [*range(1, 2100, 7), *range(2100, 80_000, 511)]
    sizes += [n + d for n in (512, 4096, 32768, 1 << 16, 1 << 20) for d in (-1, 0, 1)]
    for n in sizes:
        block = allocate_in(allocator, n)
        assert block.capacity == expected_capacity(n)
        assert block.ptr % (PAGE if n >= 32 * KIB else 64) == 0
        assert len(memoryview(block)) == block.nbytes == n
        if n > 32 * KIB:
            allocator.clear_cache()


def test_zeroed_blocks_are_zero_whatever_was_there():
    allocator = private()
    for n in (10, 5000, 40 * KIB, MIB, 5 * MIB):
        for _ in range(3):
            block = allocate_in(allocator, n, zeroed=True)
            assert bytes(block) == bytes(n)
            memoryview(block)[:] = b"\xff" * n
            block.release()
    # A block of another class in a slab that was used before.
    for n in (64, 200, 3000):
        held = [allocate_in(allocator, n, zeroed=True) for _ in range(100)]
        assert not any(any(bytes(block)) for block in held)
        for block in held:
            memoryview(block)[:] = b"\xff" * n


def slabs_of_1_kib(allocator, count):
    """Their blocks; of the last there is one, and what lies behind it was never handed out."""
    slabs, misses = [], 0
    while len(slabs) < count:
        block = allocate_in(allocator, KIB)
        if allocator.counters()["misses"] > misses:
            misses += 1
            slabs.append([])
        slabs[-1].append(block)
    return slabs


def freed(*blocks):
    places = [block.ptr for block in blocks]
    for block in blocks:
        block.release()
    return places


def test_a_slab_is_used_up_before_another_that_lost_a_block():
    """Else each free block would make a full slab one that is not, and full again at once."""
    allocator = Allocator()
    slabs = slabs_of_1_kib(allocator, 12)
    one, other = slabs[-4:-2]
    rest = [allocate_in(allocator, KIB) for _ in range(len(one) - 1)]  # none is left
    places = freed(one[3], other[7], one[40])
    again = [allocate_in(allocator, KIB) for _ in places]
    assert {block.ptr for block in again[:2]} == {places[0], places[2]}
    assert again[2].ptr == places[1]
    assert allocator.counters()["misses"] == len(slabs)
    assert len(slabs[-1] + rest) == len(one)


def test_freed_blocks_are_handed_out_before_what_nobody_touched():
    allocator = Allocator()
    slabs = slabs_of_1_kib(allocator, 12)
    places = freed(slabs[-3][5], slabs[-2][6])
    again = [allocate_in(allocator, KIB) for _ in places]
    assert {block.ptr for block in again} == set(places)
