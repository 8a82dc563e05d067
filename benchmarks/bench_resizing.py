"""Blocks that realloc makes longer, and what is new written each time. Without a target.

glibc's time depends on what was freed before: from 32 MiB on, or less, it maps blocks anew.
"""

from loops import Work, side
from session import KIB, MIB, Session

TITLE = "realloc of long blocks, contents included"
LENGTHS = {
    "doubled, 1 to 256 MiB": [MIB << i for i in range(9)],
    "half as long again, 1 to 58 MiB": [int(MIB * 1.5**i) for i in range(11)],
    "256 KiB more, 4 to 32 MiB": list(range(4 * MIB, 32 * MIB + 1, 256 * KIB)),
}


def run(session: Session) -> None:
    peers = {name: peer for name, peer in session.peers.items() if peer.heap.realloc}
    for label, lengths in LENGTHS.items():
        sides = {name: side("resizing", peer.heap, Work(lengths)) for name, peer in peers.items()}
        session.compare(label, sides, base="memlimits", most=1)
        session.clear_caches()
