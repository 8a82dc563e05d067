"""Hits among cached blocks, run by bench_cached.py in a process of its own under callgrind.

python instructions.py CACHED STEPS
"""

import sys

from loops import LENGTH, Work, counted_hits, leave_cached, random_sizes, side
from peers import ours


def cached_work(count: int) -> Work:
    """Make work that asks for the sizes of so many cached blocks."""
    return random_sizes(64, 1024, length=min(count, LENGTH))


def main(cached: int, steps: int) -> None:
    work, heap = cached_work(cached), ours().heap
    leave_cached(heap, work, cached)
    side("replacement", heap, work)(LENGTH)  # of one block: hits too, and not counted
    counted_hits(heap, work, steps)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
