"""Rows 4b and 8b: as many threads as the machine has cores, and many that have ended."""

import math
import random
from contextlib import closing

from limits import limited
from loops import LENGTH, Found, Heap, Work, growth_bytes, random_sizes, side
from peers import Peer
from process import Worker
from session import KIB, Session
from timing import Timed

import memlimits

TITLE = "threads, from one to as many as there are cores"
LIVE = 1024
NEAR = "memlimits, near the limit"
# Capacities of whole blocks, so that what is in use is known to the byte.
CAPACITIES = [1 << i for i in range(6, 17)]
GROWTH = 5000  # blocks, 60 MiB, of each thread
ENDED = 256
GROW = f"""
import random, threading
import memlimits
sizes = random.Random(3).choices({CAPACITIES}, k={GROWTH})
def grow():
    blocks = [memlimits.allocate(n) for n in sizes]
    blocks.clear()
"""
LIVE_AND_END = f"""
together = threading.Barrier({ENDED})
def take():
    blocks = [memlimits.allocate(4096) for _ in range(30)]
    together.wait()
threads = [threading.Thread(target=take) for _ in range({ENDED})]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def run(session: Session) -> None:
    for threads in session.thread_counts:
        _replacement(session, threads)
    for threads in session.thread_counts:
        _growth(session, threads)
    _after_others(session)


def _after_others(session: Session) -> None:
    """Growth on one thread of a process in which others have lived."""
    before = "memlimits.clear_cache()"
    with closing(Worker()) as fresh, closing(Worker()) as after:
        sides = {
            "fresh": fresh.side("grow()", GROW, before),
            "after": after.side("grow()", GROW + LIVE_AND_END, before),
        }
        found = session.compare(f"growth, {ENDED} threads have ended", sides, base="fresh")
        session.judge_ratio("ended", f"{ENDED} threads", found, "after", "fresh")


def _replacement(session: Session, threads: int) -> None:
    work = random_sizes(64, 64 * KIB, live=LIVE)
    heaps = {name: peer.heap for name, peer in session.peers.items()}
    sides = {name: side("replacement", heap, work, threads) for name, heap in heaps.items()}
    near = Found()
    sides[NEAR] = _near_the_limit(heaps["memlimits"], work, threads, near)
    label = _label(threads)
    # Each sample has new threads; what one costs that soon ends is a row of `passing`.
    found = session.compare(
        f"replacement, 64 B to 64 KiB, {label}",
        sides,
        base="memlimits",
        warm_up=LENGTH // 8,
        times=4,
    )
    session.judge_ratio("scaling", label, found, "memlimits", "mimalloc")
    session.judge_ratio("near the limit", f"{label}, {near}", found, NEAR, "mimalloc")
    session.clear_caches()


def _near_the_limit(heap: Heap, work: Work, threads: int, found: Found) -> Timed:
    """Return the loop under a strict limit of 1.5 times what it has in use at most."""
    memlimits.reset_peak_memory()
    side("replacement", heap, work, threads)(LENGTH)
    loop = side("replacement", heap, work, threads, found=found)
    return limited(loop, memlimits.get_peak_memory() * 3 // 2, "strict")


def _growth(session: Session, threads: int) -> None:
    work = Work(random.Random(3).choices(CAPACITIES, k=LENGTH))
    sides = {
        name: _repeated(side("growth", peer.heap, work, threads), peer)
        for name, peer in session.peers.items()
    }
    label = _label(threads)
    found = session.compare(f"growth, {label}", sides, base="memlimits", warm_up=GROWTH)
    session.judge_ratio("growth", label, found, "memlimits", "mimalloc")
    ours = session.peers["memlimits"]
    ours.fresh()
    bytes_at_once = memlimits.get_active_memory() + growth_bytes(work, threads, GROWTH)
    side("growth", ours.heap, work, threads)(GROWTH)
    above = memlimits.get_peak_memory() - bytes_at_once
    session.judge("peak", label, above / threads if above >= 0 else math.inf)
    session.clear_caches()


def _repeated(loop: Timed, peer: Peer) -> Timed:
    """Return a side that grows from nothing, as often as its operations ask for."""

    def timed(number: int) -> float:
        repeats = math.ceil(number / GROWTH)
        took = 0.0
        for _ in range(repeats):
            peer.fresh()
            took += loop(GROWTH)
        return took * number / (repeats * GROWTH)

    return timed


def _label(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
