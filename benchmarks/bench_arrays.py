"""Row 2: memlimits.empty as an array, against numpy.empty."""

import numpy as np
from session import KIB, MIB, Session, size_label
from timing import statement

import memlimits

TITLE = "memlimits.empty(n) and np.empty(n)"
# One write to every page, less than a page apart: at exactly a page they would all fall into the
# same few sets of the processor's caches.
WRITE = "[::4032] = 1"


def run(session: Session) -> None:
    cases = [("empty small", 4 * KIB, "", ""), ("empty touched", 256 * MIB, WRITE, ", every page")]
    for key, size, then, suffix in cases:
        names = {"size": size, "empty": memlimits.empty, "np_empty": np.empty}
        sides = {
            "memlimits.empty": statement("empty(size, 'u1')" + then, names),
            "np.empty": statement("np_empty(size, 'u1')" + then, names),
        }
        label = size_label(size) + suffix
        found = session.compare(label, sides, base="np.empty")
        session.judge_ratio(key, label, found, "np.empty", "memlimits.empty")
        memlimits.clear_cache()
