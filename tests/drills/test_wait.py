"""Eight threads that share room for two blocks: all finish within the limit, and use the room."""

import signal
import threading
import time

import numpy as np
import pytest

import memlimits
from memlimits import memory
from support.kernel import resident
from support.process import watched
from support.threads import run_threads
from support.units import MIB, peak_bound

pytestmark = pytest.mark.host

BLOCK = 32 * MIB
FITTING, THREADS, ROUNDS = 2, 8, 10
HOLD = 0.05  # seconds


def interrupt(*_):
    raise InterruptedError


@pytest.fixture
def limit():
    """Room for two blocks more than there are, and for what their threads compute with NumPy."""
    memlimits.clear_cache()
    limit = memory.counters()["footprint"] + FITTING * BLOCK + MIB
    memlimits.set_memory_limit(limit)
    memlimits.set_memory_policy("wait", timeout=20)
    return limit


def hold(block, mark):
    """Write all of a block, keep it for a while, find it as it was left."""
    pages = np.frombuffer(block, np.uint8)[::4096]
    pages[:] = mark
    time.sleep(HOLD)
    assert (pages == mark).all()


def with_allocate(mark):
    with memlimits.allocate(BLOCK) as block:
        hold(block, mark)


def with_numpy(mark):
    hold(np.empty(BLOCK, np.uint8), mark)


def with_zeros(mark):
    array = memlimits.zeros(BLOCK, np.uint8)
    assert not array[::4096].any()
    hold(array, mark)


class Watcher(threading.Thread):
    """Looks at the counters until it is told to stop."""

    def __init__(self, active):
        super().__init__()
        self.full = active + FITTING * BLOCK
        self.highest = self.looks = self.looks_when_full = 0
        self.done = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self.done.wait(0.0005):
            counters = memory.counters()
            self.highest = max(self.highest, counters["footprint"])
            self.looks += 1
            self.looks_when_full += counters["active"] >= self.full

    def __exit__(self, *_):
        self.done.set()
        self.join()


def check(limit, work):
    """Have the threads work; return for what share of the time all room was had."""
    before = resident()
    counters = memory.counters()
    with watched("RssAnon") as kernel, Watcher(counters["active"]) as watcher:
        work()
    after = memory.counters()
    assert watcher.highest <= limit
    assert watcher.highest > limit - BLOCK
    # Stacks and the like are less than a block.
    assert kernel.highest - before < FITTING * BLOCK + BLOCK // 2
    assert (after["waiting"], after["active"]) == (0, counters["active"])
    assert after["waits"] > counters["waits"]
    assert after["peak"] <= peak_bound(limit, THREADS + 1)
    return watcher.looks_when_full / watcher.looks


def rounds(function, number):
    for i in range(ROUNDS):
        function(number * ROUNDS + i + 1)


@pytest.mark.parametrize("function", [with_allocate, with_numpy, with_zeros])
def test_all_finish_and_leave_no_room_idle(function, limit):
    def work():
        run_threads(*(lambda n=n: rounds(function, n) for n in range(THREADS)))

    refusals = memory.counters()["refusals"]
    with memlimits.govern_numpy():
        full = check(limit, work)
    # One at a time it would be none, whatever the machine takes for a round.
    assert full > 0.25
    assert memory.counters()["refusals"] == refusals


def test_interrupted_waits_leave_the_queue_intact(limit):
    """The main thread asks for all there is, and is interrupted again and again."""
    interrupted = []

    def wait_in_vain(done):
        while not done.is_set():
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                # All of it at once is not to be had soon.
                memlimits.allocate(FITTING * BLOCK).release()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except InterruptedError:
                interrupted.append(True)

    def work():
        done = threading.Event()
        failures = []

        def others():
            try:
                run_threads(*(lambda n=n: rounds(with_allocate, n) for n in range(THREADS)))
            except BaseException as failure:
                failures.append(failure)
            done.set()

        thread = threading.Thread(target=others)
        thread.start()
        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            wait_in_vain(done)
        finally:
            signal.signal(signal.SIGALRM, previous)
            thread.join()
        assert not failures

    check(limit, work)
    assert len(interrupted) > 10
    # And the room is there again, at once.
    with memlimits.allocate(FITTING * BLOCK):
        pass
