"""Time several sides against each other, alternately, in one run.

A machine's speed drifts while a benchmark runs. Sides that take turns (A B A B)
meet the same drift, so their ratio holds where the times alone do not.
"""

import contextlib
import statistics
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Performs an operation so many times, and returns the nanoseconds they took in all.
Timed = Callable[[int], float]


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

    def ratio(self, side: str, other: str) -> float:
        """Return how many times longer `side` takes than `other`: the median of the rounds'."""
        pairs = zip(self.samples[side], self.samples[other], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def compare(
    sides: Mapping[str, Timed],
    *,
    rounds: int,
    seconds: float,
    warm_up: int = 1,
    least: int = 1,
    most: int = 1 << 40,
) -> Comparison:
    """Time each side in every round; a sample takes about `seconds`, or one operation.

    `warm_up` operations come first: they fault pages in and fill caches. A sample has at least
    `least` operations, for threads that wait for each other: where the machine has other work, one
    wait takes longer than a short sample. `most` bounds those that take long outside their time.
    """
    numbers = {
        name: _calibrate(timed, seconds, warm_up, least, most) for name, timed in sides.items()
    }
    result = Comparison({name: [] for name in sides})
    for _ in range(rounds):
        for name, timed in sides.items():
            result.samples[name].append(timed(numbers[name]) / numbers[name])
    return result


def _calibrate(timed: Timed, seconds: float, warm_up: int, least: int, most: int) -> int:
    """Return how many operations take about `seconds`."""
    timed(warm_up)
    number = least
    while number < most and (took := timed(number) / 1e9) < seconds / 4:
        number *= 4
    return most if number >= most else max(least, round(number * seconds / took))


def statement(
    source: str,
    names: Mapping[str, Any],
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Timed:
    """Make a side of a Python statement, each sample inside `context`.

    The loop that repeats it, a few ns an operation, is part of every sample.
    `timeit` switches the garbage collector off while it times.
    """
    timer = timeit.Timer(source, globals=dict(names))

    def timed(number: int) -> float:
        with context():
            return timer.timeit(number) * 1e9

    return timed
