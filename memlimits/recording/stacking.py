"""What several processes hold together over time."""

from itertools import groupby
from operator import itemgetter

from memlimits.recording.thinning import highest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memlimits.recording.history import Process

    Changes = list[tuple[float, int, int]]


def _changes(groups: "Sequence[Sequence[Process]]") -> "Changes":
    """Return when which group's footprint changed by how much; what ended holds nothing."""
    found = []
    for number, group in enumerate(groups):
        for process in group:
            before = 0
            for sample in process.samples:
                if process.ending is not None and sample.at >= process.last:
                    break
                found.append((sample.at, number, sample.footprint - before))
                before = sample.footprint
            if process.ending is not None:
                found.append((process.last, number, -before))
    return sorted(found)


def totals(processes: "Sequence[Process]") -> "list[tuple[float, int]]":
    """Return what they held together from each instant on at which any of them was sampled.

    Returns
    -------
    list of tuple
        Seconds since 1970, which go up, and bytes.
    """
    found, total = [], 0
    for at, changes in groupby(_changes([processes]), itemgetter(0)):
        total += sum(change for _, _, change in changes)
        found.append((at, total))
    return found


def stack(
    groups: "Sequence[Sequence[Process]]", most: int
) -> "tuple[list[float], list[list[int]]]":
    """Return what groups of processes held, at instants at which all together held most.

    Parameters
    ----------
    groups : sequence of sequences of Process
    most : int
        How many instants at most. Of more, that with the largest sum of each span of time stays.

    Returns
    -------
    tuple
        The instants, and for each group its bytes at each of them.
    """
    sums = totals([process for group in groups for process in group])
    instants = sums
    width = (sums[-1][0] - sums[0][0]) / most if sums else 1.0
    while len(instants) > max(2, most):
        width = 2 * width or 1.0
        kept = highest(sums[1:-1], width, itemgetter(0), (itemgetter(1),))
        instants = [sums[0], *kept, sums[-1]]
    times = [at for at, _ in instants]
    heights = [[0] * len(groups) for _ in times]
    current, place = [0] * len(groups), 0
    for at, number, change in _changes(groups):
        while place < len(times) and times[place] < at:
            heights[place] = list(current)
            place += 1
        current[number] += change
    for later in range(place, len(times)):
        heights[later] = list(current)
    return times, [[height[number] for height in heights] for number in range(len(groups))]
