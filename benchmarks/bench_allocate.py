"""Allocate and release: memlimits against numpy.empty and bytearray."""

import numpy as np
from timing import Comparison, Side, compare

import memlimits

TITLE = "allocate and release one block"
BASELINE = "np.empty"
KIB, MIB = 1 << 10, 1 << 20
SIZES = [64, KIB, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB]
# One write to every page, less than a page apart: at exactly a page they would all fall into the
# same few sets of the processor's caches.
WRITE = "[::4032] = 1"
TOUCHED = [64 * KIB, MIB, 16 * MIB, 256 * MIB]


def run(*, rounds: int, seconds: float) -> dict[str, Comparison]:
    results = {}
    for size in SIZES:
        names = {
            "size": size,
            "allocate": memlimits.allocate,
            "empty": memlimits.empty,
            "np_empty": np.empty,
        }
        sides = {
            "allocate": Side("allocate(size).release()", lambda names=names: names),
            "empty": Side("empty(size, 'u1')", lambda names=names: names),
            "np.empty": Side("np_empty(size, 'u1')", lambda names=names: names),
            "bytearray": Side("bytearray(size)", lambda names=names: names),
        }
        results[_label(size)] = compare(sides, rounds=rounds, seconds=seconds)
        memlimits.clear_cache()
    for size in TOUCHED:
        names = {"size": size, "empty": memlimits.empty, "np_empty": np.empty}
        sides = {
            "empty": Side("empty(size, 'u1')" + WRITE, lambda names=names: names),
            "np.empty": Side("np_empty(size, 'u1')" + WRITE, lambda names=names: names),
        }
        results[f"{_label(size)}, every page written"] = compare(
            sides, rounds=rounds, seconds=seconds
        )
        memlimits.clear_cache()
    return results


def _label(size: int) -> str:
    for unit, factor in (("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"
