"""Row 3: hits and random replacement from C, on one thread."""

from loops import LENGTH, one_size, random_sizes, side
from session import KIB, MIB, Session, size_label

TITLE = "malloc and free from C, one thread"
SIZES = [256, 64 * KIB, MIB, 16 * MIB, 256 * MIB]
QUICK_SIZES = [256, MIB, 256 * MIB]
RANGES = [
    (64, 4 * KIB, "mimalloc small"),
    (4 * KIB, 256 * KIB, "mimalloc middle"),
    (64 * KIB, 4 * MIB, None),
    (MIB, 16 * MIB, "mimalloc large"),
]
LIVE = 256


def run(session: Session) -> None:
    peers = session.peers.values()
    for size in QUICK_SIZES if session.quick else SIZES:
        work = one_size(size)
        sides = {peer.name: side("hits", peer.heap, work) for peer in peers}
        label = f"hit, {size_label(size)}"
        found = session.compare(label, sides, base="memlimits")
        session.judge_ratio("MLX hits", label, found, "MLX", "memlimits")
        if size >= MIB:
            session.judge_ratio("mimalloc large", label, found, "memlimits", "mimalloc")
        session.clear_caches()
    for low, high, key in RANGES:
        work = random_sizes(low, high, live=LIVE)
        sides = {peer.name: side("replacement", peer.heap, work) for peer in peers}
        label = f"replacement, {size_label(low)} to {size_label(high)}"
        found = session.compare(
            label, sides, base="memlimits", warm_up=LENGTH // 2 if session.quick else LENGTH
        )
        session.judge_ratio("MLX replacement", label, found, "MLX", "memlimits")
        if key:
            session.judge_ratio(key, label, found, "memlimits", "mimalloc")
        session.clear_caches()
