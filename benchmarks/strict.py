"""Replacement of blocks by an allocator alone in its process, run by bench_strict.py.

python strict.py NAME THREADS [LIMIT] answers each line, {"loop": one of loops.c, "number": steps},
with nanoseconds and what was found. LIMIT is for memlimits: tcmalloc reads its own from the
environment when it is loaded.
"""

import json
import sys

from loops import Found, Work, random_sizes, side
from peers import FINDERS, Missing
from session import KIB

import memlimits

LIVE = 1024


def work() -> Work:
    return random_sizes(64, 64 * KIB, live=LIVE)


def main(name: str, threads: int, limit: int | None = None) -> None:
    peer = FINDERS[name]()
    if isinstance(peer, Missing):
        sys.exit(f"{name}: {peer.remedy}")
    if limit is not None:
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(limit)
    blocks = work()
    for line in sys.stdin:
        request, found = json.loads(line), Found()
        took = side(request["loop"], peer.heap, blocks, threads, found=found)(request["number"])
        print(json.dumps({"took": took, **vars(found)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
