"""The policy "wait": requests that do not fit wait for others to free memory."""

import gc
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import memlimits
from memlimits import memory
from memlimits._buffer import allocate_in
from support.functions import free, malloc, realloc
from support.process import run
from support.threads import run_threads
from support.units import MIB
from support.waiting import LIMIT, Asking, asking, until, until_waiting, waiting


@pytest.mark.core
def test_a_request_waits_until_another_thread_frees_enough():
    allocator = waiting()
    held = allocate_in(allocator, 40 * MIB)
    with asking(allocator) as threads:
        threads.ask("waits", 40 * MIB)
        assert threads.served == []
        held.release()
        threads.until_served("waits")
    counters = allocator.counters()
    assert (counters["waits"], counters["refusals"], counters["overruns"]) == (1, 0, 0)
    assert counters["waited_ns"] > 0


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


def within_10_ms(attempt):
    """Whether it is so once, of several times: the machine may be busy."""
    return any(attempt() < 0.01 for _ in range(100))


@pytest.mark.core
@pytest.mark.parametrize(("way", "count"), [("free", 2), ("limit", 2), ("policy", 6)])
def test_all_go_on_at_once(way, count):
    """Nobody waits for the next look, every 20 ms, to see what another thread did."""

    def attempt():
        allocator = waiting()
        held = allocate_in(allocator, 60 * MIB)
        with asking(allocator) as threads:
            for name in range(count):
                threads.ask(name, 8 * MIB)
            begin = time.monotonic()
            if way == "free":
                held.release()
            elif way == "limit":
                allocator.set_memory_limit(2 * LIMIT)
            else:
                allocator.set_memory_policy("guideline")
            until(lambda: len(threads.served) == count or threads.errors)
        return threads.served_at - begin

    assert within_10_ms(attempt)


@pytest.mark.core
def test_waiting_takes_no_processor():
    """Not even after a block came back that is not enough."""
    allocator = waiting(timeout=0.3)
    small = allocate_in(allocator, MIB)
    took = []

    def work():
        begin = time.thread_time()
        gc.collect()  # as the wait begins with, which may take long
        collecting = time.thread_time() - begin
        begin = time.thread_time()
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, 40 * MIB)
        took.append(time.thread_time() - begin - 2 * collecting)

    def free():
        until_waiting(allocator, 1)
        small.release()

    with allocate_in(allocator, 40 * MIB):
        run_threads(work, free)
    assert took[0] < 0.1


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


@pytest.mark.core
def test_the_time_is_up():
    allocator = waiting(timeout=0.1)
    held = allocate_in(allocator, 40 * MIB)
    begin = time.monotonic()
    with pytest.raises(memlimits.MemoryLimitError, match="after waiting for") as caught:
        allocate_in(allocator, 40 * MIB)
    assert 0.1 <= time.monotonic() - begin < 5
    assert (caught.value.blocked_by, caught.value.active) == ("limit", 40 * MIB)
    assert 0.1 <= caught.value.waited < 5
    counters = allocator.counters()
    assert (counters["waiting"], counters["refusals"], counters["waits"]) == (0, 1, 1)
    assert counters["footprint"] == 40 * MIB
    held.release()
    assert allocate_in(allocator, 40 * MIB).capacity == 40 * MIB


@pytest.mark.host
def test_a_clock_that_is_set_back_prolongs_no_wait(libc):
    run(
        """
        assert time.time() > time.clock_gettime(5) + 3000  # CLOCK_REALTIME_COARSE
        memlimits.set_memory_limit(8 * MIB)
        memlimits.set_memory_policy("wait", 0.05)
        assert refused_by(7 * MIB) is None
        with memlimits.allocate(6 * MIB):
            assert refused_by(6 * MIB) == "limit"
        """,
        words=("env", f"LD_PRELOAD={libc}"),
        timeout=20,
    )


@pytest.mark.core
def test_no_time_at_all():
    allocator = waiting(timeout=0)
    with allocate_in(allocator, 40 * MIB), pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 40 * MIB)
    assert caught.value.waited == 0
    assert allocator.counters()["waits"] == 0


@pytest.mark.core
def test_what_no_wait_can_help_is_refused_at_once():
    allocator = waiting()
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 1 << 60)
    assert (caught.value.blocked_by, caught.value.waited) == ("length", 0)


