"""Threads that all do the same things to the same objects, as fast as they can."""

import itertools
import re
import sys
import threading
import time
from contextlib import contextmanager

from support.threads import run_threads

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

# Where there is a GIL a thread is rarely interrupted at a place that matters.
ROUNDS = 200 if GIL else 1500
# Without it all are to be inside at once for a while, however short a call is.
SECONDS = 0 if GIL else 0.3


def storm(*functions, rounds=ROUNDS, seconds=SECONDS):
    """Call each function at least so many times and so long on a thread of its own, all at once."""
    together = threading.Barrier(len(functions))

    def repeated(function):
        def steps():
            together.wait()
            end = time.monotonic() + seconds
            for done in itertools.count():
                if done >= rounds and time.monotonic() >= end:
                    break
                function()

        return steps

    with _short_turns():
        run_threads(*map(repeated, functions))


@contextmanager
def _short_turns():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def allowed(kind, match):
    """Inside nothing is raised, or this."""
    try:
        yield
    except kind as error:
        if not re.search(match, str(error)):
            raise


class Ledger:
    """Values that threads add, each in one step."""

    def __init__(self):
        self._lock = threading.Lock()
        self.values = []

    def add(self, value):
        with self._lock:
            self.values.append(value)

    def take(self):
        with self._lock:
            return self.values.pop() if self.values else None
