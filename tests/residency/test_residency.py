"""Which resources are wired, as the kernel counts it: VmLck, the mappings' flags, and mincore.

Or as the stand-in for Metal does.
"""

import random
import threading
import time

import pytest

from memlimits._bindings.buffer import allocate_in
from support.kernel import (
    in_ram,
    is_locked,
    locked,
    needs_lockable,
    resident_pages,
    watched_locked,
)
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, needs_lockable(8 * MIB)]


@pytest.mark.core
def test_nothing_is_wired_at_first(allocator):
    block = allocate_in(allocator, MIB)
    assert allocator.get_wired_limit() == locked() == 0
    assert not is_locked(block.ptr)
    assert not in_ram(block)


@pytest.mark.core
def test_a_new_block_is_wired_when_allocate_returns(allocator):
    allocator.set_wired_limit(4 * MIB)
    block = allocate_in(allocator, MIB)
    assert locked() == allocator.get_wired_memory() == MIB
    assert is_locked(block.ptr)
    assert in_ram(block)


@pytest.mark.core
def test_the_limit_is_exact_to_the_byte(allocator):
    allocator.set_wired_limit(3 * MIB - 1)
    blocks = [allocate_in(allocator, MIB) for _ in range(3)]
    assert locked() == 2 * MIB
    assert allocator.set_wired_limit(3 * MIB) == 3 * MIB - 1
    assert locked() == 3 * MIB
    allocator.set_wired_limit(3 * MIB - 1)
    assert locked() == allocator.get_wired_memory() == 2 * MIB
    assert sum(is_locked(block.ptr) for block in blocks) == 2


@pytest.mark.core
def test_raising_the_limit_wires_what_lives(allocator):
    blocks = [allocate_in(allocator, n * MIB) for n in (1, 2, 3)]
    assert locked() == 0
    allocator.set_wired_limit(8 * MIB)
    assert locked() == 6 * MIB
    assert all(in_ram(block) for block in blocks)


@pytest.mark.core
def test_raising_the_limit_wires_nothing_idle(allocator):
    live, idle = allocate_in(allocator, 2 * MIB), allocate_in(allocator, MIB)
    idle.release()
    allocator.set_wired_limit(8 * MIB)
    assert is_locked(live.ptr)
    assert locked() == 2 * MIB


@pytest.mark.core
def test_lowering_the_limit_unwires_before_it_returns(allocator):
    allocator.set_wired_limit(8 * MIB)
    blocks = [allocate_in(allocator, 2 * MIB) for _ in range(4)]
    memoryview(blocks[0])[:] = b"x" * (2 * MIB)
    for limit in (7, 5, 4, 1, 0):
        allocator.set_wired_limit(limit * MIB)
        assert locked() == allocator.get_wired_memory() == limit // 2 * 2 * MIB
    assert bytes(blocks[0]) == b"x" * (2 * MIB)


@pytest.mark.core
def test_a_limit_put_back_wires_the_same_again(allocator):
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    allocator.set_wired_limit(8 * MIB)
    previous = allocator.set_wired_limit(MIB)
    assert (previous, locked()) == (8 * MIB, MIB)
    allocator.set_wired_limit(previous)
    assert locked() == 4 * MIB
    assert all(is_locked(block.ptr) for block in blocks)


@pytest.mark.core
def test_cycles_do_not_drift(allocator):
    held = [allocate_in(allocator, n) for n in (100, 50 * KIB, MIB)]
    at_the_top = set()
    for _ in range(32):
        allocator.set_wired_limit(8 * MIB)
        more = [allocate_in(allocator, n) for n in (MIB, 2 * MIB)]
        at_the_top.add((locked(), allocator.get_wired_memory()))
        for block in more:
            block.release()
        allocator.clear_cache()
        allocator.set_wired_limit(0)
        assert locked() == allocator.get_wired_memory() == 0
    assert len(at_the_top) == 1
    assert len(set(*at_the_top)) == 1
    assert len(held) == 3


@pytest.mark.core
def test_blocks_of_slabs_are_wired_with_their_slab(allocator):
    allocator.set_wired_limit(MIB)
    block = allocate_in(allocator, 100)
    footprint = allocator.counters()["footprint"]
    assert locked() == footprint
    assert is_locked(block.ptr)


@pytest.mark.core
def test_a_block_above_the_rest_of_the_budget_stays_out_and_others_go_in(allocator):
    allocator.set_wired_limit(4 * MIB)
    first = allocate_in(allocator, 3 * MIB)
    large = allocate_in(allocator, 2 * MIB)
    small = allocate_in(allocator, MIB)
    assert [is_locked(block.ptr) for block in (first, large, small)] == [True, False, True]
    assert locked() == 4 * MIB
    assert allocate_in(allocator, 5 * MIB).capacity == 5 * MIB
    assert locked() == 4 * MIB


@pytest.mark.core
def test_idle_blocks_give_way_to_a_live_one(allocator):
    allocator.set_wired_limit(4 * MIB)
    idle = [allocate_in(allocator, 2 * MIB) for _ in range(2)]
    for block in idle:
        block.release()
    assert locked() == 4 * MIB  # they stay while the budget allows
    live = allocate_in(allocator, 3 * MIB)
    assert is_locked(live.ptr)
    assert locked() == 3 * MIB


