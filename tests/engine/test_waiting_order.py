"""Who is served first of those who wait: in turn, but who holds memory before who holds none."""

import threading

import pytest

from memlimits._bindings.buffer import allocate_in
from support.patience import LIMIT, until
from support.process import run
from support.threads import run_threads
from support.units import MIB
from support.waiting import asking, until_waiting, waiting

pytestmark = pytest.mark.inside


@pytest.mark.core
def test_requests_are_served_in_the_order_of_their_arrival():
    allocator = waiting()
    held = allocate_in(allocator, LIMIT)
    with asking(allocator) as threads:
        for name in range(5):
            threads.ask(name, 40 * MIB)
        held.release()
        for name in range(5):
            threads.until_served(*range(name + 1))
            threads.finish(name)


@pytest.mark.core
def test_small_requests_do_not_starve_a_large_one():
    """They come after it, though idle blocks of their size are there and would fit."""
    allocator = waiting()
    small = [allocate_in(allocator, 4 * MIB) for _ in range(16)]
    with asking(allocator) as threads:
        threads.ask("large", 32 * MIB)
        for name in range(3):
            small.pop().release()
            threads.ask(name, 4 * MIB)
        assert threads.served == []
        for _ in range(5):
            small.pop().release()
        until(lambda: threads.served == ["large"])
        assert allocator.counters()["waiting"] == 3
        del small[:]
        until(lambda: len(threads.served) == 4)
        assert sorted(threads.served[1:]) == [0, 1, 2]


@pytest.mark.core
def test_who_holds_memory_goes_ahead_of_who_holds_none():
    """What the others wait for may be theirs to free."""
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)
    with asking(allocator) as threads:
        threads.ask("none", 56 * MIB)
        # A request that fits goes by at once, if its thread holds memory.
        assert allocate_in(allocator, 8 * MIB).capacity
        assert allocator.counters()["waits"] == 1
        threads.ask("none, too", 30 * MIB)
        held.release()
        until(lambda: threads.served == ["none"])
        threads.finish("none")

    held = allocate_in(allocator, 32 * MIB)
    with asking(allocator) as threads:
        first = threading.Event()

        def holder():
            with allocate_in(allocator, 16 * MIB):
                first.set()
                until_waiting(allocator, 1)
                with allocate_in(allocator, 40 * MIB):
                    threads.served.append("holder")

        thread = threading.Thread(target=holder, daemon=True)
        thread.start()
        assert first.wait(20)
        threads.ask("none", 48 * MIB)
        until_waiting(allocator, 2)
        held.release()
        until(lambda: len(threads.served) == 2)
        assert threads.served == ["holder", "none"]
        thread.join(20)


@pytest.mark.core
@pytest.mark.parametrize(("size", "wired"), [(MIB, False), (100, False), (MIB, True)])
def test_whatever_it_holds(size, wired):
    allocator = waiting()
    held = allocate_in(allocator, 50 * MIB)
    with asking(allocator) as threads:
        threads.hold("holder", size, wired=wired)
        threads.ask("none", 40 * MIB)
        threads.ask("holder", 40 * MIB)
        held.release()
        threads.until_served("holder")
        threads.finish("holder")
        threads.until_served("holder", "none")


@pytest.mark.core
def test_who_holds_all_that_the_first_waits_for_does_not_wait_for_it():
    """They would wait for each other, though what is asked for is there."""
    allocator = waiting()
    with asking(allocator) as threads, allocate_in(allocator, 50 * MIB):
        threads.hold("little", MIB)
        threads.ask("little", 40 * MIB)
        assert allocate_in(allocator, MIB).capacity
        assert allocator.counters()["waits"] == 1
    assert threads.served == ["little"]


