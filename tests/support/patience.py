"""The documented functions under the policy "wait"."""

import signal
import time
from contextlib import contextmanager

import memlimits
from memlimits import memory
from support.units import MIB

LIMIT = 64 * MIB


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def until_one_waits():
    until(lambda: memory.counters()["waiting"] == 1)


def within_10_ms(attempt):
    """Whether it is so once, of several times: the machine may be busy."""
    return any(attempt() < 0.01 for _ in range(100))


def fill():
    """All that is left of the memory limit."""
    return memlimits.allocate(memlimits.get_memory_limit() - memory.counters()["footprint"])


@contextmanager
def alarm(handler, after=0.1):
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
