"""Scopes that nobody can leave any more end: a signal's exception may come before their block."""

import contextvars
import gc
import signal
import time
from contextlib import suppress

import pytest

import memlimits
from memlimits import memory
from support.functions import free, malloc, realloc
from support.governed import owner_here
from support.threads import in_thread
from support.units import MIB

KINDS = {
    "limits": lambda: memlimits.limits(memory=64 * MIB),
    "budget": lambda: memlimits.budget("lost", limit=MIB),
    "reserve": lambda: memlimits.reserve(MIB),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def in_force():
    """What any of them would change: the limit, what is reserved, whether a budget is open here.

    And who allocates for NumPy.
    """
    counters = memory.counters()
    return (
        memlimits.get_memory_limit(),
        counters["reserved"],
        memlimits.would_fit(2 * MIB).blocked_by,
        owner_here(),
    )


@pytest.fixture(autouse=True)
def nothing_is_in_force_afterwards():
    before = in_force()
    yield
    assert in_force() == before


class Interrupt(Exception):  # noqa: N818 - nobody else raises it
    pass


@pytest.mark.parametrize(
    "make", [*KINDS.values(), lambda: memlimits.govern_numpy()], ids=[*KINDS, "govern_numpy"]
)
def test_whenever_a_signal_comes(make):
    """Python 3.11 may forget one for a while: no loop waits for it, and a late one is no error."""
    end = time.monotonic() + 0.3

    def interrupt(*_):
        if time.monotonic() < end:
            raise Interrupt

    def until_one_comes():
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while time.monotonic() < end:
            with make():
                pass

    before = in_force()
    previous = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # whose callbacks, of the test runner's, would ignore it
    try:
        while time.monotonic() < end:
            with suppress(Interrupt):
                until_one_comes()
            assert in_force() == before
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@kinds
def test_one_that_is_dropped_is_left(make):
    before = in_force()
    make().__enter__()
    assert in_force() == before


@kinds
def test_one_that_could_be_left_is_not(make):
    """What the interpreter keeps for a block is enough."""
    before = in_force()
    leave = make().__enter__().__exit__
    gc.collect()
    assert in_force() != before
    leave(None, None, None)
    assert in_force() == before


@kinds
def test_one_of_a_cycle_is_left_when_that_is_collected(make):
    before = in_force()
    cycle = [make()]
    cycle[0].__enter__()
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert in_force() == before


@pytest.mark.host
@kinds
def test_one_is_left_whose_token_the_collector_clears_before(make):
    before = in_force()
    scope = make()
    scope.__enter__()  # its token is older than the list, and is cleared before it
    cycle = [scope]
    cycle.append(cycle)
    del scope, cycle
    gc.collect()
    assert in_force() == before
    # While an account is open in any context a block is charged anew, so it moves.
    address = malloc(4 * MIB)
    shorter = realloc(address, MIB)
    free(shorter)
    assert shorter == address


@kinds
def test_one_that_is_dropped_in_another_context_is_left(make):
    """And in the one that it was opened in, which lives on."""
    context = contextvars.Context()
    outside, inside = in_force(), context.run(in_force)
    held = [context.run(make().__enter__)]
    in_thread(held.clear)
    assert (in_force(), context.run(in_force)) == (outside, inside)


def test_those_that_are_open_inside_a_lost_one_stay():
    first, lost, inner = (memlimits.budget(name, limit=4 * MIB) for name in ("1", "2", "3"))
    with first:
        lost.__enter__()
        with inner:
            del lost
            block = memlimits.allocate(MIB)
            assert inner.active == MIB
            # Until this one is left, what is charged to it is charged to the lost one, too.
            assert not memlimits.would_fit(4 * MIB)
        assert memlimits.would_fit(3 * MIB)
        with memlimits.allocate(MIB):
            assert (inner.active, first.active) == (MIB, 2 * MIB)
        block.release()
    assert {"1", "1/2", "1/2/3"} <= {budget["name"] for budget in memory.budgets()}


def test_a_lost_reservation_can_be_had_by_others_at_once():
    context = contextvars.copy_context()
    held = [context.run(memlimits.reserve(MIB).__enter__)]
    assert memory.counters()["reserved"] == MIB
    held.clear()
    assert memory.counters()["reserved"] == 0
    block = context.run(memlimits.allocate, MIB)
    assert memory.counters()["reserved"] == 0
    block.release()
    assert memory.counters()["reserved"] == 0


def test_what_tasks_copied_of_a_lost_one_stays_as_when_it_is_left():
    """Where it is lost in its own context, as a signal does it."""
    budget = memlimits.budget("copied", limit=MIB)
    budget.__enter__()
    context = contextvars.copy_context()
    del budget
    assert memlimits.would_fit(2 * MIB)
    assert context.run(memlimits.would_fit, 2 * MIB).blocked_by == "budget"
