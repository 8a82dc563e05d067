"""Threads that wait for memory, under the policy "wait"."""

import queue
import threading
import time
from contextlib import contextmanager

from memlimits._bindings.buffer import allocate_in
from support.blocks import private
from support.patience import LIMIT, until


def waiting(limit=LIMIT, timeout=20):
    allocator = private()
    allocator.set_memory_limit(limit)
    allocator.set_memory_policy("wait", timeout)
    return allocator


def until_waiting(allocator, count):
    until(lambda: allocator.counters()["waiting"] >= count)


class Asking:
    """Threads that each ask for a block, one after the other, and the order they are served in."""

    def __init__(self, allocator):
        self.allocator = allocator
        self.served = []
        self.served_at = 0
        self.errors = []
        self._sizes = {}
        self._go_on = {}
        self._threads = []

    def hold(self, name, size, **how):
        """Have a thread hold a block from now on; it may ask for another then."""
        self._start(name, size, how).wait(20)

    def ask(self, name, size):
        """Have a thread wait for a block of `size`."""
        waiters = self.allocator.counters()["waiting"]
        if name not in self._sizes:
            self._start(name, 0, {})
        self._sizes[name].put(size)
        until_waiting(self.allocator, waiters + 1)

    def _start(self, name, *holds):
        self._sizes[name], self._go_on[name] = queue.SimpleQueue(), threading.Event()
        ready = threading.Event()
        thread = threading.Thread(target=self._run, args=(name, ready, *holds), daemon=True)
        self._threads.append(thread)
        thread.start()
        return ready

    def _run(self, name, ready, holds, how):
        try:
            held = holds and allocate_in(self.allocator, holds, **how)
            ready.set()
            block = allocate_in(self.allocator, self._sizes[name].get(timeout=20))
            self.served_at = time.monotonic()
            self.served.append(name)
            assert self._go_on[name].wait(20)
            block.release()
            if held:
                held.release()
        except BaseException as error:
            self.errors.append((name, error))

    def finish(self, name):
        self._go_on[name].set()

    def until_served(self, *names):
        until(lambda: len(self.served) >= len(names) or self.errors)
        assert (self.served, self.errors) == (list(names), [])

    def join(self):
        for event in self._go_on.values():
            event.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        assert self.errors == []


@contextmanager
def asking(allocator):
    threads = Asking(allocator)
    yield threads
    threads.join()
    assert allocator.counters()["waiting"] == 0
