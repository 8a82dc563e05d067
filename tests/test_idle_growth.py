"""How far idle memory lets the footprint grow: a quarter above what was in use, 16 MiB a heap."""

import random

import pytest

from memlimits._buffer import allocate_in
from support.blocks import place, private
from support.kernel import wholly_mapped, writable
from support.threads import in_thread
from support.units import KIB, MIB, PAGE

HEAP = 16 * MIB

pytestmark = pytest.mark.core


def allowed(highest, heaps=1):
    return highest + highest // 4 + heaps * HEAP


def cycle(allocator, *sizes):
    """Where blocks lay that were had at once and given back, in this order."""
    blocks = [allocate_in(allocator, n) for n in sizes]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
    return places


def left(places, *new):
    """Those that are still mapped, and not for new blocks in their place."""
    ranges = [place(block) for block in new]
    return [
        (start, length)
        for start, length in wholly_mapped(places)
        if not any(first < start + length and start < first + n for first, n in ranges)
    ]


def test_the_oldest_go_and_just_enough_before_the_footprint_passes_it():
    allocator = private()
    places = cycle(allocator, 8 * MIB, 12 * MIB, 40 * MIB)
    assert allowed(60 * MIB) == 91 * MIB
    cycle(allocator, 31 * MIB)
    assert allocator.counters()["footprint"] == 91 * MIB
    assert wholly_mapped(places) == places
    block = allocate_in(allocator, 18 * MIB)
    assert left(places, block) == places[2:]
    assert allocator.counters()["footprint"] == (91 - 8 - 12 + 18) * MIB


def test_what_is_idle_in_another_thread_goes_too():
    allocator = private()
    (where,) = in_thread(lambda: cycle(allocator, 60 * MIB))
    allocate_in(allocator, 20 * MIB).release()
    assert wholly_mapped([where])
    block = allocate_in(allocator, 30 * MIB)
    assert not left([where], block)


def test_growth_to_a_new_peak_returns_nothing_that_this_peak_allows():
    allocator = private()
    places = cycle(allocator, 20 * MIB)
    held = [allocate_in(allocator, 50 * MIB)]
    assert wholly_mapped(places) == places
    held.append(allocate_in(allocator, 100 * MIB))
    assert wholly_mapped(places) == places
    assert allocator.counters()["footprint"] == 170 * MIB


def test_measuring_the_peak_changes_nothing_that_is_kept():
    allocator = private()
    places = cycle(allocator, 30 * MIB, 30 * MIB)
    allocator.reset_peak_memory()
    block = allocate_in(allocator, 25 * MIB)
    assert wholly_mapped(places) == places
    assert allocator.get_peak_memory() == block.capacity == 25 * MIB


def test_clear_cache_forgets_what_was_in_use_once():
    allocator = private()
    held = allocate_in(allocator, 8 * MIB)
    cycle(allocator, 100 * MIB)
    allocator.clear_cache()
    first = cycle(allocator, 30 * MIB)
    assert allowed((8 + 36) * MIB) < (8 + 30 + 36) * MIB < allowed(108 * MIB)
    block = allocate_in(allocator, 36 * MIB)
    assert not left(first, block, held)


@pytest.mark.parametrize("policy", ["guideline", "strict"])
def test_sizes_that_come_and_go_do_not_add_up(policy):
    allocator = private()
    allocator.set_memory_policy(policy)
    rng = random.Random(7)
    held, highest, had, before = [], 0, 0, writable()
    for n in [rng.randrange(64 * KIB, 8 * MIB) // PAGE * PAGE for _ in range(300)]:
        while held and (len(held) > 16 or rng.random() < 0.5):
            held.pop(rng.randrange(len(held))).release()
        held.append(allocate_in(allocator, n))
        had += n
        highest = max(highest, allocator.get_active_memory())
        assert allocator.counters()["footprint"] <= allowed(highest)
        # As the kernel sees it, with some for the interpreter.
        assert writable() - before <= allowed(highest) + 4 * MIB
    assert had > 8 * allowed(highest)
    assert allocator.get_peak_memory() == highest
