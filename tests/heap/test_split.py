"""Near a limit what is idle serves in other lengths: split, and coalesced again."""

import random
import threading
import time

import pytest

import memlimits
from memlimits._bindings.buffer import allocate_in
from support.blocks import cycle, place, private, strict
from support.kernel import wholly_mapped
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core, pytest.mark.host]


def full(limit):
    """An allocator whose limit is idle in one piece, and where that is."""
    allocator = strict(limit)
    where = cycle(allocator, limit)
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, limit + PAGE)
    return allocator, where


def write_all(blocks):
    for number, block in enumerate(blocks):
        memoryview(block)[:] = bytes([number % 251]) * block.nbytes


def check_all(blocks):
    for number, block in enumerate(blocks):
        assert bytes(block) == bytes([number % 251]) * block.nbytes


@pytest.mark.parametrize("n", [64, 5000, 20_000, 40 * KIB, 100 * KIB, 300 * KIB, MIB])
def test_one_long_piece_serves_many_short_blocks_and_is_long_again(n):
    allocator, (start, length) = full(4 * MIB)
    misses = allocator.counters()["misses"]
    held = []
    while len(held) * n < 3.5 * MIB - n:
        held.append(allocate_in(allocator, n))
    write_all(held)
    check_all(held)
    assert all(start <= block.ptr < start + length for block in held)
    assert allocator.counters()["footprint"] == 4 * MIB
    random.Random(n).shuffle(held)
    for block in held:
        block.release()
    assert place(allocate_in(allocator, 4 * MIB)) == (start, length)
    assert allocator.counters()["misses"] == misses


def test_what_is_split_off_does_not_read_as_what_it_held():
    allocator = strict(4 * MIB)
    with allocate_in(allocator, 4 * MIB) as block:
        memoryview(block)[:] = b"x" * (4 * MIB)
    sizes = [64, 5000, 100 * KIB, 100 * KIB, MIB]
    held = [allocate_in(allocator, n, zeroed=True) for n in sizes]
    assert all(not any(memoryview(block)) for block in held)
    assert allocator.counters()["footprint"] == 4 * MIB


