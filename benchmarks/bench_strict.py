"""Row 4d: near a strict limit, against tcmalloc, which refuses at one, too.

What is in use are the bytes that were asked for, which no allocator has a say in. A block that is
refused takes little time: who refuses many is timed with fewer.
"""

import math
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loops import LENGTH, Work
from process import Program
from session import MIB, Session
from strict import work
from timing import Timed

TITLE = "near a strict limit, in a process for each allocator"
FACTORS = [1.25, 1.5]
OURS = "memlimits"
STEPS = 20_000


def run(session: Session) -> None:
    for threads in session.thread_counts:
        in_use = most_in_use(work(), threads)
        for factor in FACTORS:
            # Whole MiB, as tcmalloc counts it.
            _near(session, threads, factor, math.ceil(in_use * factor / MIB) * MIB)


def most_in_use(work: Work, threads: int) -> int:
    """Return the most bytes that the blocks of a replacement have, all threads at the same step."""
    in_use = [0] * (LENGTH + 1)
    for number in range(threads):
        # As loops.c goes about it.
        first = work.length // threads * number
        held = [work.sizes[(first + i) % work.length] for i in range(work.live)]
        total = sum(held)
        in_use[0] += total
        for i in range(LENGTH):
            at = (first + i) % work.length
            slot, size = work.slots[at], work.sizes[at]
            total += size - held[slot]
            held[slot] = size
            in_use[i + 1] += total
    return max(in_use)


class Near:
    """An allocator near its limit, or without one, and what was refused so far."""

    def __init__(self, program: Program):
        self._program = program
        self.refused = self.of = 0

    def ask(self, loop: str, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self._program.ask(loop=loop, number=number)
        self.refused += found["refused"]
        self.of += found["of"]
        return found

    def side(self) -> Timed:
        return lambda number: float(self.ask("replacement", number)["took"])


def _near(session: Session, threads: int, factor: float, limit: int) -> None:
    path = Path(__file__).with_name("strict.py")
    limited = {"TCMALLOC_HEAP_LIMIT_MB": str(limit // MIB)}
    with ExitStack() as stack:

        def program(name: str, *words: str, **options: Any) -> Near:
            made = Program(path, name, str(threads), *words, **options)
            stack.callback(made.close)
            return Near(made)

        sides = {OURS: program(OURS, str(limit)), f"{OURS}, no limit": program(OURS)}
        if "tcmalloc" in session.peers:
            # It has a line on stderr for each refusal.
            sides["tcmalloc"] = program("tcmalloc", environment=limited, stderr=subprocess.DEVNULL)
        if "mimalloc" in session.peers:
            sides["mimalloc, no limit"] = program("mimalloc")
        label = f"{factor} x in use ({limit // MIB} MiB), {threads} thread{'s' * (threads > 1)}"
        timed = {name: side.side() for name, side in sides.items()}
        found = session.compare(label, timed, base=OURS, warm_up=LENGTH // 8, least=STEPS // 4)
        _waits(session, sides)
        session.judge_ratio("near tcmalloc", label, found, OURS, "tcmalloc")
        session.judge("near refusals", label, sides[OURS].refused)


def _waits(session: Session, sides: dict[str, Near]) -> None:
    """Print refusals, a run's longest allocation, and its slowest thread's time over the mean.

    Where the machine has other work, the longest may be one while which others had the core.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(session.rounds):
        for name, side in sides.items():
            runs[name].append(side.ask("waits", STEPS))
    print(f"    {'':42} {'refused':>8} of {'':11} {'longest':>11} {'slowest':>9}")
    for name, side in sides.items():
        longest = statistics.median(run["longest"][0] for run in runs[name])
        slowest = statistics.median(run["slowest"][0] for run in runs[name])
        counts = f"{side.refused:8,} of {side.of:11,}"
        print(f"    {name:42} {counts} {longest / 1e3:8,.0f} us {slowest:8.2f}x", flush=True)
