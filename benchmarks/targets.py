"""What each figure is held against: the one place that has a bound."""

from dataclasses import dataclass

KIB = 1 << 10


@dataclass(frozen=True)
class Target:
    """A bound on a figure. A figure in "x" is a ratio of two sides' times, or of two counts."""

    row: str
    text: str
    bound: float
    at_most: bool
    unit: str = "x"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def margin(self, value: float) -> float:
        """Return how many times better than the bound a figure is; below 1 it misses it."""
        if 0 in (value, self.bound):
            return 1.0 if self.met(value) else 0.0
        return self.bound / value if self.at_most else value / self.bound

    def show(self, value: float) -> str:
        whole = self.unit in ("bytes", "count")
        return f"{value:,.0f}" if whole else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"

    @property
    def shown_bound(self) -> str:
        unit = {"x": "x", "count": ""}.get(self.unit, " " + self.unit)
        return f"{'<=' if self.at_most else '>='} {self.show(self.bound)}{unit}"


def _at_most(row: str, bound: float, text: str, unit: str = "x") -> Target:
    return Target(row, text, bound, True, unit)


def _at_least(row: str, bound: float, text: str, unit: str = "x") -> Target:
    return Target(row, text, bound, False, unit)


TARGETS = {
    "floor": _at_most("1", 1.4, "allocate and release: time of the floor class"),
    "np.empty(4096)": _at_least("1", 4.5, "np.empty(4096): time of allocate and release"),
    "empty small": _at_least("2", 1.5, "np.empty(n) of 4 KiB: time of memlimits.empty(n)"),
    "empty touched": _at_least("2", 25, "np.empty(n) of 256 MiB, every page written: likewise"),
    "MLX hits": _at_least("3", 6, "MLX: time of a hit"),
    "MLX replacement": _at_least("3", 12, "MLX: time of a random replacement"),
    "mimalloc small": _at_most("3", 0.8, "a random replacement: time of mimalloc"),
    "mimalloc middle": _at_most("3", 0.6, "a random replacement: time of mimalloc"),
    "mimalloc large": _at_most("3", 0.1, "above 1 MiB: time of mimalloc"),
    "two threads": _at_most("4", 1.4, "a pair on two threads: time of one on one thread"),
    "MLX threads": _at_least("4", 40, "MLX on two threads: time of a pair"),
    "remote free": _at_most("4", 2, "a block freed on another thread: time of mimalloc"),
    "scaling": _at_most("4b", 1.1, "a random replacement: time of mimalloc"),
    "near the limit": _at_most("4b", 3, "the same, limit 1.5 x the working set: time of mimalloc"),
    "near tcmalloc": _at_most("4d", 1, "near a strict limit: time of tcmalloc with that limit"),
    "near refusals": _at_most("4d", 0, "near a strict limit: blocks refused", "count"),
    "instructions": _at_most("5", 1.05, "a hit's instructions: with 10 blocks cached"),
    "MLX cached": _at_least("5", 50, "MLX: time of a hit with 100,000 blocks cached"),
    "default NumPy": _at_least("6", 1.4, "default NumPy, 4 Mi doubles: time under govern_numpy()"),
    "tuned glibc": _at_least("6", 0.95, "NumPy over tuned glibc: time under govern_numpy()"),
    "nothing slower": _at_least("6", 0.97, "default NumPy, any size: time under govern_numpy()"),
    "zeros": _at_most("6", 1.1, "np.zeros: time of default NumPy"),
    "nothing kept": _at_most("6", 1.1, "nothing kept for reuse: time of default NumPy"),
    "resident": _at_most("6", 1.0, "peak resident bytes: default NumPy"),
    "import": _at_most("7", 4, "import memlimits: over bare Python", "ms"),
    "import NumPy": _at_most("7", 0, "modules of NumPy that it imports", "count"),
    "getters": _at_most("8", 1, "a getter: 1.3 x a function with a constant, plus 10 ns a heap"),
    "growth": _at_most("8b", 1.3, "monotone growth: time of mimalloc"),
    "ended": _at_most("8b", 1.05, "growth after threads have ended: time in a fresh process"),
    "peak": _at_most("8b", 64 * KIB, "peak above the bytes in use at once, a heap", "bytes"),
    "over": _at_most("9", 0, "strict: bytes over the limit", "bytes"),
    "wrong refusals": _at_most("9", 0, "strict: refusals while the bytes were there", "count"),
    "objects": _at_most("objects", 1, "Python's objects under govern_python(): time without"),
    "resident objects": _at_most("objects", 1.05, "likewise: peak resident bytes"),
    "holders": _at_most("holders", 1.03, "who allocates is noted: time without"),
    "pool growth": _at_most("pools", 100, "growth in a pool: over growth without one", "ns"),
    "pool together": _at_most(
        "pools", 2, "8 processes of a pool that grow at once: processor time of one alone"
    ),
    "steps": _at_most("10", 1, "realloc in steps: time of mimalloc"),
    "shifting peak": _at_most("11", 1.25, "sizes that shift: peak resident over peak live"),
    "shifting mean": _at_most("11", 2, "likewise: mean of resident over live"),
    "below": _at_most("limit", 3, "limit below the working set: time with cache limit 0"),
}
