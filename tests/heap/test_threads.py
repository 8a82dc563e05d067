"""Threads that collide, and interrupts."""

import signal

import pytest

import memlimits
from memlimits import memory
from support.process import execute, run
from support.units import MIB


def test_threads_that_make_resources_at_once_all_find_them_again():
    """Threads that wait for memory wake together, without the GIL, and make resources at once.

    Each round takes place in a span of addresses that nothing was mapped in before. NumPy frees by
    address: a resource that cannot be found again ends the program.
    """
    run("""
        import numpy
        libc = ctypes.CDLL(None)
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [
            ctypes.c_long]
        big, held = 64 * MIB, []
        fill = b"x" * big
        for _ in range(20):
            libc.mmap(None, 16 * MIB, 0, 0x4022, -1, 0)     # PROT_NONE: only takes addresses
            memlimits.set_memory_limit(1 << 40)
            block = memlimits.allocate(big)
            memoryview(block)[:] = fill                     # unmapping it takes a while
            del block
            memlimits.set_memory_limit(memlimits.get_active_memory() + big)
            together = threading.Barrier(9)
            def want():
                together.wait()
                held.append(memlimits.allocate(40 << 10))
            threads = [threading.Thread(target=want) for _ in range(8)]
            for thread in threads: thread.start()
            together.wait()
            memlimits.clear_cache()
            for thread in threads: thread.join()
        memlimits.set_memory_limit(1 << 40)
        count = len(held)
        held.clear()
        with memlimits.govern_numpy():
            arrays = [numpy.empty(40 << 10, numpy.uint8) for _ in range(count)]
        arrays.clear()
        consistent()
    """)


FRESH_ADDRESS_SPACE = """
import sys, threading, memlimits
sys.setswitchinterval(1e-6)
memlimits.set_memory_limit(2**62)
held = []

def grow(make, *arguments):
    held.extend(make(4 << 20, *arguments) for _ in range(600))

threads = [
    threading.Thread(target=grow, args=(memlimits.allocate,)),
    threading.Thread(target=grow, args=(memlimits.empty, "u1")),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
held.clear()
print(memlimits.get_active_memory())
"""


@pytest.mark.parametrize("attempt", range(5))
def test_two_threads_find_their_blocks_again_in_fresh_address_space(attempt):
    """One grows without the GIL while the other does, both where nothing was mapped before."""
    if memlimits.device_info()["memory_size"] < 8 << 30:
        pytest.skip("maps 5 GiB, untouched")
    result = execute(FRESH_ADDRESS_SPACE, "-W", "error")
    assert (result.returncode, result.stdout) == (0, "0\n")


@pytest.mark.core
def test_interrupts_in_a_loop_of_allocations_leave_the_counters_right():
    interrupted = 0
    held = []
    armed = []  # so that an interrupt comes in the loop only, never in what is around it
    active = memlimits.get_active_memory()

    def interrupt(*_):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.0007)
    try:
        while interrupted < 300:
            try:
                armed.append(True)
                while True:
                    held.append(memlimits.allocate(5 * MIB, zeroed=True))
                    memlimits.allocate(100)
                    held.clear()
                    memlimits.clear_cache()
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    held.clear()
    assert memlimits.get_active_memory() == active
    memlimits.clear_cache()
    counters = memory.counters()
    assert counters["pending"] == counters["cache"] == 0
