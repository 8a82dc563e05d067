"""Growth by 1 MiB and more: how much stays idle beside it, and what idle memory is cut for it."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from memlimits._bindings.buffer import allocate_in
from support.blocks import cycle_all, place, private, uncut, with_room
from support.kernel import wholly_mapped
from support.units import KIB, MIB, PAGE

HEAP = 4 * MIB
# So much of what goes for such growth may stay the next time, less what is cheap: a byte for each
# 20 ns that have passed since the last that went.
PART = 32

pytestmark = [pytest.mark.inside, pytest.mark.core, pytest.mark.host]


def cycle(allocator, *sizes):
    """In MiB."""
    return cycle_all(allocator, *(n * MIB for n in sizes))


def footprint(allocator):
    return allocator.counters()["footprint"]


def evicted(allocator):
    return allocator.statistics(False)["evicted"]


def test_it_is_cut_from_what_is_idle_once_that_would_have_to_go():
    allocator = private()
    (long,) = cycle(allocator, 50)
    first = allocate_in(allocator, 9 * MIB)
    assert place(first) == (long[0], 9 * MIB)
    second = allocate_in(allocator, 41 * MIB)
    assert place(second) == (long[0] + 9 * MIB, 41 * MIB)
    assert (footprint(allocator), evicted(allocator)) == (50 * MIB, 0)


def test_what_was_cut_is_whole_again_for_what_is_as_long():
    allocator = private()
    places = cycle(allocator, 50)
    cycle(allocator, *[5] * 9)
    assert place(allocate_in(allocator, 50 * MIB)) == places[0]
    assert (footprint(allocator), evicted(allocator)) == (50 * MIB, 0)


def test_where_all_idle_is_too_short_the_oldest_goes():
    allocator = private()
    held = allocate_in(allocator, 50 * MIB)
    places = cycle(allocator, 4, 6)
    block = allocate_in(allocator, 7 * MIB)
    assert 50 + 4 + 6 + 7 > 60 + 4 >= 50 + 6 + 7
    assert places[1] in wholly_mapped(places)  # the first's addresses may be another's by now
    assert footprint(allocator) == (50 + 6 + 7) * MIB
    assert evicted(allocator) == 4 * MIB
    assert (held.nbytes, block.nbytes) == (50 * MIB, 7 * MIB)


def after_much_went(allocator):
    """A thirty-second of the 256 MiB that went may stay, or a little less: so long that was ago."""
    held = [allocate_in(allocator, 100 * MIB)]
    cycle(allocator, 6)
    held.append(allocate_in(allocator, 8 * MIB))  # the 6 go for it, and count for nothing
    cycle(allocator, 256)
    held.append(allocate_in(allocator, 288 * MIB))
    assert evicted(allocator) == (6 + 256) * MIB
    return held


@pytest.mark.parametrize(("short", "stays"), [(11, True), (13, False)])
def test_a_part_of_what_went_may_stay_from_then_on(short, stays):
    allocator = private()
    held = after_much_went(allocator)
    held.pop().release()
    held += [allocate_in(allocator, n * MIB) for n in (200, 60, 28 - short)]
    assert allocator.get_cache_memory() == short * MIB
    held.append(allocate_in(allocator, 30 * MIB))
    assert stays == (short * MIB <= HEAP + 256 * MIB // PART)
    assert allocator.get_cache_memory() == stays * short * MIB


@pytest.mark.parametrize("cleared", [False, True])
def test_until_the_cache_is_cleared(cleared):
    allocator = private()
    held = after_much_went(allocator)
    if cleared:
        allocator.clear_cache()
    cycle(allocator, 10)
    held.append(allocate_in(allocator, 12 * MIB))
    assert allocator.get_cache_memory() == (0 if cleared else 10 * MIB)


def test_shorter_growth_is_left_a_quarter_and_16_mib():
    allocator = private()
    (long,) = cycle(allocator, 40)
    held = []
    while footprint(allocator) <= 40 * MIB + 10 * MIB + 16 * MIB - MIB:
        held.append(allocate_in(allocator, MIB - 64 * KIB))
        assert not long[0] <= held[-1].ptr < sum(long)
    assert len(held) > 20
    assert evicted(allocator) == 0


def test_each_thread_has_room():
    allocator = private()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(cycle, allocator, 50).result(30)
        held = [allocate_in(allocator, 2 * MIB) for _ in range(25)]  # some cut from the other's
        assert footprint(allocator) <= 50 * MIB + 2 * HEAP
        assert evicted(allocator) == 0
        assert len({block.ptr for block in held}) == 25


def test_far_from_what_was_in_use_nothing_is_cut():
    allocator = with_room(private())
    (long,) = cycle(allocator, 50)
    block = allocate_in(allocator, 9 * MIB)
    assert not long[0] <= block.ptr < sum(long)
    assert footprint(allocator) == 59 * MIB


def looked_at():
    """An allocator whose idle memory stays whole, so that it is looked at."""
    allocator = private()
    allocator.set_memory_count("resident")
    return allocator


@pytest.mark.parametrize("make", [uncut, looked_at])
def test_where_idle_memory_may_not_be_cut_it_is_left_as_much_as_shorter_growth(make):
    allocator = make()
    (long,) = cycle(allocator, 50)
    block = allocate_in(allocator, 28 * MIB)
    assert not long[0] <= block.ptr < sum(long)
    assert (footprint(allocator), evicted(allocator)) == (78 * MIB, 0)


def test_sizes_that_come_and_go_do_not_add_up():
    allocator = private()
    rng = random.Random(7)
    held, highest, had, most = [], 0, 0, 0
    for n in [rng.randrange(MIB, 32 * MIB) // PAGE * PAGE for _ in range(400)]:
        while held and (len(held) > 8 or rng.random() < 0.5):
            held.pop(rng.randrange(len(held))).release()
        held.append(allocate_in(allocator, n))
        had += n
        highest = max(highest, allocator.get_active_memory())
        most = max(most, footprint(allocator))
        assert footprint(allocator) <= highest + HEAP + evicted(allocator) // PART
    assert had > 15 * most
    # Growth that took long, for other work on the machine, has more kept: up to the quarter.
    assert most < 1.25 * highest + 16 * MIB
    assert evicted(allocator) < had / 6
