"""What changes from one look of ``memlimits top`` to the next."""

import time
from array import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.cli.source import Everything, Facts, Family, Members

    Key = tuple[int, float]

NEAR = 0.85  # of a limit: where what is active is above it, little is left
_MOMENT = 5.0  # seconds for which a refusal is a matter of now
_LINGER = 4.0  # seconds for which one that ended stays
_KEPT = 60.0  # seconds for which what is known of one that is not seen is kept
_LOOKS = 120  # of which the footprint is kept

_RATES = ("misses", "refusals", "waits", "overruns", "evictions", "trims", "footprint", "active")
_GROWING = ("footprint", "active", "idle", "peak", "resident", "wired", "refusals", "waits")


class Look:
    """What was seen at one moment.

    Attributes
    ----------
    at : float
        Seconds since 1970.
    rows : list of dict
        Processes: what `memlimits.processes.get` returns, and ``pool``, ``held``, ``waiting_for``
        and ``waiting_since`` of its place in a pool; ``of_limit``, the footprint as a fraction of
        the limit; ``marks``, of ``"ended"``, ``"near"``, ``"refused"`` and ``"waits"``; ``grew``,
        names of what grew since the look before; and ``rates``, a second since then, or None.
    pools : list of dict
        What `memlimits.pools.get` returns, as members said it last; and ``of_limit``.
    note : str
        Why there is nothing, or nothing more, to see; empty otherwise.
    cost : float
        Seconds of processor time that it took.
    """

    def __init__(self, rows: "list[Facts]", pools: "list[Facts]", note: str, cost: float) -> None:
        self.at = time.time()
        self.rows = rows
        self.pools = pools
        self.note = note
        self.cost = cost


class Seen:
    """What is known of one process from the looks before."""

    def __init__(self) -> None:
        self.facts: Facts | None = None
        self.at = 0.0
        self.refused_at = -_MOMENT
        self.history = array("Q")


class Watch:
    """Looks at a source, and compares what it sees with what was there before.

    Parameters
    ----------
    source : Everything, Family or Members
    seen : dict, optional
        What another watch knows, to share.
    """

    def __init__(
        self, source: "Everything | Family | Members", seen: "dict[Key, Seen] | None" = None
    ) -> None:
        self.source = source
        self.seen: dict[Key, Seen] = {} if seen is None else seen
        self._shown: dict[Key, Facts] = {}
        self._ended: dict[Key, float] = {}

    def look(self) -> Look:
        """Look now; what the source raises is raised."""
        began = time.thread_time()
        rows, pools = self.source.find()
        now = time.monotonic()
        for row in rows:
            self._compare(row, now)
        for pool in pools:
            used = sum(member["used"] for member in pool["members"])
            pool["of_limit"] = used / pool["limit"] if pool["limit"] else None
        self._shown = {key_of(row): row for row in [*rows, *self._those_that_ended(rows, now)]}
        for key in [key for key, seen in self.seen.items() if seen.at < now - _KEPT]:
            del self.seen[key]
        shown = list(self._shown.values())
        return Look(shown, pools, self.source.note, time.thread_time() - began)

    def history(self, row: "Facts") -> "array[int]":
        """Return the footprints of a process at the looks up to now."""
        seen = self.seen.get(key_of(row))
        return seen.history if seen else array("Q")

    def _compare(self, row: "Facts", now: float) -> None:
        seen = self.seen.setdefault(key_of(row), Seen())
        before = seen.facts or row
        past = now - seen.at if seen.facts else 0.0
        row["of_limit"] = _of_limit(row)
        row["grew"] = [name for name in _GROWING if _number(row, name) > _number(before, name)]
        row["rates"] = None
        if past > 0:
            row["rates"] = {
                name: (_number(row, name) - _number(before, name)) / past for name in _RATES
            }
        if "refusals" in row["grew"]:
            seen.refused_at = now
        row["marks"] = _marks(row, now - seen.refused_at < _MOMENT)
        seen.facts, seen.at = row, now
        seen.history.append(row["footprint"])
        del seen.history[:-_LOOKS]

    def _those_that_ended(self, rows: "list[Facts]", now: float) -> "list[Facts]":
        """Those of the last look that are no more: they stay for a moment."""
        there = {key_of(row) for row in rows}
        ended = {key: row for key, row in self._shown.items() if key not in there}
        self._ended = {key: self._ended.get(key, now) for key in ended}
        return [
            {**row, "marks": ["ended"], "grew": [], "rates": None}
            for key, row in ended.items()
            if now - self._ended[key] < _LINGER
        ]


def key_of(row: "Facts") -> "Key":
    """Return what tells a process from a later one with its pid."""
    return row["pid"], row["began"]


def limit_of(row: "Facts") -> "int | None":
    """Return what bounds a process, in bytes: its memory limit, or its pool's if that is less."""
    limits = [row[name] for name in ("memory_limit", "pool_limit") if row[name] is not None]
    return min(limits) if limits else None


def counted(row: "Facts", name: str) -> int:
    """Return how much of a footprint, or of what is active, counts, as far as it can be told.

    Of what is counted as resident, or with all that the process holds, the process itself knows
    more: it looks at its mappings.
    """
    size = _number(row, name)
    if row["memory_count"] == "resident":
        return min(size, _number(row, "resident"))
    if row["memory_count"] == "process":
        return max(size, _number(row, "resident"))
    return size


def _of_limit(row: "Facts") -> "float | None":
    limit = limit_of(row)
    return counted(row, "footprint") / limit if limit else None


def _marks(row: "Facts", refused: bool) -> "list[str]":
    limit = limit_of(row)
    near = limit is not None and counted(row, "active") >= NEAR * limit
    waits = row["waiting"] or row["waiting_since"] is not None
    marks = {"waits": waits, "refused": refused, "near": near}
    return [name for name, holds in marks.items() if holds]


def _number(row: "Facts", name: str) -> int:
    return row[name] or 0
