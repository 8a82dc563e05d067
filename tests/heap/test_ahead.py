"""Growth of heaps that hold much: more than what was asked for is mapped at once, to be split."""

import itertools

import pytest

import memlimits
from memlimits._bindings.buffer import allocate_in
from support.blocks import place, private, strict
from support.kernel import wholly_mapped
from support.process import run
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.host]


def test_who_holds_little_maps_what_it_needs():
    allocator = private()
    held = [allocate_in(allocator, 64 * KIB) for _ in range(15)]
    assert allocator.counters()["footprint"] == sum(block.capacity for block in held)
    assert allocator.counters()["misses"] == 15


@pytest.mark.parametrize("n", [5000, 40 * KIB, 64 * KIB, 500 * KIB])
def test_who_holds_much_maps_a_quarter_more_at_most(n):
    allocator = private(memory_size=4 << 30)
    held = []
    while allocator.get_active_memory() < 200 * MIB:
        held.append(allocate_in(allocator, n))
        counters = allocator.counters()
        assert counters["cache"] <= min(counters["resources"] * 16 * KIB, 3 * MIB)
    assert counters["misses"] < counters["resources"] * (0.5 if n > 64 * KIB else 0.1)
    places = [place(block) for block in held]
    starts = sorted(places)
    assert all(a + m <= b for (a, m), (b, _) in itertools.pairwise(starts))
    for block in held:
        assert bytes(memoryview(block)[:64]) == bytes(64)
        memoryview(block)[:] = b"x" * n
    del block
    held.clear()
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0
    assert wholly_mapped(places) == []


def test_it_stands_in_the_way_of_nothing():
    limit = 100 * MIB
    allocator = strict(limit)
    held = []
    while allocator.get_active_memory() < limit:
        held.append(allocate_in(allocator, 64 * KIB))
        assert allocator.counters()["footprint"] <= limit
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 64 * KIB)
    assert allocator.get_active_memory() == limit
    assert allocator.counters()["cache"] == 0


def test_where_the_system_has_no_room_for_more_one_is_had():
    run("""
        held = [memlimits.allocate(64 << 10) for _ in range(1000)]
        mapped = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * MIB, mapped + 3 * MIB))
        memlimits.clear_cache()
        try:
            while True:
                held.append(memlimits.allocate(64 << 10))
        except MemoryError:
            pass
        mapped += 3 * MIB - int(open("/proc/self/statm").read().split()[0]) * 4096
        assert mapped < MIB, mapped
        assert memory.counters()["cache"] == 0
        consistent(len(held) * (64 << 10))
    """)
