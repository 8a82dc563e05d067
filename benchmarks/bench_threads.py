"""Row 4: two threads, each with its own blocks, and one that frees what the other took."""

from loops import LENGTH, one_size, random_sizes, side
from session import KIB, MIB, Session, size_label

TITLE = "malloc and free from C, two threads"
SIZES = [256, 64 * KIB, MIB]
QUICK_SIZES = [256, MIB]
RANGES = [(64, 4 * KIB), (4 * KIB, 256 * KIB), (64 * KIB, 4 * MIB)]
QUICK_RANGES = [(64, 4 * KIB), (64 * KIB, 4 * MIB)]
LIVE = 256
ONE = "memlimits, one thread"


def run(session: Session) -> None:
    peers = session.peers
    sizes = QUICK_SIZES if session.quick else SIZES
    works = {f"hit, {size_label(size)}": ("hits", one_size(size), 1) for size in sizes}
    for low, high in QUICK_RANGES if session.quick else RANGES:
        label = f"replacement, {size_label(low)} to {size_label(high)}"
        works[label] = "replacement", random_sizes(low, high, live=LIVE), LENGTH // 8
    for label, (loop, work, warm_up) in works.items():
        sides = {name: side(loop, peer.heap, work, 2) for name, peer in peers.items()}
        sides[ONE] = side(loop, peers["memlimits"].heap, work)
        found = session.compare(label, sides, base="memlimits", warm_up=warm_up)
        session.judge_ratio("two threads", label, found, "memlimits", ONE)
        session.judge_ratio("MLX threads", label, found, "MLX", "memlimits")
    for size in sizes:
        work = one_size(size)
        sides = {name: side("hand_over", peer.heap, work, 2) for name, peer in peers.items()}
        label = f"freed on another thread, {size_label(size)}"
        found = session.compare(label, sides, base="memlimits", warm_up=10_000)
        session.judge_ratio("remote free", label, found, "memlimits", "mimalloc")
        session.clear_caches()
