"""Row 10: blocks that realloc makes longer, and what is new written each time.

The long ones have no target: glibc's time depends on what was freed before, since from 32 MiB on,
or less, it maps blocks anew.
"""

from loops import Work, side
from session import KIB, MIB, Session

TITLE = "realloc, contents included"
STEPS = {
    "64 B to 200 kB, 64 B more": range(64, 200_000, 64),
    "1 KiB to 500 kB, 1 KiB more": range(KIB, 500_000, KIB),
    "4 KiB to 500 kB, 4 KiB more": range(4 * KIB, 500_000, 4 * KIB),
}
LENGTHS = {
    "doubled, 1 to 256 MiB": [MIB << i for i in range(9)],
    "half as long again, 1 to 58 MiB": [int(MIB * 1.5**i) for i in range(11)],
    "256 KiB more, 4 to 32 MiB": list(range(4 * MIB, 32 * MIB + 1, 256 * KIB)),
}


def run(session: Session) -> None:
    peers = {name: peer for name, peer in session.peers.items() if peer.heap.realloc}
    for label, steps in STEPS.items():
        sides = {name: side("resizing", peer.heap, Work(steps)) for name, peer in peers.items()}
        found = session.compare(label, sides, base="memlimits")
        session.judge_ratio("steps", label, found, "memlimits", "mimalloc")
    for label, lengths in LENGTHS.items():
        sides = {name: side("resizing", peer.heap, Work(lengths)) for name, peer in peers.items()}
        session.compare(label, sides, base="memlimits", most=1)
        session.clear_caches()
