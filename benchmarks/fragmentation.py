"""How much more than what is live stays in RAM while blocks of mixed sizes are replaced.

python fragmentation.py [SECONDS] has allocators take turns, each in a process of its own, and
prints resident bytes over live ones ten times. bench_memory.py has it run for a short time.
"""

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from compiled import shared_library
from peers import FINDERS, Peer
from process import Program
from session import MIB

LIVE = 128 * MIB
SIZES = 16, MIB  # bytes, each power of two as often as the next
TURN = LIVE // 4  # bytes taken
LOOKS = 10
NAMES = ["memlimits", "mimalloc", "glibc"]


def footprint(name: str) -> Program:
    """Start footprint.py with an allocator."""
    shared_library("memory.c", "-lm")  # for whoever is first, before several look for it
    return Program(Path(__file__).with_name("footprint.py"), name)


def run(seconds: float, names: Iterable[str]) -> None:
    with ExitStack() as stack:
        programs = {name: footprint(name) for name in names}
        for program in programs.values():
            stack.callback(program.close)
        print(f"    {'resident over live after':>24}", *(f"{name:>10}" for name in programs))
        start, turns = time.monotonic(), 0
        for look in range(1, LOOKS + 1):
            ratios: dict[str, float] = {}
            while not ratios or time.monotonic() - start < seconds * look / LOOKS:
                turns += 1
                for name, program in programs.items():
                    words = {"low": SIZES[0], "high": SIZES[1], "most": LIVE, "taken": TURN}
                    live, resident = program.ask(what="churn", **words)
                    ratios[name] = resident / live
            shown = (f"{ratio:10.3f}" for ratio in ratios.values())
            print(f"    {turns * TURN // MIB:16,} MiB taken", *shown, flush=True)


if __name__ == "__main__":
    here = [name for name in NAMES if isinstance(FINDERS[name](), Peer)]
    run(float(sys.argv[1]) if len(sys.argv) > 1 else 10, here)
