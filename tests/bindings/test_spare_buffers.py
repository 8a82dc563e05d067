"""Buffers that are made of ones that are gone: they are as new, however they are asked for."""

import gc
import sys

import numpy
import pytest

import memlimits
from memlimits._bindings.allocator import Allocator, default_allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import Watched
from support.units import GIB, KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]


class Int(int):
    """An int that is not just an int."""


WAYS = {
    "int": memlimits.allocate,
    "keyword": lambda n: memlimits.allocate(nbytes=n),
    "not zeroed": lambda n: memlimits.allocate(n, zeroed=False),
    "zeroed": lambda n: memlimits.allocate(n, zeroed=True),
    "int64": lambda n: memlimits.allocate(numpy.int64(n)),
    "subclass": lambda n: memlimits.allocate(Int(n)),
    "allocator": lambda n: allocate_in(default_allocator(), n),
}


def drop():
    memlimits.allocate(1000)


def release():
    memlimits.allocate(1000).release()


def leave():
    with memlimits.allocate(1000):
        pass


def leave_a_view():
    with memlimits.allocate(1000) as buffer:
        view = memoryview(buffer)
    view.release()


def drop_nothing():
    memlimits.allocate(0)


def fail():
    limit = memlimits.set_memory_limit(0)
    policy = memlimits.set_memory_policy("strict")
    with pytest.raises(memlimits.MemoryLimitError):
        memlimits.allocate(GIB)
    memlimits.set_memory_policy(policy)
    memlimits.set_memory_limit(limit)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", [drop, release, leave, leave_a_view, drop_nothing, fail])
def test_a_buffer_made_of_another_is_as_new(way, end):
    for n in (0, 1, 1000, 64 * KIB, MIB, 2**30 - 1, 2**30, 2**30 + 1):
        WAYS[way](n)
        end()
        check(WAYS[way], n)


def check(allocate, n):
    active = memlimits.get_active_memory()
    new = object()
    buffer = allocate(n)
    assert (buffer.nbytes, len(buffer), bool(buffer.ptr)) == (n, n, n > 0)
    assert n <= buffer.capacity <= max(64, n * 9 // 8 + 4096)
    assert memlimits.get_active_memory() == active + buffer.capacity
    assert repr(buffer) == f"<memlimits.Buffer of {n} bytes at {buffer.ptr:#x}>"
    assert sys.getrefcount(buffer) == sys.getrefcount(new)
    with buffer:
        assert memoryview(buffer).nbytes == n
    del buffer
    assert memlimits.get_active_memory() == active


def test_more_buffers_than_are_kept_for_reuse():
    for _ in range(3):
        buffers = [memlimits.allocate(n) for n in range(1, 1001)]
        assert len(set(map(id, buffers))) == len({buffer.ptr for buffer in buffers}) == 1000
        for number, buffer in enumerate(buffers):
            memoryview(buffer)[:] = bytes([number % 251]) * buffer.nbytes
        for number, buffer in enumerate(buffers):
            assert bytes(buffer) == bytes([number % 251]) * (number + 1)


def test_a_zeroed_one_is_clean_after_a_dirty_one():
    for n in (64, 1000, 64 * KIB, 2 * MIB):
        memoryview(memlimits.allocate(n))[:] = b"\xff" * n
        assert bytes(memlimits.allocate(n, zeroed=True)) == bytes(n)


@pytest.mark.parametrize("argument", [True, False, numpy.True_, 1.0, b"1", None, -1, -(2**29)])
def test_what_is_no_size_is_refused_with_a_spare_buffer_at_hand(argument):
    drop()
    with pytest.raises((TypeError, ValueError), match="nbytes must be"):
        memlimits.allocate(argument)


@pytest.mark.parametrize("arguments", [(), (1, 2), (1, True)])
def test_wrong_numbers_of_arguments(arguments):
    drop()
    with pytest.raises(TypeError, match="exactly 1 positional argument"):
        memlimits.allocate(*arguments)
    with pytest.raises(TypeError, match="bytes"):
        memlimits.allocate(1, bytes=2)


@pytest.mark.parametrize("cache_limit", [0, None])
def test_an_exception_on_its_way_meets_a_buffer(cache_limit):
    """The interpreter drops what is on its stack while the exception is set."""
    memlimits.set_cache_limit(cache_limit)
    drop()
    active = memlimits.get_active_memory()
    for n in (1000, 8 * MIB):
        with pytest.raises(ZeroDivisionError) as caught:
            print(memlimits.allocate(n), memlimits.allocate(n, zeroed=True), 1 // 0)
        assert caught.value.__context__ is None
        assert memlimits.get_active_memory() == active


def test_spare_buffers_keep_no_other_allocator_open():
    held = [memlimits.allocate(1000) for _ in range(100)]  # so that there is room for spare ones
    allocator = Allocator(Device())
    buffers = [allocate_in(allocator, 8 * MIB) for _ in range(100)]
    watched = [Watched(buffer) for buffer in buffers]
    buffers.clear()
    assert allocator.get_cache_memory() == 800 * MIB
    del allocator
    gc.collect()
    assert all(one.gone for one in watched)
    del held
