"""Time several statements against each other, alternately, in one process.

A machine's speed drifts while a benchmark runs. Sides that take turns (A B A B)
meet the same drift, so their ratio holds where the times alone do not.
"""

import contextlib
import statistics
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One statement to time; `prepare` makes its names, inside `context` like every run of it."""

    statement: str
    prepare: Callable[[], Mapping[str, Any]]
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclass
class Comparison:
    """Nanoseconds per operation, one sample a round, for each side by name."""

    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, side: str) -> float:
        return statistics.median(self.samples[side])

    def spread(self, side: str) -> float:
        """Return the interquartile range as a fraction of the median."""
        low, _, high = statistics.quantiles(self.samples[side], n=4, method="inclusive")
        return (high - low) / self.median(side)

    def ratio_of_medians(self, side: str, other: str) -> float:
        """Return how many times `other` takes longer than `side`."""
        return self.median(other) / self.median(side)

    def median_of_ratios(self, side: str, other: str) -> float:
        """As `ratio_of_medians`, from the ratio within each round."""
        pairs = zip(self.samples[side], self.samples[other], strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


def compare(sides: Mapping[str, Side], *, rounds: int, seconds: float) -> Comparison:
    """Time each side in every round; a sample takes about `seconds` or one operation.

    The loop that repeats the statement, a few ns an operation, is part of every
    sample. `timeit` switches the garbage collector off while it times.
    """
    runs = {name: _prepare(side, seconds) for name, side in sides.items()}
    result = Comparison({name: [] for name in sides})
    for _ in range(rounds):
        for name, (timer, number) in runs.items():
            with sides[name].context():
                result.samples[name].append(timer.timeit(number) / number * 1e9)
    return result


def _prepare(side: Side, seconds: float) -> tuple[timeit.Timer, int]:
    with side.context():
        timer = timeit.Timer(side.statement, globals=dict(side.prepare()))
        timer.timeit(1)  # the first operation faults pages in and fills caches
        number = 1
        while (took := timer.timeit(number)) < seconds / 4:
            number *= 4
    return timer, max(1, round(number * seconds / took))
