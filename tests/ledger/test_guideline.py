"""The guideline policy: past the limit, as long as the system has the memory."""

import pytest

from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import place, private
from support.kernel import bytes_wholly_mapped, mapped_bytes, wholly_mapped
from support.units import MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture
def allocator():
    return Allocator()


def test_guideline_gives_past_the_limit_and_counts_it(allocator):
    allocator.set_memory_limit(2 * MIB)
    held = [allocate_in(allocator, MIB) for _ in range(2)]
    assert allocator.counters()["overruns"] == 0
    held.append(allocate_in(allocator, MIB))
    held.append(allocate_in(allocator, PAGE * 20))
    assert allocator.counters()["overruns"] == 2
    assert all(mapped_bytes(buffer.ptr, buffer.capacity) for buffer in held)


def test_a_guideline_is_overrun_and_every_overrun_counted():
    allocator = private()
    allocator.set_memory_limit(10 * MIB)
    idle = allocate_in(allocator, 4 * MIB)
    where = place(idle)
    idle.release()
    blocks = [allocate_in(allocator, n * MIB) for n in (9, 5, 7)]
    assert allocator.counters()["overruns"] == 2
    assert bytes_wholly_mapped([place(block) for block in blocks]) == 21 * MIB
    # The idle block went first; a new one may have its place.
    assert allocator.get_cache_memory() == 0
    assert allocator.counters()["footprint"] == 21 * MIB
    over_it = [block for block in blocks if block.ptr <= where[0] < block.ptr + block.capacity]
    assert over_it or not wholly_mapped([where])
    # What comes back past the limit is not kept.
    places = [place(block) for block in blocks]
    blocks.pop().release()
    assert wholly_mapped(places) == places[:2]


def test_a_limit_of_10_bytes_can_be_set_and_taken_back():
    allocator = private()
    previous = allocator.set_memory_limit(10)
    assert allocate_in(allocator, 100).capacity >= 100
    assert allocator.set_memory_limit(previous) == 10
    assert allocator.get_memory_limit() == previous
