"""Residency sets of a capped size: what is wired is exact, whatever set it is in.

How many sets there are only the stand-in for Metal says: on the host they are the library's own.
"""

import pytest

from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.kernel import in_ram, locked, needs_lockable, watched_locked
from support.metal import count, stand_in
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture
def allocator():
    allocator = Allocator(Device(), residency_set_cap=2 * MIB)
    yield allocator
    allocator.set_wired_limit(0)
    assert locked() == 0


def sets():
    return count("sets") if stand_in() else 0


@needs_lockable(128 * MIB)
def test_many_blocks_stay_within_32_sets(allocator):
    before = sets()
    allocator.set_wired_limit(256 * MIB)
    held = [allocate_in(allocator, 2 * MIB) for _ in range(64)]
    assert locked() == allocator.get_wired_memory() == 128 * MIB
    assert not stand_in() or sets() - before == 32
    assert all(in_ram(block) for block in held)
    held.clear()
    allocator.clear_cache()
    assert locked() == 0


@needs_lockable(128 * MIB)
def test_emptied_sets_are_filled_again(allocator):
    allocator.set_wired_limit(256 * MIB)
    held = [allocate_in(allocator, 2 * MIB) for _ in range(64)]
    made = sets()
    for _ in range(3):
        del held[::2]
        allocator.clear_cache()
        assert locked() == 2 * MIB * len(held)
        held += [allocate_in(allocator, 2 * MIB) for _ in range(64 - len(held))]
        assert locked() == allocator.get_wired_memory() == 128 * MIB
        assert sets() == made


@needs_lockable(6 * MIB)
def test_never_above_the_limit_while_blocks_of_one_set_give_way_to_those_of_another(allocator):
    allocator.set_wired_limit(6 * MIB)
    with watched_locked() as watcher:
        for first, second in 20 * [(2 * MIB, 3 * MIB), (3 * MIB, 2 * MIB)]:
            idle = [allocate_in(allocator, first) for _ in range(6 * MIB // first)]
            assert locked() == 6 * MIB
            idle.clear()
            live = [allocate_in(allocator, second) for _ in range(6 * MIB // second)]
            assert locked() == 6 * MIB
            live.clear()
            allocator.clear_cache()
    assert watcher.highest == 6 * MIB


@needs_lockable(24 * MIB)
def test_a_block_longer_than_a_set_is_still_wired(allocator):
    allocator.set_wired_limit(256 * MIB)
    small = allocate_in(allocator, 512 << 10)
    block = allocate_in(allocator, 20 * MIB)
    assert locked() == allocator.get_wired_memory() == 20 * MIB + small.capacity
    assert in_ram(block)
    assert in_ram(small)


@needs_lockable(24 * MIB)
def test_32_cycles_of_allocating_and_freeing_do_not_drift(allocator):
    kept = [allocate_in(allocator, n * MIB) for n in (1, 3)]
    allocator.set_wired_limit(64 * MIB)
    for _ in range(32):
        blocks = [allocate_in(allocator, n * MIB) for n in (1, 2, 3, 5)]
        assert locked() == allocator.get_wired_memory() == 15 * MIB
        blocks.clear()
        allocator.clear_cache()
        assert locked() == allocator.get_wired_memory() == 4 * MIB
    assert all(in_ram(block) for block in kept)
