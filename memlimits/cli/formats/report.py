"""The report: a time line with what held the memory at each point, as one HTML file."""

from operator import attrgetter

from memlimits.cli.formats.page import build
from memlimits.recording.stacking import stack
from memlimits.recording.thinning import first_and_largest, highest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from memlimits.recording import History, Process
    from memlimits.recording.history import Held, Refusal, Sample, Together

_MOST_BYTES = 4 << 20
_SERIES = ("footprint", "active", "cache", "resident", "waiting")
# Of what a page may show at most, in its first try: fewer where it gets too long.
_SAMPLES = 16_000
_PROCESSES = 60
_INSTANTS = 2000
_AREAS = 6  # one above the other
_HOLDERS = 400  # points of time
_ROWS = 20  # holders at each
_MARKS = 400  # refusals; and waits of a process
_FRAMES = 40  # of a stack, the innermost
_LONGEST = 300  # characters


def make(history: "History", _: float) -> bytes:
    """Return the page of a recording; it is of all times."""
    part = 1
    while True:
        page = build("report", f"Memory of {_title(history)}", _Data(history, part).plain())
        if len(page) <= _MOST_BYTES or part >= 64:
            return page
        part *= 2


def _title(history: "History") -> str:
    return _short(" ".join(history.reader.first.get("program", [])) or history.reader.path)


