"""Budgets and reservations: what is charged, and what others then get."""

import memlimits
from memlimits import memory
from support.threads import in_thread
from support.units import KIB, PAGE


def class_size(n):
    """What docs/design.md says of size classes: multiples of 64 up to 512, then eight a power."""
    if n <= 512:
        return -(-n // 64) * 64
    step = 1 << ((n - 1).bit_length() - 4)
    return -(-n // step) * step


def charge_for(n):
    return class_size(n) if n <= 32 * KIB else -(-n // PAGE) * PAGE


def own_the_heap():
    """From then on frees ask for no lock, as in a program that runs long."""
    for _ in range(17_000):
        memlimits.allocate(64)


def leave(nbytes):
    """Take all but so many bytes of the memory limit, in whole pages."""
    memlimits.clear_cache()
    room = memlimits.get_memory_limit() - memory.counters()["footprint"]
    return memlimits.allocate((room - nbytes) // PAGE * PAGE)


def refusal_elsewhere(n):
    def ask():
        try:
            memlimits.allocate(n)
        except memlimits.MemoryLimitError as error:
            return error.blocked_by

    return in_thread(ask)