@pytest.mark.core
def test_a_live_block_takes_an_idle_ones_place_when_any_resource_is_made(allocator):
    allocator.set_wired_limit(4 * MIB)
    idle = allocate_in(allocator, 3 * MIB)
    waiting = allocate_in(allocator, 2 * MIB)
    idle.release()
    assert not is_locked(waiting.ptr)
    fresh = allocate_in(allocator, MIB)  # fits beside the idle one
    assert [is_locked(block.ptr) for block in (waiting, fresh)] == [True, True]
    assert locked() == allocator.get_wired_memory() == 3 * MIB


@pytest.mark.core
def test_idle_blocks_do_not_give_way_for_nothing(allocator):
    allocator.set_wired_limit(4 * MIB)
    live, idle = allocate_in(allocator, 3 * MIB), allocate_in(allocator, MIB)
    idle.release()
    more = allocate_in(allocator, 2 * MIB)
    assert not is_locked(more.ptr)
    assert is_locked(live.ptr)
    assert locked() == 4 * MIB


@pytest.mark.core
def test_live_blocks_keep_their_wiring_before_idle_ones_when_the_limit_falls(allocator):
    allocator.set_wired_limit(8 * MIB)
    idle = allocate_in(allocator, 3 * MIB)
    live = allocate_in(allocator, 2 * MIB)
    idle.release()
    allocator.set_wired_limit(4 * MIB)
    assert is_locked(live.ptr)
    assert locked() == 2 * MIB


@pytest.mark.core
def test_hits_do_not_change_wiring(allocator):
    allocator.set_wired_limit(2 * MIB)
    wired = allocate_in(allocator, 2 * MIB)
    outside = allocate_in(allocator, MIB)
    for block in (wired, outside):
        block.release()
    for _ in range(3):
        hit = allocate_in(allocator, MIB)
        assert not is_locked(hit.ptr)
        again = allocate_in(allocator, 2 * MIB)
        assert is_locked(again.ptr)
        assert locked() == 2 * MIB
        hit.release()
        again.release()
    assert allocator.counters()["misses"] == 2


@pytest.mark.core
def test_what_is_freed_and_returned_is_not_wired_any_more(allocator):
    allocator.set_wired_limit(8 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    blocks.pop().release()
    allocator.clear_cache()
    assert locked() == allocator.get_wired_memory() == 3 * MIB
    allocator.set_cache_limit(0)
    blocks.pop().release()
    assert locked() == allocator.get_wired_memory() == 2 * MIB


@pytest.mark.core
def test_a_wired_block_reused_as_zeroed_is_zero_and_stays_wired(allocator):
    allocator.set_wired_limit(8 * MIB)
    block = allocate_in(allocator, 4 * MIB)
    where = block.ptr
    memoryview(block)[:] = b"\xff" * (4 * MIB)
    block.release()
    again = allocate_in(allocator, 4 * MIB, zeroed=True)
    assert again.ptr == where
    assert bytes(again) == bytes(4 * MIB)
    assert is_locked(again.ptr)
    assert in_ram(again)
    assert locked() == 4 * MIB


@pytest.mark.core
@pytest.mark.host
def test_an_unwired_block_reused_as_zeroed_gives_its_pages_back(allocator):
    block = allocate_in(allocator, 4 * MIB)
    memoryview(block)[:] = b"\xff" * (4 * MIB)
    block.release()
    again = allocate_in(allocator, 4 * MIB, zeroed=True)
    assert resident_pages(again.ptr, again.nbytes) == 0
    assert bytes(again) == bytes(4 * MIB)


def churn(allocator, seed, seconds):
    rng = random.Random(seed)
    held = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(held) < 12 and rng.random() < 0.6:
            held.append(allocate_in(allocator, rng.randrange(1, 500) * PAGE))
        elif held:
            held.pop(rng.randrange(len(held))).release()


def test_never_above_the_limit(allocator):
    limit = 6 * MIB
    allocator.set_wired_limit(limit)
    allocator.set_cache_limit(4 * MIB)
    with watched_locked() as watcher:
        run_threads(*(lambda seed=seed: churn(allocator, seed, 0.5) for seed in range(3)))
    assert limit // 2 < watcher.highest <= limit


@pytest.mark.core
@needs_lockable(24 * MIB)
def test_a_lowered_limit_holds_at_once_while_others_free(allocator):
    """Also what another thread is giving back just then has to be unwired."""
    allocator.set_cache_limit(0)
    done = threading.Event()

    def work():
        while not done.is_set():
            for block in [allocate_in(allocator, MIB) for _ in range(8)]:
                block.release()

    def limit():
        try:
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                allocator.set_wired_limit(24 * MIB)
                time.sleep(0.002)
                allocator.set_wired_limit(0)
                assert locked() == 0
        finally:
            done.set()

    run_threads(limit, work, work, work)