def test_nearly_every_byte_of_the_limit_can_be_had():
    """After blocks of all lengths were there. One may have a piece that is an eighth longer."""
    allocator, _ = full(4 * MIB)
    rng = random.Random(3)
    for _ in range(5):
        held = []
        try:
            while True:
                held.append(allocate_in(allocator, int(2 ** rng.uniform(6, 20))))
        except memlimits.MemoryLimitError:
            pass
        while held:
            held.pop(rng.randrange(len(held))).release()
        held = [allocate_in(allocator, 64 * KIB) for _ in range(64 * 8 // 9)]
        assert allocator.get_active_memory() <= 4 * MIB
        held.clear()


def test_pieces_go_back_to_the_system_each():
    allocator, where = full(4 * MIB)
    held = [allocate_in(allocator, 256 * KIB) for _ in range(16)]
    kept = held[::4]
    del held
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == MIB
    assert wholly_mapped([place(block) for block in kept]) == sorted(map(place, kept))
    kept.clear()
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0
    assert wholly_mapped([where]) == []


def test_what_was_made_for_one_length_stays_whole_where_there_is_room():
    allocator = private()
    where = cycle(allocator, 4 * MIB)
    held = [allocate_in(allocator, n) for n in (100, 5000, 64 * KIB, MIB)]
    assert place(allocate_in(allocator, 4 * MIB)) == where
    assert allocator.counters()["misses"] == 1 + len(held)


def test_the_oldest_idle_memory_is_as_old_once_it_is_split():
    """What a hit took the first bytes of would else be the last to go."""
    allocator, (start, _) = full(8 * MIB)
    first = allocate_in(allocator, MIB)
    second = allocate_in(allocator, MIB)
    first.release()
    allocator.set_cache_limit(MIB)
    assert place(allocate_in(allocator, MIB)) == (start, MIB)
    assert second.nbytes == MIB


@pytest.mark.parametrize("factor", [1.25, 1.5])
def test_nothing_is_refused_for_the_lengths_that_are_idle(factor):
    """One thread, with blocks of 64 bytes to 64 KiB of which each takes another's place."""

    def replace(allocator, steps):
        rng = random.Random(5)
        held = [allocate_in(allocator, int(2 ** rng.uniform(6, 16))) for _ in range(1024)]
        for _ in range(steps):
            at = rng.randrange(len(held))
            held[at].release()
            held[at] = allocate_in(allocator, int(2 ** rng.uniform(6, 16)))

    without = private()
    replace(without, 30_000)
    allocator = strict(int(without.get_peak_memory() * factor))
    replace(allocator, 30_000)
    assert allocator.counters()["refusals"] == 0


def test_threads_live_on_what_others_have_idle():
    """In a quarter more than they need; each block is its own meanwhile."""
    threads, live, steps = 8, 400, 3000

    def work(allocator, seed):
        rng = random.Random(seed)
        held = [None] * live
        for step in range(steps):
            at = rng.randrange(live)
            if held[at] is not None:
                block, byte = held[at]
                assert bytes(block) == bytes([byte]) * block.nbytes
                block.release()
            block = allocate_in(allocator, int(2 ** rng.uniform(6, 16)))
            held[at] = block, step % 251
            memoryview(block)[:] = bytes([step % 251]) * block.nbytes

    alone = private()
    work(alone, 0)
    allocator = strict(threads * alone.get_peak_memory() * 5 // 4)
    run_threads(*[lambda seed=seed: work(allocator, seed) for seed in range(threads)])
    counters = allocator.counters()
    assert counters["refusals"] == counters["active"] == 0
    assert counters["cache"] + counters["slack"] == counters["footprint"]
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0


def test_what_one_thread_has_idle_another_has_in_one_step():
    allocator = strict(32 * MIB)
    held = []
    run_threads(lambda: [b.release() for b in [allocate_in(allocator, MIB) for _ in range(32)]])
    run_threads(lambda: held.extend(allocate_in(allocator, 100 * KIB) for _ in range(200)))
    counters = allocator.statistics(False)
    assert counters["misses"] == 32
    assert counters["footprint"] == 32 * MIB
    assert counters["steals"] <= 10
    write_all(held)
    check_all(held)


def test_a_wired_limit_lets_nothing_be_split():
    """What is wired stays one buffer of the device's."""
    allocator = strict(4 * MIB)
    allocator.set_wired_limit(MIB)
    where = cycle(allocator, 4 * MIB)
    block = allocate_in(allocator, MIB)
    assert place(block) != (where[0], MIB)
    assert allocator.counters()["resources"] == 1
    allocator.set_wired_limit(0)
    block.release()
    assert cycle(allocator, 4 * MIB)[1] == 4 * MIB
    block = allocate_in(allocator, MIB)
    assert allocator.counters()["footprint"] == 4 * MIB
    assert block.capacity == MIB


def test_what_was_coalesced_is_no_older_than_the_timeout():
    """The first of two has noted no time, the other one has."""
    allocator, _ = full(4 * MIB)
    pieces = [allocate_in(allocator, MIB // 2) for _ in range(8)]
    allocator.set_idle_timeout(60)
    pieces[1].release()
    allocator.set_idle_timeout(None)
    where = pieces[0].ptr
    for piece in (pieces[3], pieces[0]):
        piece.release()
    block = allocate_in(allocator, 3 * MIB // 4)
    assert block.ptr == where
    allocator.set_idle_timeout(60)
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 4 * MIB)  # a slow step
    assert allocator.counters()["decays"] == 0
    assert allocator.counters()["footprint"] == 4 * MIB


def test_what_was_mapped_ahead_is_not_cached_past_a_limit_set_meanwhile():
    allocator = private()
    held, done = [], threading.Event()

    def grow():
        while not done.is_set():
            held.append(allocate_in(allocator, 64 * KIB))

    for _ in range(40):
        done.clear()
        allocator.set_cache_limit(None)
        worker = threading.Thread(target=grow)
        worker.start()
        while len(held) < 100:
            time.sleep(0)
        allocator.set_cache_limit(0)
        done.set()
        worker.join()
        assert allocator.get_cache_memory() == 0
        held.clear()
