"""Reservations: what is kept for whom; and what would fit."""

import threading
from contextlib import suppress

import pytest

import memlimits
from memlimits import memory
from support.accounts import refusal_elsewhere
from support.process import run
from support.threads import in_thread, run_threads
from support.units import MIB


@pytest.mark.core
def test_reserved_room_is_the_threads_own(strict):
    with memlimits.reserve(40 * MIB) as reservation:
        assert refusal_elsewhere(30 * MIB) == "reservation"
        assert refusal_elsewhere(20 * MIB) is None
        with memlimits.allocate(40 * MIB):
            assert reservation.remaining == 0
        # What is freed inside can be had again.
        assert refusal_elsewhere(30 * MIB) == "reservation"
        held = memlimits.allocate(30 * MIB)
    assert reservation.remaining == 0
    assert refusal_elsewhere(30 * MIB) is None
    assert held.nbytes == 30 * MIB


@pytest.mark.core
def test_a_reservation_ends_with_the_thread_that_did_not_leave_it(strict):
    blocks = []

    def forget():
        reservation = memlimits.reserve(40 * MIB).__enter__()
        blocks.append(memlimits.allocate(MIB))
        assert reservation.remaining == 39 * MIB
        assert memory.counters()["reserved"] == 39 * MIB

    in_thread(forget)
    assert memory.counters()["reserved"] == 0
    assert memlimits.would_fit(63 * MIB)
    blocks.clear()
    assert memory.counters()["reserved"] == 0


@pytest.mark.core
def test_idle_memory_is_no_room_for_others(strict):
    """It serves their requests as long as the reserved bytes are there besides it."""
    memlimits.allocate(60 * MIB).release()
    with memlimits.reserve(40 * MIB):
        assert memory.counters()["footprint"] <= 24 * MIB
        assert memlimits.allocate(40 * MIB).nbytes


@pytest.mark.core
def test_threads_that_race_for_room_never_get_what_is_reserved(strict):
    done = threading.Event()

    def others():
        while not done.is_set():
            for n in (3, 7, 11):
                with suppress(memlimits.MemoryLimitError):
                    memlimits.allocate(n * MIB).release()

    def owner():
        try:
            for _ in range(50):
                with memlimits.reserve(48 * MIB):
                    blocks = [memlimits.allocate(8 * MIB) for _ in range(6)]
                    del blocks
        finally:
            done.set()

    memlimits.set_memory_policy("wait", timeout=20)
    run_threads(owner, others, others)


@pytest.mark.core
def test_a_reservation_waits_under_wait(strict):
    memlimits.set_memory_policy("wait", timeout=20)
    held = [memlimits.allocate(40 * MIB)]

    def free():
        while memory.counters()["waiting"] == 0:
            pass
        held.clear()

    def reserve():
        with memlimits.reserve(50 * MIB):
            assert memlimits.would_fit(50 * MIB)

    run_threads(free, reserve)


def test_what_is_reserved_counts_towards_the_systems_room():
    """The policy lets others pass the limit; but not what the system would need."""
    run("""
        # Not above what is available now.
        room = proc("MemAvailable", "/proc/meminfo")
        with memlimits.reserve(room // 4 * 3) as reservation:
            assert refused_by(0) is None
            answer = []
            thread = threading.Thread(target=lambda: answer.append(refused_by(room // 2)))
            thread.start()
            thread.join()
            assert answer == ["system"], answer
            assert reservation.remaining == room // 4 * 3
    """)


@pytest.mark.core
def test_more_than_the_limit_cannot_be_reserved(strict):
    before = memory.counters()
    for policy in ("strict", "guideline", "wait"):
        memlimits.set_memory_policy(policy)
        with pytest.raises(memlimits.MemoryLimitError) as caught, memlimits.reserve(65 * MIB):
            pass
        assert caught.value.blocked_by == "limit"
    after = memory.counters()
    assert after.pop("refusals") == before.pop("refusals") + 3
    assert after == before


@pytest.mark.core
def test_would_fit_says_what_blocks(strict):
    assert memlimits.would_fit(64 * MIB)
    answer = memlimits.would_fit(65 * MIB)
    assert not answer
    assert (answer.nbytes, answer.blocked_by) == (65 * MIB, "limit")
    assert memlimits.would_fit(1 << 62).blocked_by == "max_buffer_length"
    with memlimits.budget("b", limit=MIB):
        assert memlimits.would_fit(2 * MIB).blocked_by == "budget"
    with memlimits.budget("b", limit=0):
        assert memlimits.would_fit(0)
        assert memlimits.allocate(0).nbytes == 0
    with memlimits.reserve(60 * MIB):
        assert memlimits.would_fit(60 * MIB)
        answer = in_thread(lambda: memlimits.would_fit(5 * MIB))
        assert answer.blocked_by == "reservation"
    assert memlimits.would_fit(0)
    with pytest.raises(AttributeError):
        answer.nbytes = 1


@pytest.mark.core
def test_would_fit_takes_nothing(strict):
    held = memlimits.allocate(40 * MIB)
    before = memory.counters()
    for n in (1, 100, MIB, 24 * MIB, 25 * MIB, 1 << 50):
        memlimits.would_fit(n)
    assert memory.counters() == before
    assert held.nbytes
