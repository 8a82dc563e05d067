"""malloc, calloc, realloc and free, called from extensions compiled against the package."""

import ctypes
import random
import sys
import threading
import time

import pytest

import memlimits
from support.kernel import mapped_bytes
from support.process import execute
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

SIZES = [0, 1, 63, 64, 65, 1000, 4096, 5000, 32 * KIB, 32 * KIB + 1, 100_000, MIB, 3 * MIB + 1]


class Ledger:
    """Live blocks by address: the bytes asked for, and what was written at both ends."""

    def __init__(self):
        self.blocks = {}
        self.active = memlimits.get_active_memory()

    def add(self, address, n, mark):
        assert address not in (0, *self.blocks)
        assert address % (PAGE if n > 32 * KIB else 64) == 0
        assert mapped_bytes(address, n) == n
        self.blocks[address] = n, mark
        self._write(address, n, mark)

    def take(self, address):
        n, mark = self.blocks.pop(address)
        self.check(address, n, mark)
        return n, mark

    def check(self, address, n, mark):
        count = min(n, 8)
        assert ctypes.string_at(address, count) == bytes([mark]) * count
        assert ctypes.string_at(address + n - count, count) == bytes([mark]) * count

    def _write(self, address, n, mark):
        ctypes.memset(address, mark, min(n, 8))
        ctypes.memset(address + n - min(n, 8), mark, min(n, 8))

    def check_counters(self):
        """A block's capacity is at most one eighth more, rounded up to 64 bytes or to pages."""
        active = memlimits.get_active_memory() - self.active
        asked = [max(n, 1) for n, _ in self.blocks.values()]
        assert sum(asked) <= active
        assert active <= sum(n + n // 8 + (PAGE if n > 32 * KIB else 64) for n in asked)


def test_blocks_are_apart_and_counted(heap):
    rng = random.Random(5)
    ledger = Ledger()
    for step in range(600):
        mark = step % 255 + 1
        if len(ledger.blocks) < 40 and rng.random() < 0.6:
            n = rng.choice(SIZES)
            if rng.random() < 0.5:
                address = heap.malloc(n)
            else:
                address = heap.calloc(1, n)
                assert not any(ctypes.string_at(address, n))
            ledger.add(address, n, mark)
        elif ledger.blocks:
            address = rng.choice(list(ledger.blocks))
            n, old = ledger.take(address)
            if rng.random() < 0.5:
                heap.free(address)
            else:
                longer = rng.choice(SIZES)
                address = heap.realloc(address, longer)
                ledger.check(address, min(n, longer, 8), old)
                ledger.add(address, longer, mark)
        ledger.check_counters()
    for address in list(ledger.blocks):
        ledger.take(address)
        heap.free(address)
    ledger.check_counters()


def test_null_is_refused_room_and_nothing_to_free(heap):
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(memlimits.get_active_memory() + 4 * MIB)
    first = heap.malloc(3 * MIB)
    ctypes.memset(first, 7, 3 * MIB)
    for refused in (heap.malloc(2 * MIB), heap.calloc(2, MIB), heap.realloc(first, 20 * MIB)):
        assert refused == 0
    refusal = memlimits.last_refusal()
    assert (refusal.requested, refusal.blocked_by) == (20 * MIB, "limit")
    assert ctypes.string_at(first, 3 * MIB) == b"\7" * (3 * MIB)
    assert heap.calloc(2**32, 2**32) == 0
    assert memlimits.last_refusal().blocked_by == "max_buffer_length"
    heap.free(first)
    heap.free(0)


def test_a_block_may_be_freed_by_other_code_and_on_another_thread(heap, cython):
    active = memlimits.get_active_memory()
    addresses = [heap.malloc(n) for n in SIZES]
    run_threads(lambda: [cython.free(address) for address in addresses])
    assert memlimits.get_active_memory() == active


def test_arrays_of_numpy_are_of_the_same_heap(cython):
    active = memlimits.get_active_memory()
    array = memlimits.empty(5000, "u1")
    assert memlimits.get_active_memory() - active >= 5000
    address = cython.malloc(5000)
    assert not array.ctypes.data <= address < array.ctypes.data + 5000
    cython.free(address)
    del array
    assert memlimits.get_active_memory() == active


def test_no_call_takes_the_gil(cython):
    stop = ctypes.c_char(0)
    rounds = []
    interval = sys.getswitchinterval()
    end = time.monotonic() + 60
    thread = threading.Thread(
        target=lambda: rounds.append(cython.churn_until(ctypes.addressof(stop), 1000))
    )
    hits = memlimits.memory.counters()["hits"]
    thread.start()
    try:
        sys.setswitchinterval(1000)  # the main thread keeps the GIL from here on
        while memlimits.memory.counters()["hits"] < hits + 100_000:
            assert thread.is_alive()
            assert time.monotonic() < end
    finally:
        sys.setswitchinterval(interval)
        stop.value = 1
        thread.join()
    assert rounds[0] > 100_000


@pytest.mark.parametrize(
    ("name", "refusal"),
    [("in_guide_cython", memlimits.MemoryLimitError), ("in_guide", MemoryError)],
)
def test_the_guides_examples(extension, name, refusal):
    example = extension(name)
    active = memlimits.get_active_memory()
    assert example.sum_of_squares(1000) == sum(i * i for i in range(1000))
    assert memlimits.get_active_memory() == active
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(active)
    memlimits.clear_cache()
    with pytest.raises(refusal):
        example.sum_of_squares(10_000)
    assert memlimits.last_refusal().requested == 80_000


@pytest.mark.parametrize("module", ["in_cython", "in_c"])
def test_an_extension_can_be_the_first_to_import_it(build, module):
    program = f"""
        import sys
        sys.path.insert(0, {str(build)!r})
        import {module} as heap
        heap.free(heap.malloc(100))
        assert "numpy" not in sys.modules
    """
    assert execute(program).stderr == ""
