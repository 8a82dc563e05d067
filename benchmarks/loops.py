"""drivers/loops.c from Python: each loop over an allocator is a side to time."""

import ctypes
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiled import shared_library
from timing import Timed

LENGTH = 1 << 16  # steps after which a work starts again


class Heap(ctypes.Structure):
    """An allocator's malloc and free, and its realloc or None."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("malloc", "free", "realloc"))


class Work(ctypes.Structure):
    """Sizes to ask for, and which live block each takes the place of."""

    _fields_ = (
        ("sizes", ctypes.POINTER(ctypes.c_uint32)),
        ("slots", ctypes.POINTER(ctypes.c_uint32)),
        ("length", ctypes.c_size_t),
        ("live", ctypes.c_size_t),
    )

    def __init__(self, sizes: Sequence[int], live: int = 1) -> None:
        slots = random.Random(2).choices(range(live), k=len(sizes))
        array = ctypes.c_uint32 * len(sizes)
        super().__init__(array(*sizes), array(*slots), len(sizes), live)


def one_size(size: int) -> Work:
    return Work([size])


def random_sizes(low: int, high: int, *, live: int = 1, length: int = LENGTH) -> Work:
    """Make work of sizes between two, each power of two as often as the next."""
    rng = random.Random(1)
    span = math.log2(low), math.log2(high)
    return Work([round(2 ** rng.uniform(*span)) for _ in range(length)], live)


_library = ctypes.CDLL(str(shared_library("loops.c")))
_library.counted_hits.restype = ctypes.c_size_t
_library.counted_hits.argtypes = [ctypes.POINTER(Heap), ctypes.POINTER(Work), ctypes.c_size_t]
_library.leave_cached.restype = None
_library.leave_cached.argtypes = [ctypes.POINTER(Heap), ctypes.POINTER(Work), ctypes.c_size_t]

# What a loop itself takes.
NOTHING = Heap(*(ctypes.cast(_library[name], ctypes.c_void_p) for name in (
    "nothing_malloc", "nothing_free")))  # fmt: skip


class Outcome(ctypes.Structure):
    """What a run of a loop was like, beside its time."""

    _fields_ = (
        ("refused", ctypes.c_size_t),
        ("longest", ctypes.c_double),
        ("slowest", ctypes.c_double),
    )


@dataclass
class Found:
    """What the runs of a loop were like: blocks refused, and of each run two more figures."""

    refused: int = 0
    of: int = 0
    longest: list[float] = field(default_factory=list)  # ns of an allocation, where "waits" ran
    slowest: list[float] = field(default_factory=list)  # thread's time, over the mean of all

    def __str__(self) -> str:
        return f"{self.refused:,} of {self.of:,} refused"


def side(
    loop: str, heap: Heap, work: Work, threads: int = 1, *, found: Found | None = None
) -> Timed:
    """Return a loop of loops.c as a side: the part of its name after "loop_".

    What is found goes into `found`, if the loop is one that fills its places first: replacement or
    waits. Without it, blocks that are refused are an error.
    """
    function = _library[f"loop_{loop}"]
    function.restype = ctypes.c_double
    function.argtypes = [
        ctypes.POINTER(Heap),
        ctypes.POINTER(Work),
        ctypes.c_int,
        ctypes.c_size_t,
        ctypes.POINTER(Outcome),
    ]

    def timed(number: int) -> float:
        out = Outcome()
        took: float = function(heap, work, threads, number, out)
        if found is not None:
            found.refused += out.refused
            found.of += (number + work.live) * threads
            found.longest.append(out.longest)
            found.slowest.append(out.slowest)
        elif out.refused:
            raise RuntimeError(f"{out.refused} of {number} blocks refused: {loop}, {threads}")
        return took

    return timed


def leave_cached(heap: Heap, work: Work, count: int) -> None:
    """Allocate so many blocks and free them all."""
    _library.leave_cached(heap, work, count)


def growth_bytes(work: Work, threads: int, steps: int) -> int:
    """Return what the growth loop asks for in all: each thread starts at its part of the work."""
    starts = (work.length // threads * number for number in range(threads))
    return sum(work.sizes[(start + i) % work.length] for start in starts for i in range(steps))


def counted_hits(heap: Heap, work: Work, steps: int) -> None:
    """Run the hits for callgrind, which counts what this function of loops.c executes."""
    if _library.counted_hits(heap, work, steps):
        raise RuntimeError("blocks refused")
