"""Rows 4 and 6: blocks and arrays that threads pass on. Without a target: threads that soon end."""

from contextlib import closing

from loops import random_sizes, side
from process import Worker
from session import KIB, MIB, Session, size_label

TITLE = "blocks that threads pass on, and threads that soon end"
RANGES = [(64, 4 * KIB), (4 * KIB, 256 * KIB)]
BLOCKS = 20_000  # passed on, five times what is under way at most
LIVES = 1000
HELD = 16  # that a thread takes, of 64 B to 4 KiB
POOL = """
import math, random
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
span = math.log2({low}), math.log2({high})
sizes = [round(2 ** random.Random(i).uniform(*span)) for i in range(64)]
def make(size):
    return np.full(size, 1, "u1")
def use(array):
    return array + array
def last(arrays):
    return sum(int(array[-1]) for array in arrays)
"""
# What one thread makes, another uses; the results end in this one.
PASS = "last(pool.map(use, pool.map(make, sizes)))"
SIZES = [(KIB, 64 * KIB), (64 * KIB, 4 * MIB)]


def run(session: Session) -> None:
    for low, high in RANGES[: 1 if session.quick else None]:
        for pairs in session.thread_counts:
            _pairs(session, low, high, pairs)
    for threads in session.thread_counts:
        _short_lives(session, threads)
    for low, high in SIZES:
        _pool(session, low, high)


def _pairs(session: Session, low: int, high: int, pairs: int) -> None:
    """Threads that only take blocks, and as many that give them back."""
    work = random_sizes(low, high)
    sides = {
        name: side("hand_over", peer.heap, work, 2 * pairs) for name, peer in session.peers.items()
    }
    label = f"{size_label(low)} to {size_label(high)}, {pairs} pair{'s' * (pairs > 1)}"
    found = session.compare(
        f"made here, freed there, {label}", sides, base="memlimits", warm_up=BLOCKS, least=BLOCKS
    )
    session.judge_ratio("remote free", label, found, "memlimits", "mimalloc")
    session.clear_caches()


def _short_lives(session: Session, threads: int) -> None:
    """Threads one after another, a thousand, from so many others that start them."""
    lives = 50 if session.quick else LIVES
    work = random_sizes(64, 4 * KIB, live=HELD)
    sides = {
        name: side("short_lives", peer.heap, work, threads) for name, peer in session.peers.items()
    }
    label = f"a thread that takes and frees {HELD} blocks, {threads} at once"
    session.compare(label, sides, base="memlimits", warm_up=lives, least=lives)
    session.clear_caches()


def _pool(session: Session, low: int, high: int) -> None:
    """NumPy's arrays in a pool of four threads, on all cores."""
    setup = POOL.format(low=low, high=high)
    with closing(Worker(governs="numpy", place=None)) as ours, closing(Worker(place=None)) as plain:
        sides = {"governed": ours.side(PASS, setup), "default": plain.side(PASS, setup)}
        label = f"64 arrays of {size_label(low)} to {size_label(high)} in a thread pool"
        found = session.compare(label, sides, base="default")
        session.judge_ratio("nothing slower", label, found, "default", "governed")
