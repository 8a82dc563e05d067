"""Waits on budgets, for reservations, and for blocks that are to be longer."""

import threading
import time
from contextlib import contextmanager

import pytest

import memlimits
from memlimits import memory
from support.functions import free, malloc, realloc
from support.patience import LIMIT, fill, until, until_one_waits, within_10_ms
from support.threads import run_threads
from support.units import MIB


def test_what_is_reserved_is_had_while_others_wait_for_it(patient):
    ready = threading.Event()
    waiting = []

    def holder():
        with memlimits.reserve(56 * MIB):
            ready.set()
            until_one_waits()
            assert memlimits.would_fit(20 * MIB)
            with memlimits.allocate(20 * MIB):
                waiting.append(memory.counters()["waiting"])

    def other():
        ready.wait()
        memlimits.allocate(40 * MIB).release()

    run_threads(holder, other)
    assert waiting == [1]


def test_what_is_reserved_may_be_what_the_first_waits_for(patient):
    """Who has it reserved, and needs more than that, goes ahead then."""
    served, ready = [], threading.Event()

    def first():
        with memlimits.allocate(MIB):
            assert ready.wait(20)
            with memlimits.allocate(40 * MIB):
                served.append("first")

    def second():
        with memlimits.reserve(36 * MIB):
            ready.set()
            until_one_waits()
            with memlimits.allocate(40 * MIB):
                served.append("second")

    held = memlimits.allocate(26 * MIB)

    def free():
        until(lambda: memory.counters()["waiting"] == 2)
        held.release()

    run_threads(first, second, free)
    assert served == ["second", "first"]


@contextmanager
def small_on_a_budget():
    with memlimits.budget("part"), memlimits.allocate(100):
        yield


@contextmanager
def small_of_a_budget_that_was_left():
    with memlimits.budget("part"):
        block = memlimits.allocate(100)
    with block:
        yield


@contextmanager
def large_on_a_budget():
    with memlimits.budget("part"), memlimits.allocate(MIB):
        yield


@pytest.mark.parametrize(
    ("holds", "n"),
    [
        (small_on_a_budget, 8 * MIB),
        (small_on_a_budget, 40_000),
        (small_of_a_budget_that_was_left, 8 * MIB),
        (large_on_a_budget, 100),
        (lambda: memlimits.reserve(MIB), 8 * MIB),
    ],
    ids=["small", "small, for a small one", "of a budget that was left", "large", "reserved"],
)
def test_what_is_on_an_account_is_held(patient, holds, n):
    """So a request that fits goes ahead of who holds nothing."""
    ready, served = threading.Event(), []
    held = memlimits.allocate(40 * MIB)

    def none():
        assert ready.wait(20)
        memlimits.allocate(40 * MIB).release()

    def holder():
        with holds():
            ready.set()
            until_one_waits()
            with memlimits.allocate(n):
                served.append(memory.counters()["waits"])
        held.release()

    waits = memory.counters()["waits"]
    run_threads(none, holder)
    assert served == [waits + 1]


def test_what_others_have_on_a_budget_is_not_held(patient):
    held = memlimits.allocate(40 * MIB)
    waits = memory.counters()["waits"]

    def none():
        memlimits.allocate(40 * MIB).release()

    def on_budget():
        until_one_waits()
        with memlimits.budget("part"):
            memlimits.allocate(5000).release()

    def let_go():
        until(lambda: memory.counters()["waiting"] == 2)
        held.release()

    with memlimits.budget("part"), memlimits.allocate(100):
        run_threads(none, on_budget, let_go)
    assert memory.counters()["waits"] == waits + 2


def test_who_waits_goes_on_once_a_reservation_ends(patient):
    def attempt():
        served = []

        def work():
            block = memlimits.allocate(8 * MIB)
            served.append(time.monotonic())
            block.release()

        reservation = memlimits.reserve(LIMIT)
        with reservation:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            until_one_waits()
            begin = time.monotonic()
        thread.join(20)
        return served[0] - begin

    assert within_10_ms(attempt)


def test_who_waited_for_a_small_block_on_a_budget_takes_from_its_own_heap_again(patient):
    held = [fill()]

    def free():
        until_one_waits()
        held.clear()

    def work():
        with memlimits.budget("b") as budget:
            charged = memlimits.allocate(5000)
            assert budget.active == charged.capacity
        slabs = memlimits.stats().slabs
        assert memlimits.allocate(5000).capacity == charged.capacity
        assert memlimits.stats().slabs == slabs + 1  # not a piece of what the other is of

    run_threads(free, work)


@pytest.mark.parametrize("way", ["resize", "reserve"])
def test_who_needs_less_waits_behind_who_needs_more(patient, way):
    held = [memlimits.allocate(30 * MIB)]
    ready = threading.Event()

    def first():
        with memlimits.allocate(MIB):
            assert ready.wait(20)
            memlimits.allocate(40 * MIB).release()

    def second():
        address = malloc(20 * MIB)
        ready.set()
        until_one_waits()
        if way == "resize":
            address = realloc(address, 24 * MIB)
        else:
            with memlimits.reserve(4 * MIB):
                pass
        free(address)

    def let_go():
        until(lambda: memory.counters()["waiting"] == 2)
        held.pop().release()

    run_threads(first, second, let_go)
