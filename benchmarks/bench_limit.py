"""Row 9, and what a limit below the working set costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from compiled import shared_library
from limits import limited, uncached
from loops import LENGTH, random_sizes, side
from session import KIB, Session, size_label

import memlimits

TITLE = "the limit"
RANGES = [(64, 4 * KIB), (4 * KIB, 256 * KIB)]
LIVE = 1024


def run(session: Session) -> None:
    heap = session.peers["memlimits"].heap
    for low, high in RANGES:
        work = random_sizes(low, high, live=LIVE)
        loop = side("replacement", heap, work)
        memlimits.clear_cache()
        memlimits.reset_peak_memory()
        loop(LENGTH)
        limit = memlimits.get_peak_memory() // 2
        sides = {
            "limit of half": limited(loop, limit, "guideline"),
            "cache limit of 0": uncached(loop),
            "no limit": loop,
        }
        label = f"replacement, {size_label(low)} to {size_label(high)}"
        found = session.compare(label, sides, base="cache limit of 0", warm_up=LENGTH // 8)
        session.judge_ratio("below", label, found, "limit of half", "cache limit of 0")
    memlimits.clear_cache()
    _ledger(session)


def _ledger(session: Session) -> None:
    """Hold a strict limit against an account of blocks and one of mappings."""
    steps = 500_000 if session.quick else 2_000_000
    words = [sys.executable, str(Path(__file__).with_name("ledger.py")), str(steps)]
    environment = {**os.environ, "LD_PRELOAD": str(shared_library("mappings.c", "-ldl"))}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    for label, account in json.loads(done.stdout).items():
        limit = account["limit"]
        print(f"\n    strict, two threads, {label}, limit {limit:,}")
        print("    " + ", ".join(f"{name} {n:,}" for name, n in account.items() if name != "limit"))
        highest = max(account["in_use_at_least"], account["mapped_at_most"])
        session.judge("over", label, max(highest - limit, 0))
        if "wrong_refusals" in account:
            session.judge("wrong refusals", label, account["wrong_refusals"])
