"""The policy "wait": requests that do not fit wait for others to free memory."""

import gc
import threading
import time

import pytest

import memlimits
from memlimits._bindings.buffer import allocate_in
from support.patience import LIMIT, until, within_10_ms
from support.process import run
from support.threads import run_threads
from support.units import MIB, peak_bound
from support.waiting import Asking, asking, until_waiting, waiting

pytestmark = pytest.mark.inside


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
    assert counters["peak"] <= peak_bound(16 * MIB, threads=5)


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