@pytest.mark.core
@pytest.mark.parametrize("way", ["limit", "policy"])
def test_a_setter_lets_them_go_on(way):
    allocator = waiting()
    with allocate_in(allocator, 40 * MIB), asking(allocator) as threads:
        threads.ask(0, 60 * MIB)
        threads.ask(1, 60 * MIB)
        if way == "limit":
            allocator.set_memory_limit(4 * LIMIT)
        else:
            allocator.set_memory_policy("guideline")
        until(lambda: len(threads.served) == 2)
    assert allocator.counters()["overruns"] == 2 * (way == "policy")


@pytest.mark.core
def test_under_strict_those_who_wait_are_refused():
    allocator = waiting()
    with allocate_in(allocator, 40 * MIB):
        threads = Asking(allocator)
        threads.ask("waits", 40 * MIB)
        allocator.set_memory_policy("strict")
        until(lambda: threads.errors)
    assert threads.errors[0][1].blocked_by == "limit"


@pytest.mark.core
def test_garbage_is_collected_first():
    allocator = waiting(timeout=0.2)
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    try:
        cycle = [allocate_in(allocator, 40 * MIB)]
        cycle.append(cycle)
        del cycle
        assert allocate_in(allocator, 40 * MIB).capacity == 40 * MIB
    finally:
        gc.set_threshold(*thresholds)
    assert allocator.counters()["waits"] == 0


@pytest.mark.core
@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_once_and_not_where_collecting_is_disabled(enabled):
    allocator = waiting(timeout=0.1)
    collections = []

    def note(phase, info):
        if phase == "start" and info["generation"] == 2:
            collections.append(info)

    with allocate_in(allocator, 40 * MIB):
        gc.callbacks.append(note)
        if not enabled:
            gc.disable()
        try:
            with pytest.raises(memlimits.MemoryLimitError):
                allocate_in(allocator, 40 * MIB)
        finally:
            gc.enable()
            gc.callbacks.remove(note)
    assert len(collections) == enabled


@pytest.mark.core
def test_the_footprint_stays_within_the_limit():
    allocator = waiting(limit=16 * MIB)
    highest = []
    done = threading.Event()

    def churn(seed):
        for i in range(60):
            size = ((i * seed) % 7 + 1) * MIB
            with allocate_in(allocator, size) as block:
                memoryview(block)[:1] = b"x"

    def watch():
        while not done.is_set():
            highest.append(allocator.counters()["footprint"])

    def all_of_them():
        run_threads(*(lambda seed=seed: churn(seed) for seed in (2, 3, 5, 11)))
        done.set()

    run_threads(watch, all_of_them)
    assert max(highest) <= 16 * MIB
    counters = allocator.counters()
    assert (counters["active"], counters["refusals"], counters["waiting"]) == (0, 0, 0)
    assert counters["peak"] <= 16 * MIB


# ---- signals ----


@contextmanager
def alarm(handler, after=0.1):
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


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


# ---- NumPy and C ----


@pytest.fixture
def patient():
    """The documented functions under this policy."""
    memlimits.clear_cache()
    memlimits.set_memory_limit(memlimits.get_active_memory() + LIMIT)
    memlimits.set_memory_policy("wait", timeout=20)


def until_one_waits():
    until(lambda: memory.counters()["waiting"] == 1)


def test_numpy_waits_without_the_gil_and_collects_no_garbage(patient, govern):
    held = [np.empty(40 * MIB, np.uint8)]
    collections = [info["collections"] for info in gc.get_stats()]

    def free():
        until_one_waits()
        held.clear()

    run_threads(free, lambda: np.empty(40 * MIB, np.uint8))
    assert memory.counters()["waits"] > 0
    assert [info["collections"] for info in gc.get_stats()] == collections


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


def fill():
    return memlimits.allocate(memlimits.get_memory_limit() - memory.counters()["footprint"])


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
        until(lambda: memory.counters()["waiting"] == 1)
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


def test_resizing_an_array_is_refused_at_once(patient, govern):
    """Others may read it meanwhile."""
    held = np.empty(30 * MIB, np.uint8)
    array = np.arange(20 * MIB, dtype=np.uint8)
    waits = memlimits.stats().waits
    with pytest.raises(MemoryError):
        array.resize(40 * MIB, refcheck=False)
    assert memlimits.last_refusal().waited == 0
    assert memlimits.stats().waits == waits
    assert np.array_equal(array[: 1 * MIB], np.arange(1 * MIB, dtype=np.uint8))
    del held
    array.resize(40 * MIB, refcheck=False)
    assert array.size == 40 * MIB


