"""Idle memory to be trimmed."""

from memlimits._bindings.buffer import allocate_in
from support.blocks import place
from support.units import MIB


def idle(allocator, *sizes):
    """Blocks of these sizes in the cache, the first the oldest; where they lie. In MiB."""
    blocks = [allocate_in(allocator, n * MIB) for n in sizes]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
        allocator.reset_peak_memory()  # a stop: ages are told apart
    return places
