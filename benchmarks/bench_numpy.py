"""NumPy expressions: under govern_numpy() against NumPy as it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from timing import Comparison, Side, compare

import memlimits

TITLE = "NumPy with arrays of 4 Mi doubles"
BASELINE = "plain"
COUNT = 4 << 20
EXPRESSIONS = [
    "a + b",
    "a * b + c",
    "np.sqrt(a * a + b * b) - c * a",
    "a.astype('f4') * 2",
]


def run(*, rounds: int, seconds: float) -> dict[str, Comparison]:
    results = {}
    for expression in EXPRESSIONS:
        sides = {
            "governed": Side(expression, _inputs, memlimits.govern_numpy),
            "plain": Side(expression, _inputs),
        }
        results[expression] = compare(sides, rounds=rounds, seconds=seconds)
    return results


def _inputs() -> Mapping[str, Any]:
    random = np.random.default_rng(0)
    return {"np": np, **{name: random.random(COUNT) for name in "abc"}}
