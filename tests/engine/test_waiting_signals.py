"""A signal arrives while its thread waits for memory."""

import time

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.buffer import allocate_in
from support.patience import LIMIT, alarm, fill, within_10_ms
from support.units import MIB
from support.waiting import asking, waiting

pytestmark = pytest.mark.inside


def test_a_signal_whose_handler_raises_ends_the_wait_and_leaves_the_queue_intact():
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)

    def interrupt(*_):
        raise InterruptedError

    with asking(allocator) as threads:
        threads.ask(0, 40 * MIB)
        begin = time.monotonic()
        with alarm(interrupt), pytest.raises(InterruptedError):
            allocate_in(allocator, 60 * MIB)
        assert time.monotonic() - begin < 10  # the timeout is twice that
        assert allocator.counters()["waiting"] == 1
        threads.ask(1, 40 * MIB)
        held.release()
        threads.until_served(0)
        threads.finish(0)
        threads.until_served(0, 1)
    assert allocator.counters()["refusals"] == 0


def test_a_handler_that_returns_does_not_end_the_wait():
    allocator = waiting()
    held = [allocate_in(allocator, 40 * MIB), allocate_in(allocator, 8 * MIB)]
    with alarm(lambda *_: held.pop(0).release()):
        assert allocate_in(allocator, 40 * MIB).capacity == 40 * MIB


def test_what_a_handler_frees_is_had_at_once():
    def attempt():
        allocator = waiting()
        held = [allocate_in(allocator, 40 * MIB)]
        freed = []

        def handler(*_):
            held.pop().release()
            freed.append(time.monotonic())

        with alarm(handler, after=0.01):
            assert allocate_in(allocator, 40 * MIB).capacity == 40 * MIB
        return time.monotonic() - freed[0]

    assert within_10_ms(attempt)


def test_a_handler_may_allocate_while_its_thread_waits():
    allocator = waiting()
    held = [allocate_in(allocator, 40 * MIB)]
    sizes = []

    def handler(*_):
        sizes.append(allocate_in(allocator, 20 * MIB).capacity)
        allocator.set_memory_limit(LIMIT)
        held.clear()

    with alarm(handler):
        allocate_in(allocator, 60 * MIB)
    assert sizes == [20 * MIB]


def test_a_signal_ends_the_wait_for_a_small_block_on_a_budget(patient):
    def interrupt(*_):
        raise InterruptedError

    before = memory.counters()
    with fill(), memlimits.budget("b", limit=MIB) as budget, memlimits.reserve(0):
        with alarm(interrupt, after=0.02), pytest.raises(InterruptedError):
            memlimits.allocate(5000)
        assert budget.active == budget.peak == 0
    counters = memory.counters()
    assert counters["waiting"] == counters["reserved"] == 0
    assert counters["refusals"] == before["refusals"]


def test_a_signal_ends_the_wait_for_a_reservation(patient):
    def interrupt(*_):
        raise InterruptedError

    before = memory.counters()
    with fill():
        with alarm(interrupt, after=0.02), pytest.raises(InterruptedError):
            memlimits.reserve(MIB).__enter__()
        assert memory.counters()["reserved"] == 0
        assert memory.counters()["refusals"] == before["refusals"]
    assert memlimits.allocate(MIB).nbytes == MIB
