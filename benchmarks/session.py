"""What a theme is given to run with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from report import Report
from timing import Comparison, Timed, compare

if TYPE_CHECKING:
    from peers import Peer

KIB, MIB = 1 << 10, 1 << 20


def size_label(size: int) -> str:
    for unit, factor in (("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


@dataclass
class Session:
    """How much to measure, and where it goes."""

    quick: bool
    report: Report = field(default_factory=Report)
    theme: str = ""

    @property
    def rounds(self) -> int:
        return 5 if self.quick else 31

    @property
    def seconds(self) -> float:
        """How long one sample takes."""
        return 0.001 if self.quick else 0.008

    @cached_property
    def peers(self) -> dict[str, "Peer"]:
        """Allocators by name, memlimits among them."""
        from peers import load

        found, missing = load()
        for name in missing:
            self.report.miss(name.name, name.remedy)
        self.report.versions |= {peer.name: peer.version for peer in found.values() if peer.version}
        return found

    def clear_caches(self) -> None:
        """Have every allocator give back what it holds for reuse."""
        for peer in self.peers.values():
            peer.fresh()

    @property
    def thread_counts(self) -> list[int]:
        cores = len(os.sched_getaffinity(0))
        powers = [1 << i for i in range(cores.bit_length()) if 1 << i <= cores]
        return sorted({*powers, cores})

    def compare(
        self, label: str, sides: Mapping[str, Timed], *, base: str, times: int = 1, **options: int
    ) -> Comparison:
        """Time the sides, in samples so many times as long; keep it under the theme's name."""
        found = compare(sides, rounds=self.rounds, seconds=times * self.seconds, **options)
        self.report.add(self.theme, label, found, base)
        return found

    def judge(self, key: str, label: str, value: float) -> None:
        self.report.judge(key, label, value)

    def judge_ratio(self, key: str, label: str, found: Comparison, side: str, other: str) -> None:
        """Judge how many times longer `side` takes than `other`, if both were there."""
        if side in found.samples and other in found.samples:
            self.judge(key, label, found.ratio(side, other))
