"""Threads that allocate and free, and an account of what they asked for and got."""

import random
import threading
import time
from array import array

import memlimits
from memlimits._bindings.buffer import allocate_in


class Ledger:
    """What threads asked for and got: at every instant `low <= active <= high`.

    A thread counts a block in `high` before it asks, and in `low` once it has it.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.low = self.high = self.highest_low = self.blocks = 0
        self.highs = array("q", [0])

    def _add(self, low, high):
        with self.lock:
            self.low += low
            self.high += high
            self.highest_low = max(self.highest_low, self.low)
            self.highs.append(self.high)
            return len(self.highs) - 1

    def asking(self, n):
        return self._add(0, n)

    def got(self, n):
        self._add(n, 0)
        with self.lock:
            self.blocks += 1

    def giving(self, n):
        return self._add(-n, 0)

    def gave(self, n):
        return self._add(0, -n)

    def got_more(self, mark, n):
        """What was asked for at `mark` turned out this much longer: it was so since then."""
        with self.lock:
            self.high += n
            for i in range(mark, len(self.highs)):
                self.highs[i] += n

    def span_since(self, mark):
        with self.lock:
            return slice(mark, len(self.highs))

    def highest(self, span):
        """Right once the threads have ended: until then what they got may turn out longer."""
        return max(self.highs[span])


def churn(allocator, ledger, sizes, seed, seconds, keep=6, on_refusal=None, each=None):
    """Allocate and free blocks of the sizes, in random order."""
    rng = random.Random(seed)
    held = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(held) < keep and rng.random() < 0.6:
            n = rng.choice(sizes)
            mark = ledger.asking(n)
            try:
                block = allocate_in(allocator, n)
            except memlimits.MemoryLimitError as error:
                on_refusal(error, ledger.span_since(mark))
                ledger.gave(n)
                continue
            ledger.got(block.capacity)
            if block.capacity > n:
                ledger.got_more(mark, block.capacity - n)
            held.append(block)
            if each:
                each(block)
        elif held:
            block = held.pop(rng.randrange(len(held)))
            n = block.capacity
            ledger.giving(n)
            block.release()
            ledger.gave(n)
    for block in held:
        ledger.giving(block.capacity)
        block.release()
        ledger.gave(block.capacity)
