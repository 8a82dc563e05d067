"""A strict limit under two threads, run by bench_limit.py in a process with mappings.c preloaded.

python ledger.py STEPS prints, as JSON, what the accounts of ledger.c and mappings.c say.
"""

import ctypes
import json
import sys

from compiled import shared_library
from loops import Heap
from peers import ours
from session import KIB, MIB

import memlimits

# Capacities of blocks, far enough apart that none is served by another's block.
CASES = {
    "whole resources": ([64 * KIB << i for i in range(5)], 24 * MIB + 4 * KIB),
    "pieces of slabs": ([64 << i for i in range(10)], MIB),
}


class Outcome(ctypes.Structure):
    """What drivers/ledger.c found."""

    _fields_ = (
        ("highest", ctypes.c_uint64),
        ("allocations", ctypes.c_uint64),
        ("refusals", ctypes.c_uint64),
        ("wrong_refusals", ctypes.c_uint64),
    )


def account(sizes: list[int], limit: int, steps: int) -> dict[str, int]:
    churn = ctypes.CDLL(str(shared_library("ledger.c"))).ledger_churn
    churn.argtypes = [
        ctypes.POINTER(Heap),
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.c_size_t,
        ctypes.c_uint64,
        ctypes.c_size_t,
        ctypes.POINTER(Outcome),
    ]
    preloaded = ctypes.CDLL(None)
    preloaded.mappings_highest.restype = ctypes.c_int64
    memlimits.clear_cache()
    memlimits.set_memory_limit(limit)
    heap, out = ours().heap, Outcome()
    preloaded.mappings_start()
    churn(heap, (ctypes.c_uint32 * len(sizes))(*sizes), len(sizes), limit, steps, out)
    return {
        "limit": limit,
        "in_use_at_least": out.highest,
        "mapped_at_most": preloaded.mappings_highest(),
        "allocations": out.allocations,
        "refusals": out.refusals,
        "wrong_refusals": out.wrong_refusals,
    }


def main(steps: int) -> None:
    memlimits.set_memory_policy("strict")
    found = {label: account(*case, steps) for label, case in CASES.items()}
    # A slab takes more than its live pieces: whether one had room is not known out here.
    del found["pieces of slabs"]["wrong_refusals"]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
