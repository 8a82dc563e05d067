"""No two live blocks share a byte, whoever allocates and frees."""

import bisect
import ctypes
import random
import struct
import threading
import time
from itertools import pairwise

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import place, private, strict
from support.kernel import wholly_mapped
from support.threads import run_threads
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]


class Ledger:
    """Every live block with a pattern of its own; no two of them may share a byte."""

    def __init__(self):
        self.lock = threading.Lock()
        self.starts = []
        self.ends = {}

    def add(self, buffer):
        start, end = buffer.ptr, buffer.ptr + buffer.capacity
        with self.lock:
            at = bisect.bisect(self.starts, start)
            assert at == 0 or self.ends[self.starts[at - 1]] <= start
            assert at == len(self.starts) or end <= self.starts[at]
            self.starts.insert(at, start)
            self.ends[start] = end

    def remove(self, buffer):
        with self.lock:
            del self.starts[bisect.bisect_left(self.starts, buffer.ptr)]
            del self.ends[buffer.ptr]


def churn(allocator, ledger, seed, steps):
    """Allocate, fill, check and free at random."""
    choose = random.Random(seed)
    held = []
    for step in range(steps):
        if held and choose.random() < 0.48:
            buffer, byte = held.pop(choose.randrange(len(held)))
            assert bytes(buffer) == bytes([byte]) * buffer.nbytes
            ledger.remove(buffer)
            buffer.release()
            continue
        n = int(2 ** choose.uniform(0, 20.5 if step % 20 == 0 else 15.5))
        zeroed = choose.random() < 0.3
        buffer = allocate_in(allocator, n, zeroed=zeroed)
        ledger.add(buffer)
        assert not zeroed or bytes(buffer) == bytes(n)
        byte = choose.randrange(1, 256)
        ctypes.memset(buffer.ptr, byte, buffer.capacity)
        held.append((buffer, byte))
        if step % 300 == 0:
            allocator.clear_cache()
    for buffer, byte in held:
        assert bytes(buffer) == bytes([byte]) * buffer.nbytes
        ledger.remove(buffer)


@pytest.mark.parametrize("cache_limit", [None, 0, MIB])
def test_blocks_never_overlap_and_keep_their_contents(cache_limit):
    allocator, ledger = Allocator(), Ledger()
    allocator.set_cache_limit(cache_limit)
    churn(allocator, ledger, seed=1, steps=3000)
    assert ledger.starts == []


def test_blocks_of_several_threads_never_overlap():
    allocator, ledger = Allocator(), Ledger()
    allocator.set_cache_limit(MIB)
    run_threads(*(lambda seed=seed: churn(allocator, ledger, seed, 1500) for seed in range(3)))


def test_live_blocks_do_not_overlap():
    allocator = private()
    rng = random.Random(7)
    blocks = [allocate_in(allocator, int(2 ** rng.uniform(0, 17))) for _ in range(1500)]
    rng.shuffle(blocks)
    del blocks[::2]
    blocks += [allocate_in(allocator, int(2 ** rng.uniform(0, 17))) for _ in range(1500)]
    places = sorted(place(block) for block in blocks)
    for (start, length), (following, _) in pairwise(places):
        assert start + length <= following
    assert wholly_mapped(places) == places


def test_two_threads_never_see_each_others_bytes():
    """Each block carries a stamp of its own at both ends for as long as it is held."""
    allocator = strict(4 * MIB)
    operations = []
    passed_on = []  # freed by the thread that did not allocate them

    def work(seed):
        rng = random.Random(seed)
        held, count, stamp = [], 0, seed << 48
        end = time.monotonic() + 0.7
        while count % 256 or time.monotonic() < end:
            count += 1
            at = rng.randrange(128)
            if at < len(held):
                block, mark = held[at]
                held[at] = held[-1]
                held.pop()
                n = block.nbytes
                assert struct.unpack_from("<Q", block, 0)[0] == mark
                assert struct.unpack_from("<Q", block, n - 8)[0] == mark
                if at == 0:
                    passed_on.append(block)
                    if len(passed_on) > 8:
                        passed_on.pop(0)
                continue
            n = 8 << rng.randrange(13)
            try:
                block = allocate_in(allocator, n)
            except memlimits.MemoryLimitError:
                continue
            stamp += 1
            struct.pack_into("<Q", block, 0, stamp)
            struct.pack_into("<Q", block, n - 8, stamp)
            held.append((block, stamp))
        operations.append(count)

    run_threads(lambda: work(1), lambda: work(2))
    passed_on.clear()
    assert sum(operations) > 10_000
    counters = allocator.counters()
    assert counters["active"] == counters["slack"] == counters["pending"] == 0
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == allocator.counters()["resources"] == 0
