"""Allocators of the tests' own, and blocks of them."""

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.kernel import unmapped
from support.units import GIB, MIB, PAGE


def private(**capacities):
    """An allocator on a device of at most a GiB."""
    return Allocator(Device(**{"memory_size": GIB, **capacities}))


def strict(limit):
    return made_strict(private(), limit)


def made_strict(allocator, limit):
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(limit)
    return allocator


def uncut():
    """An allocator whose idle memory stays whole: it might be wired, though nothing is as short."""
    allocator = private()
    allocator.set_wired_limit(PAGE)
    return allocator


def with_room(allocator):
    """Once so much was in use that growth is far from having anything idle returned, or cut."""
    allocator.set_cache_limit(0)
    allocate_in(allocator, 200 * MIB).release()
    allocator.set_cache_limit(None)
    return allocator


def place(buffer):
    return buffer.ptr, buffer.capacity


def cycle(allocator, n):
    """Where a block lay that was had and given back."""
    (where,) = cycle_all(allocator, n)
    return where


def cycle_all(allocator, *sizes):
    """Where blocks lay that were had at once and given back, in this order."""
    blocks = [allocate_in(allocator, n) for n in sizes]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
    return places


def counts(allocator):
    """Every counter but the number of refusals."""
    counters = allocator.counters()
    counters.pop("refusals")
    return counters


def unwired(allocator):
    counters = allocator.counters()
    return tuple(
        counters[name]
        for name in (
            "wired_requested",
            "unwired_requested",
            "unwired_by_limit",
            "unwired_by_capacity",
        )
    )


def refusal_of(allocator, size):
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, size)
    return caught.value


class Watched:
    """A buffer's place, to ask the kernel about once the buffer may be gone."""

    def __init__(self, buffer):
        self.place = place(buffer)

    @property
    def gone(self):
        return unmapped(self.place)


def uncached():
    """An allocator that unmaps at once what is given back: the kernel then tells when it was."""
    allocator = Allocator()
    allocator.set_cache_limit(0)
    return allocator
