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
from support.units import MIB

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
    """Write all of a block, keep it for a while, find it as it was left; for how long."""
    start = time.monotonic()
    pages = np.frombuffer(block, np.uint8)[::4096]
    pages[:] = mark
    time.sleep(HOLD)
    assert (pages == mark).all()
    return time.monotonic() - start


def with_allocate(mark):
    with memlimits.allocate(BLOCK) as block:
        return hold(block, mark)


def with_numpy(mark):
    return hold(np.empty(BLOCK, np.uint8), mark)


def with_zeros(mark):
    array = memlimits.zeros(BLOCK, np.uint8)
    assert not array[::4096].any()
    return hold(array, mark)


class Footprints(threading.Thread):
    """Looks at the footprint until it is told to stop."""

    def __init__(self):
        super().__init__()
        self.highest = 0
        self.done = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self.done.wait(0.0005):
            self.highest = max(self.highest, memory.counters()["footprint"])

    def __exit__(self, *_):
        self.done.set()
        self.join()


def check(limit, work):
    """Have the threads work; return how long that took."""
    before = resident()
    counters = memory.counters()
    with watched("RssAnon") as watcher, Footprints() as footprints:
        start = time.monotonic()
        work()
        took = time.monotonic() - start
    after = memory.counters()
    assert footprints.highest <= limit
    assert footprints.highest > limit - BLOCK
    # Stacks and the like are less than a block.
    assert watcher.highest - before < FITTING * BLOCK + BLOCK // 2
    assert (after["waiting"], after["active"]) == (0, counters["active"])
    assert after["waits"] > counters["waits"]
    assert after["peak"] <= limit
    return took


def rounds(function, number):
    """How long its blocks were had, added up."""
    return sum([function(number * ROUNDS + i + 1) for i in range(ROUNDS)])


@pytest.mark.parametrize("function", [with_allocate, with_numpy, with_zeros])
def test_all_finish_and_leave_no_room_idle(function, limit):
    had = []

    def work():
        run_threads(*(lambda n=n: had.append(rounds(function, n)) for n in range(THREADS)))

    refusals = memory.counters()["refusals"]
    with memlimits.govern_numpy():
        took = check(limit, work)
    # Of the two blocks that fit more than one is had, whatever the machine takes for a round.
    assert 1.25 < sum(had) / took <= FITTING
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
