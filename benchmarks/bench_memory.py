"""Row 11: what allocators have in RAM beside the blocks that are in use."""

import math
import random
import statistics
from contextlib import closing

import fragmentation
from fragmentation import footprint
from session import KIB, MIB, Session

TITLE = "memory beside what is in use, in a process for each allocator"
HOLDING = 200  # threads that hold one block each
ENDED, BLOCKS = 1000, 16  # threads, and blocks of each
PHASES, LOOKS = 12, 8  # looks a phase
LIVE = 100 * MIB, 600 * MIB
EXPONENTS = 4, 23  # of two, in bytes: 16 B to 8 MiB
WALKS = [1, 2, 3]


def run(session: Session) -> None:
    names = [name for name in session.peers if name not in ("MLX", "loop alone")]
    if session.quick:
        names = [name for name in names if name in fragmentation.NAMES]
    print(f"\n  {HOLDING} threads that hold a block of 64 B: bytes of each, beside its stack")
    for name in names:
        _holding(name)
    threads = ENDED // 10 if session.quick else ENDED
    print(f"\n  {threads:,} threads that held {BLOCKS} blocks each, in MiB")
    for name in names:
        _ended(name, threads)
    print("\n  blocks of 16 B to 1 MiB, replaced")
    here = [name for name in fragmentation.NAMES if name in session.peers]
    fragmentation.run(0 if session.quick else 10, here)
    part = 1 / 20 if session.quick else 1
    for seed in WALKS[: 1 if session.quick else None]:
        label = f"walk {seed}{', a twentieth of the bytes' if session.quick else ''}"
        print(f"\n  sizes that shift, {label}: peak resident over peak live; mean of the ratio")
        for name in names:
            peak, mean = _shifting(name, phases(seed, part))
            print(f"    {name:42} {peak:14.2f} {mean:8.2f}", flush=True)
            if name == "memlimits":
                session.judge("shifting peak", label, peak)
                session.judge("shifting mean", label, mean)


def _holding(name: str) -> None:
    with closing(footprint(name)) as program:
        sizes = {"low": 64, "high": 64}
        # What is made once for all threads.
        program.ask(what="threads", count=1, blocks=1, **sizes)
        # Without a block first: what a thread takes of malloc and of RAM in any case.
        more = []
        for blocks in (0, 1):
            before, during, _ = program.ask(what="threads", count=HOLDING, blocks=blocks, **sizes)
            more.append([now - then for now, then in zip(during, before, strict=True)])
    resident, own = ((held - none) / HOLDING for none, held in zip(*more, strict=True))
    # Its page map is mapped, and grows with what is in use.
    heap = f" {own:14,.0f} heap and descriptors" if name == "memlimits" else ""
    print(f"    {name:42} {resident:14,.0f} resident{heap}", flush=True)


def _ended(name: str, threads: int) -> None:
    with closing(footprint(name)) as program:
        before, during, after = program.ask(
            what="threads", count=threads, blocks=BLOCKS, low=64, high=64 * KIB
        )
    alive, left = ((at[0] - before[0]) / MIB for at in (during, after))
    print(f"    {name:42} {alive:14,.1f} while they lived {left:8,.1f} after", flush=True)


def phases(seed: int, part: float) -> list[tuple[float, float, int]]:
    """Return for each phase the lowest and highest size, and what is live, `part` of it."""
    rng = random.Random(seed)
    step = (LIVE[1] - LIVE[0]) / (PHASES - 1)
    lives = [LIVE[0] + step * i for i in range(PHASES)]
    rng.shuffle(lives)
    found = []
    for live in lives:
        low = 2 ** rng.uniform(EXPONENTS[0], EXPONENTS[1] - 9)
        high = 2 ** rng.uniform(math.log2(low) + 3, EXPONENTS[1])
        found.append((low, high, round(live * part)))
    return found


def _shifting(name: str, walk: list[tuple[float, float, int]]) -> tuple[float, float]:
    """Take in each phase as much as is to be live then, and look how much that makes resident."""
    with closing(footprint(name)) as program:
        looks = [
            program.ask(what="churn", low=low, high=high, most=most, taken=most // LOOKS)
            for low, high, most in walk
            for _ in range(LOOKS)
        ]
    peak = max(resident for _, resident in looks) / max(live for live, _ in looks)
    return peak, statistics.mean(resident / live for live, resident in looks)
