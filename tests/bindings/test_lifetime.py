"""When a block goes back, and that nothing stays behind."""

import gc
import sys
import threading
from contextlib import nullcontext

import numpy
import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import Watched, uncached
from support.dlpack import OldProducer
from support.kernel import writable
from support.metal import setting, stand_in
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture
def allocator():
    return uncached()


def test_the_last_reference_gives_the_block_back(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    alias = buffer
    del buffer
    assert not watched.gone
    del alias
    assert watched.gone


def test_a_buffer_in_a_cycle_is_collected(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    cycle = [buffer, memoryview(buffer)]
    cycle.append(cycle)
    del buffer, cycle
    gc.collect()
    assert watched.gone


def test_freed_on_another_thread(allocator):
    held = [allocate_in(allocator, 8 * MIB), allocate_in(allocator, 100)]
    watched = Watched(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert watched.gone
    allocator.clear_cache()
    assert allocator.get_active_memory() == 0


def test_a_buffer_keeps_its_allocator():
    allocator = Allocator()
    buffer = allocate_in(allocator, MIB)
    del allocator
    gc.collect()
    memoryview(buffer)[:] = b"\x11" * MIB
    assert bytes(buffer) == b"\x11" * MIB


class Node:
    """Something that can be part of a cycle."""


@pytest.mark.parametrize("first", ["buffer", "node"])
def test_buffers_in_reference_cycles_go_with_them(first):
    allocator = Allocator(Device())
    buffer = allocate_in(allocator, 100) if first == "buffer" else None
    node = Node()
    node.itself = node
    node.buffer = buffer or allocate_in(allocator, 100)
    node.view = memoryview(node.buffer)
    del buffer, node
    import gc

    gc.collect()
    assert allocator.get_active_memory() == 0


def with_views():
    with memlimits.allocate(100) as buffer:
        memoryview(buffer)[0] = 1


def fail_to_release():
    buffer = memlimits.allocate(100)
    view = memoryview(buffer)
    with pytest.raises(BufferError):
        buffer.release()
    view.release()


CYCLES = [
    lambda: memlimits.allocate(100),
    lambda: memlimits.allocate(100_000),
    lambda: memlimits.allocate(0),
    lambda: memoryview(memlimits.allocate(100)),
    lambda: numpy.frombuffer(memlimits.allocate(100), numpy.uint8),
    lambda: numpy.from_dlpack(memlimits.allocate(100)),
    lambda: numpy.from_dlpack(OldProducer(memlimits.allocate(100))),
    lambda: memlimits.allocate(100).__dlpack__(),
    lambda: memlimits.allocate(100).__dlpack__(max_version=(1, 0)),
    lambda: memlimits.allocate(100).__dlpack__(max_version=(1, 0), copy=True),
    with_views,
    fail_to_release,
]


def left_behind(cycle):
    """Blocks that CPython's allocator holds, and references that the types count."""
    gc.collect()
    before = sys.getallocatedblocks(), sys.getrefcount(memlimits.Buffer)
    for _ in range(400):
        cycle()
    gc.collect()
    after = sys.getallocatedblocks(), sys.getrefcount(memlimits.Buffer)
    return after[0] - before[0], abs(after[1] - before[1])


@pytest.mark.parametrize("cycle", CYCLES)
def test_nothing_is_left_behind(cycle):
    for _ in range(50):
        cycle()
    # The process has threads of the test runner's, which hold blocks of their own now and then.
    blocks, references = zip(*(left_behind(cycle) for _ in range(3)), strict=True)
    assert min(blocks) < 100
    assert min(references) < 10


def test_refused_allocations_leave_nothing_behind():
    allocator = Allocator()
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(0)

    def attempt():
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, 100)

    test_nothing_is_left_behind(attempt)


@pytest.fixture
def few_dead_kept():
    """The stand-in for Metal keeps released objects, to notice their use: by itself it grows."""
    with setting("dead_kept", 100) if stand_in() else nullcontext():
        yield


def test_the_process_does_not_grow(few_dead_kept):
    def cycle():
        for n in (100, 40_000, 3 * MIB):
            memoryview(memlimits.allocate(n, zeroed=True))[::PAGE] = b"\1" * -(-n // PAGE)
        memlimits.clear_cache()

    for _ in range(20):
        cycle()
    before = writable()
    for _ in range(200):
        cycle()
    # The page map may get a node, of 2 MiB; of the blocks the smallest resource takes 64 KiB.
    assert writable() - before < 4 * MIB < 200 * 64 * KIB