@pytest.mark.parametrize(
    ("n", "scope"), [("40 * MIB", "nullcontext()"), ("8000", "memlimits.budget('part')")]
)
def test_ctrl_c_ends_numpys_wait(n, scope):
    run(f"""
        from contextlib import nullcontext
        import numpy
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        with memlimits.govern_numpy():
            held = []
            for size in MIB, 40 << 10, 4096:
                while memlimits.would_fit(size):
                    held.append(memlimits.allocate(size))
            def interrupt():
                while memory.counters()["waiting"] == 0:
                    time.sleep(0.01)
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=interrupt, daemon=True).start()
            try:
                with {scope}:
                    numpy.empty({n}, numpy.uint8)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError
            assert memory.counters()["waiting"] == 0
            assert memory.counters()["refusals"] == 1
            assert 0.1 < memlimits.last_refusal().waited < 20
            held.clear()
            numpy.empty({n}, numpy.uint8)
    """)


@pytest.mark.host
def test_a_forked_child_waits_for_nobody():
    run("""
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        held = memlimits.allocate(40 * MIB)
        waiter = threading.Thread(target=lambda: memlimits.allocate(40 * MIB), daemon=True)
        waiter.start()
        while not memory.counters()["waiting"]:
            time.sleep(0.001)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # threads and a fork
            child = os.fork()
        if child == 0:
            assert memory.counters()["waiting"] == 0
            held.release()
            memlimits.allocate(50 * MIB)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        held.release()
        waiter.join(20)
        consistent()
    """)


# ---- the policy as a setting ----


def test_the_previous_policy_comes_back_with_its_timeout():
    assert memlimits.set_memory_policy("wait", timeout=1.5) == "guideline"
    previous = memlimits.set_memory_policy("strict")
    assert (previous, previous.timeout) == ("wait", 1.5)
    assert memlimits.set_memory_policy(previous) == "strict"
    assert memory.get_memory_policy() == "wait"
    assert memory.get_memory_policy().timeout == 1.5
    assert memlimits.set_memory_policy(previous, timeout=3) == "wait"
    assert memory.get_memory_policy().timeout == 3
    memlimits.set_memory_policy("wait")
    assert memory.get_memory_policy().timeout == 60


@pytest.mark.parametrize(
    ("policy", "timeout", "error", "message"),
    [
        ("wait", -1, ValueError, "timeout must be from 0 to 1000000000 seconds"),
        ("wait", float("inf"), ValueError, "not inf"),
        ("wait", float("nan"), ValueError, "not nan"),
        ("wait", 10**400, ValueError, "timeout must be from 0"),
        (
            "wait",
            "soon",
            TypeError,
            "timeout must be a number, in seconds, or None for 60 s, not 'soon'",
        ),
        ("wait", True, TypeError, "not True"),
        ("strict", 1, ValueError, "only the policy 'wait' takes a timeout"),
        ("guideline", 1, ValueError, "only the policy 'wait' takes a timeout"),
        ("WAIT", None, ValueError, "must be 'guideline', 'strict' or 'wait', not 'WAIT'"),
        (b"wait", None, TypeError, "not b'wait'"),
    ],
)
def test_what_is_no_policy_is_refused(policy, timeout, error, message):
    memlimits.set_memory_policy("wait", timeout=2)
    with pytest.raises(error, match=message):
        memlimits.set_memory_policy(policy, timeout)
    assert memory.get_memory_policy().timeout == 2


@pytest.mark.host
def test_under_wait_the_systems_room_is_waited_for():
    """Nobody tells of memory that another process frees: it is looked for now and then."""
    run(
        """
        memlimits.set_memory_policy("wait", timeout=0.3)
        memlimits.set_memory_limit(1 << 62)
        begin = time.monotonic()
        resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
        try:
            memlimits.allocate(memlimits.device_info()["max_buffer_length"])
        except memlimits.MemoryLimitError as error:
            assert error.blocked_by == "system", error
            assert error.waited >= 0.3
        else:
            raise AssertionError
        """
    )


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
