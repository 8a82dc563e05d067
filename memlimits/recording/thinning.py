"""Which of too many entries go: never the highest, and never one that did not happen."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Item = TypeVar("Item")


def highest(
    items: "Sequence[Item]",
    width: float,
    at: "Callable[[Item], float]",
    sizes: "Sequence[Callable[[Item], int]]",
) -> "list[Item]":
    """Return of each span of time the items with the largest sizes, in their order.

    They are items that were given, no averages: a peak stays, at its instant.

    Parameters
    ----------
    items : sequence
    width : float
        Seconds that a span of time takes.
    at : callable
        Returns when an item was.
    sizes : sequence of callable
        Each returns a size of an item, of which the largest of each span stays.
    """
    best: dict[tuple[int, int], int] = {}
    for place, item in enumerate(items):
        span = int(at(item) // width)
        for which, size in enumerate(sizes):
            kept = best.get((span, which))
            if kept is None or size(item) > size(items[kept]):
                best[span, which] = place
    return [items[place] for place in sorted(set(best.values()))]


def first_and_largest(
    items: "Sequence[Item]", most: int, cost: "Callable[[Item], int]", size: "Callable[[Item], int]"
) -> "list[Item]":
    """Return the first item and the largest ones that cost no more than that together.

    Parameters
    ----------
    items : sequence
    most : int
        What they may cost together. Those that cost more are left out, but for the first and the
        largest.
    cost : callable
        Returns what an item costs.
    size : callable
        Returns how large one is.
    """
    order = sorted(range(len(items)), key=lambda place: (-size(items[place]), place))
    kept, spent = set(), 0
    for rank, place in enumerate([*order[:1], *([0] if items else []), *order[1:]]):
        if place in kept:
            continue
        spent += cost(items[place])
        if spent > most and rank > 1:
            spent -= cost(items[place])
            continue
        kept.add(place)
    return [items[place] for place in sorted(kept)]
