"""Row 5: a hit among more and more cached blocks, in nanoseconds and in instructions."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from instructions import cached_work
from loops import LENGTH, leave_cached, side
from session import Session

TITLE = "a hit among cached blocks"
TIMED = [10, 1_000, 100_000]
COUNTED = [10, 1_000, 100_000, 1_000_000]
QUICK_COUNTED = [10, 10_000]
STEPS = 20_000


def run(session: Session) -> None:
    for count in TIMED:
        work = cached_work(count)
        session.clear_caches()
        for peer in session.peers.values():
            leave_cached(peer.heap, work, count)
        sides = {name: side("hits", peer.heap, work) for name, peer in session.peers.items()}
        label = f"{count:,} cached"
        found = session.compare(label, sides, base="memlimits", warm_up=LENGTH)
        if count == TIMED[-1]:
            session.judge_ratio("MLX cached", label, found, "MLX", "memlimits")
    session.clear_caches()
    _count_instructions(session)


def _count_instructions(session: Session) -> None:
    if not shutil.which("valgrind"):
        session.report.miss("instructions", "apt-get install valgrind")
        return
    counts = {n: _instructions(n) for n in (QUICK_COUNTED if session.quick else COUNTED)}
    least = counts[COUNTED[0]]
    for cached, instructions in counts.items():
        print(f"    {cached:>9,} cached: {instructions:,.1f} instructions a hit", flush=True)
        if cached != COUNTED[0]:
            session.judge("instructions", f"{cached:,} cached", instructions / least)


def _instructions(cached: int) -> float:
    """Count what a hit takes among so many cached blocks, in a process under valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        words = ["valgrind", "--tool=callgrind", "--toggle-collect=hit"]
        words += [f"--callgrind-out-file={out}", sys.executable]
        words += [str(Path(__file__).with_name("instructions.py")), str(cached), str(STEPS)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        [totals] = re.findall(r"^totals: (\d+)", out.read_text(), re.MULTILINE)
    return int(totals) / STEPS