@pytest.mark.core
def test_who_holds_all_that_the_first_waits_for_goes_ahead_once_its_request_fits():
    allocator = waiting()
    held = allocate_in(allocator, 8 * MIB)
    with asking(allocator) as threads:
        threads.hold("little", MIB)
        threads.hold("much", 54 * MIB)
        threads.ask("little", 40 * MIB)
        threads.ask("much", 2 * MIB)
        held.release()
        threads.until_served("much")
        threads.finish("much")
        threads.until_served("much", "little")


@pytest.mark.core
def test_those_who_together_hold_what_the_first_waits_for_go_ahead_of_it():
    """None of them could go on otherwise. Before that, each waits in line."""
    allocator = waiting()
    held = allocate_in(allocator, 13 * MIB)
    with asking(allocator) as threads:
        threads.hold("little", MIB)
        for name in (1, 2, 3):
            threads.hold(name, 16 * MIB)
        threads.ask("little", 20 * MIB)
        for name in (1, 2, 3):
            assert threads.served == []
            threads.ask(name, 4 * MIB)
        held.release()
        until(lambda: len(threads.served) == 3)
        assert sorted(threads.served) == [1, 2, 3]
        threads.finish(2)
        threads.until_served(*threads.served[:3], "little")


@pytest.mark.core
def test_those_who_hold_memory_are_served_in_the_order_of_their_arrival():
    """The second would fit at once."""
    allocator = waiting()
    held = allocate_in(allocator, 50 * MIB)
    with asking(allocator) as threads:
        for name in (1, 2):
            threads.hold(name, MIB)
        threads.ask(1, 40 * MIB)
        threads.ask(2, 4 * MIB)
        assert threads.served == []
        held.release()
        until(lambda: len(threads.served) == 2)


@pytest.mark.core
def test_what_a_thread_gave_back_it_does_not_take_again_before_those_who_wait():
    allocator = waiting()
    held = allocate_in(allocator, 50 * MIB)
    ready = threading.Event()
    with asking(allocator) as threads:

        def work():
            with allocate_in(allocator, MIB):
                idle = [allocate_in(allocator, MIB // 2) for _ in range(16)]
                ready.set()
                until_waiting(allocator, 1)
                for block in idle:
                    block.release()
                with allocate_in(allocator, MIB // 2):
                    threads.served.append("second")

        def others():
            assert ready.wait(20)
            threads.ask("first", 40 * MIB)
            until_waiting(allocator, 2)
            assert threads.served == []
            held.release()
            until(lambda: len(threads.served) == 2)

        threads.hold("first", MIB)
        run_threads(work, others)


@pytest.mark.core
def test_pieces_of_slabs_that_stay_are_given_while_others_wait():
    """Nobody else could have had their bytes."""
    allocator = waiting()
    held = allocate_in(allocator, 60 * MIB)
    with allocate_in(allocator, 100), asking(allocator) as threads:
        threads.ask("waits", 32 * MIB)
        allocate_in(allocator, 100).release()
        assert allocator.counters()["waits"] == 1
        held.release()


@pytest.mark.parametrize("holds", [0, MIB])
def test_what_others_wait_for_would_not_fit(holds):
    """Unless this thread holds memory and they do not: then it goes ahead of them."""
    run(
        f"""
        def look():
            held = {holds} and memlimits.allocate({holds})
            for turn in (first, second):
                turn.acquire()
                answers.append(memlimits.would_fit(4 * MIB).blocked_by)
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=10)
        answers = []
        first, second = threading.Semaphore(0), threading.Semaphore(0)
        block = memlimits.allocate(32 * MIB)
        looks = threading.Thread(target=look, daemon=True)
        waits = threading.Thread(target=lambda: memlimits.allocate(48 * MIB), daemon=True)
        looks.start(); first.release()
        while not answers: time.sleep(0.001)
        waits.start()
        while memlimits.stats().waiting == 0: time.sleep(0.001)
        second.release(); looks.join()
        block.release(); waits.join()
        assert answers == [None, None if {holds} else "queue"], answers
        """
    )