def _short(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


class _Data:
    """What the page shows of a recording: a part of what it could show."""

    def __init__(self, history: "History", part: int) -> None:
        self.history = history
        self.part = part
        # A day in milliseconds takes as much room as a second in microseconds.
        self.digits = 3 if history.last - history.first > 100 else 6
        most = max(2, _PROCESSES // part)
        largest = sorted(history.processes, key=lambda process: -process.peak)[:most]
        self.processes = [process for process in history.processes if process in largest]
        self.place = {process: place for place, process in enumerate(self.processes)}
        self.stacks: dict[tuple[tuple[str, int, str], ...], int] = {}
        self.frames: dict[tuple[str, int, str], int] = {}
        self.thinned = False

    def plain(self) -> "dict[str, Any]":
        history = self.history
        samples = self._thinned_samples()
        processes = [self._process(process, samples[process]) for process in self.processes]
        holders = [self._holders(held) for held in self._spread(history.held)]
        refusals = [self._refusal(refusal) for refusal in self._largest(history.refusals)]
        pool = [
            [self._time(one.at), one.used, one.limit] for one in self._thinned_pool(history.pool)
        ]
        notes = history.notes()
        others = len(history.processes) - len(self.processes)
        if others:
            notes.append(f"the {others:,} processes that held least are not shown")
        if self.thinned:
            notes.append(
                "there is more in the recording than a picture can show: of each span of time what "
                "is highest is shown"
            )
        return {
            "title": _title(history),
            "begun": history.first,
            "length": self._time(history.last),
            "notes": notes,
            "machine": self._machine(),
            "peak": self._time(history.peak_at()),
            "highest": history.held_at(history.peak_at()),
            "processes": processes,
            "pool": pool,
            "together": self._together(),
            "refusals": refusals,
            "holders": holders,
            # Filled by what is above.
            "stacks": [[self.frames[frame] for frame in stack] for stack in self.stacks],
            "frames": [[_short(file), line, _short(name)] for file, line, name in self.frames],
        }

    def _time(self, at: float) -> float:
        return round(at - self.history.first, self.digits)

    def _machine(self) -> "dict[str, str]":
        first = self.history.reader.first
        facts = {**first.get("machine", {}), **first}
        names = ("device_name", "memory_size", "memlimits", "python")
        return {
            name: facts[name] if isinstance(facts[name], int) else _short(str(facts[name]))
            for name in names
            if name in facts
        }

    def _thinned_samples(self) -> "dict[Process, list[Sample]]":
        found = {process: process.samples for process in self.processes}
        most = _SAMPLES // self.part
        width = max(0.001, (self.history.last - self.history.first) / most)
        sizes = (attrgetter("footprint"), attrgetter("resident"), attrgetter("waiting"))
        while sum(map(len, found.values())) > most and width < 1e9:
            self.thinned = True
            found = {
                process: _with_last(samples, highest(samples, width, attrgetter("at"), sizes))
                for process, samples in found.items()
            }
            width *= 2
        return found

    def _together(self) -> "dict[str, Any]":
        """Return the largest processes' footprints at the same instants, and of the others a sum.

        Its own samples make the line of each process: of each span its highest. Those of several
        are of several instants, and their sum is of none.
        """
        order = sorted(self.history.processes, key=lambda process: -process.peak)
        alone = order if len(order) <= _AREAS else order[: _AREAS - 1]
        groups = [[process] for process in alone]
        if len(order) > _AREAS:
            groups.append(order[_AREAS - 1 :])
        times, heights = stack(groups, _INSTANTS // self.part)
        return {
            "of": [self.place.get(process, -1) for process in alone],
            "others": len(order) - len(alone),
            "at": [self._time(at) for at in times],
            "heights": heights,
        }

    def _thinned_pool(self, pool: "Sequence[Together]") -> "Sequence[Together]":
        most, width = 4000 // self.part, (self.history.last - self.history.first) / 4000 or 1.0
        while len(pool) > most and width < 1e9:
            pool, width = highest(pool, width, attrgetter("at"), (attrgetter("used"),)), 2 * width
        return pool

    def _process(self, process: "Process", samples: "list[Sample]") -> "dict[str, Any]":
        return {
            "pid": process.pid,
            "parent": process.parent,
            "command": _short(process.command),
            "policy": _short(str(process.facts.get("policy") or "")),
            "ending": process.ending,
            "first": self._time(process.first),
            "last": self._time(process.last),
            "peak": process.peak,
            "limits": [[self._time(at), limit] for at, limit in process.limits[-200:]],
            "refused": max((sample.refusals for sample in samples), default=0),
            "waited": max((sample.waits for sample in samples), default=0),
            "waits": [self._time(at) for at in self._waits(process)],
            "at": [self._time(sample.at) for sample in samples],
            **{name: [getattr(sample, name) for sample in samples] for name in _SERIES},
        }

    def _waits(self, process: "Process") -> "list[float]":
        found = []
        before = 0
        for sample in process.samples:
            if sample.waits > before or sample.waiting:
                found.append(sample.at)
            before = sample.waits
        step = -(-len(found) // (_MARKS // self.part or 1)) or 1
        return found[::step]

    def _spread(self, held: "list[Held]") -> "list[Held]":
        held = [one for one in held if one.process in self.place]
        most = _HOLDERS // self.part
        width = max(0.001, (self.history.last - self.history.first) / most)
        while len(held) > most and width < 1e9:
            groups: dict[Process, list[Held]] = {}
            for one in held:
                groups.setdefault(one.process, []).append(one)
            kept = [
                highest(group, width, attrgetter("at"), (attrgetter("size"),))
                for group in groups.values()
            ]
            held = sorted((one for group in kept for one in group), key=attrgetter("at"))
            width *= 2
            self.thinned = True
        return held

    def _largest(self, refusals: "list[Refusal]") -> "list[Refusal]":
        refusals = [one for one in refusals if one.process in self.place]
        return first_and_largest(
            refusals, _MARKS // self.part, lambda _: 1, attrgetter("requested")
        )

    def _holders(self, held: "Held") -> "dict[str, Any]":
        holders = self.history.holders(held)
        return {
            "at": self._time(held.at),
            "process": self.place[held.process],
            "size": held.size,
            "rows": self._rows(holders),
        }

    def _rows(self, holders: "list[dict[str, Any]]") -> "list[list[int]]":
        rows = []
        for holder in by_line(holders)[: max(3, _ROWS // self.part)]:
            stack = holder["frames"][-_FRAMES:]
            for frame in stack:
                self.frames.setdefault(frame, len(self.frames))
            place = (holder["file"], holder["line"], holder["function"])
            self.frames.setdefault(place, len(self.frames))
            number = self.stacks.setdefault(stack, len(self.stacks))
            rows.append([self.frames[place], holder["nbytes"], holder["blocks"], number])
        return rows

    def _refusal(self, refusal: "Refusal") -> "dict[str, Any]":
        numbers = refusal.numbers
        names = ("requested", "limit", "active", "cache", "slack")
        return {
            "at": self._time(refusal.at),
            "process": self.place[refusal.process],
            **{name: numbers.get(name) for name in names},
            "blocked_by": _short(str(numbers.get("blocked_by") or "")),
            "rows": self._rows(self.history.with_frames(numbers.get("holders", []))),
        }


def by_line(holders: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    """Return what lines hold, the largest first, each with the calls that led to most of it."""
    lines: dict[tuple[str, int, str], dict[str, Any]] = {}
    for holder in holders:
        line = lines.setdefault((holder["file"], holder["line"], holder["function"]), {**holder})
        if line["frames"] is not holder["frames"]:
            line["nbytes"] += holder["nbytes"]
            line["blocks"] += holder["blocks"]
    return sorted(lines.values(), key=lambda line: -line["nbytes"])


def _with_last(samples: "list[Sample]", kept: "list[Sample]") -> "list[Sample]":
    """Return them with the last one, at which the line ends."""
    return kept if not samples or kept[-1] is samples[-1] else [*kept, samples[-1]]
