"""A trace for https://ui.perfetto.dev: counters by process, refusals and waits at their instants.

It is written in the format of protocol buffers, of which few messages are needed; the numbers of
their fields are those of Perfetto's `trace.proto`.
"""

from itertools import pairwise
from operator import attrgetter

from memlimits.recording.entries import SIZES
from memlimits.recording.history import clean
from memlimits.sizes import format_limit, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memlimits.recording import History, Process
    from memlimits.recording.history import Refusal, Sample

_SIZES = (*(name for name in SIZES if name != "peak"),)
_SEQUENCE = 1
_BOOT_CLOCK, _REAL_CLOCK = 6, 1  # The first is what timestamps are in, from the beginning on.
_INSTANT, _COUNTER = 3, 4
_BYTES, _COUNT = 3, 2
_MOST = 2**63 - 1  # of a counter's value
_ALL = 1  # the track of all processes

# Of TracePacket, and of what is in it.
_TIMESTAMP, _CLOCKS, _SEQUENCE_ID, _EVENT, _FLAGS, _TRACK = 8, 6, 10, 11, 13, 60


def _number(field: int, value: int) -> bytes:
    """A field that is a whole number, of which none is negative."""
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: "bytes | str") -> bytes:
    """A field that is text, or a message."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def make(history: "History", _: float) -> bytes:
    """Return the trace of a recording; it is of all times."""
    return b"".join(_bytes(1, packet) for packet in _Trace(history).packets())


class _Trace:
    """Numbers for tracks, and the packets."""

    def __init__(self, history: "History") -> None:
        self.history = history
        self.tracks = _ALL

    def packets(self) -> "Iterator[bytes]":
        clocks = [(_BOOT_CLOCK, 0), (_REAL_CLOCK, round(self.history.first * 1e9))]
        snapshot = b"".join(_bytes(1, _number(1, clock) + _number(2, at)) for clock, at in clocks)
        # The first packet says that no state of before it is needed.
        yield _bytes(_CLOCKS, snapshot) + _number(_SEQUENCE_ID, _SEQUENCE) + _number(_FLAGS, 1)
        if self.history.pool:
            yield from self._pool()
        for place, process in enumerate(self.history.processes):
            yield from self._process(process, place)

    def _new(
        self, *, parent: int, name: str = "", counter: "int | None" = None
    ) -> "Iterator[bytes]":
        self.tracks += 1
        track = _number(1, self.tracks) + _number(5, parent) + _bytes(2, name)
        if counter is not None:
            track += _bytes(8, _number(3, counter))
        yield _bytes(_TRACK, track)

    def _event(self, at: float, track: int, kind: int, rest: bytes) -> bytes:
        event = _number(9, kind) + _number(11, track) + rest
        when = max(0, round((at - self.history.first) * 1e9))
        packet = _number(_TIMESTAMP, when) + _number(_SEQUENCE_ID, _SEQUENCE)
        return packet + _bytes(_EVENT, event)

    def _values(self, track: int, values: "Iterable[tuple[float, int]]") -> "Iterator[bytes]":
        """A counter: where it does not change, nothing is to be said, but for its last value."""
        before, waits = None, None
        for at, number in values:
            value = min(number, _MOST)
            waits = None if value != before else (at, value)
            if value != before:
                yield self._event(at, track, _COUNTER, _number(30, value))
            before = value
        if waits is not None:
            yield self._event(waits[0], track, _COUNTER, _number(30, waits[1]))

    def _pool(self) -> "Iterator[bytes]":
        yield _bytes(_TRACK, _number(1, _ALL) + _bytes(2, "all processes"))
        pool = self.history.pool
        yield from self._new(parent=_ALL, name="all processes: used", counter=_BYTES)
        yield from self._values(self.tracks, [(one.at, one.used) for one in pool])
        limits = [(one.at, one.limit) for one in pool if one.limit is not None]
        if limits:
            yield from self._new(parent=_ALL, name="all processes: limit", counter=_BYTES)
            yield from self._values(self.tracks, limits)

    def _process(self, process: "Process", place: int) -> "Iterator[bytes]":
        self.tracks += 1
        own = self.tracks
        # Of two processes that had one id one after the other, the second has a number of ours.
        used = {one.pid for one in self.history.processes[:place]}
        pid = (1 << 30) + own if process.pid in used else process.pid
        about = _number(1, pid) + _bytes(6, process.command or str(process.pid))
        yield _bytes(_TRACK, _number(1, own) + _bytes(3, about))
        for name in _SIZES:
            if any(getattr(sample, name) for sample in process.samples):
                yield from self._new(parent=own, name=name, counter=_BYTES)
                values = [(sample.at, getattr(sample, name)) for sample in process.samples]
                yield from self._values(self.tracks, values)
        if any(sample.waiting for sample in process.samples):
            yield from self._new(parent=own, name="waiting", counter=_COUNT)
            values = [(sample.at, sample.waiting) for sample in process.samples]
            yield from self._values(self.tracks, values)
        limits = [(at, limit) for at, limit in process.limits if limit is not None]
        if limits:
            yield from self._new(parent=own, name="memory limit", counter=_BYTES)
            last = [(max(process.last, limits[-1][0]), limits[-1][1])]
            yield from self._values(self.tracks, limits + last)
        yield from self._instants(process, own)

    def _instants(self, process: "Process", own: int) -> "Iterator[bytes]":
        refusals = [one for one in self.history.refusals if one.process is process]
        waits = [*_rises(process.samples, "waits")]
        if not (refusals or waits or process.ending):
            return
        yield from self._new(parent=own, name="events")
        track = self.tracks
        for refusal in refusals:
            yield self._event(refusal.at, track, _INSTANT, _refusal(refusal))
        for at, number in waits:
            rest = _bytes(23, "wait" if number == 1 else f"{number} waits")
            yield self._event(at, track, _INSTANT, rest)
        if process.ending:
            yield self._event(process.last, track, _INSTANT, _bytes(23, process.ending))


def _rises(samples: "list[Sample]", name: str) -> "Iterator[tuple[float, int]]":
    """Yield when a count rose, and by how much."""
    of = attrgetter(name)
    for before, after in pairwise(samples):
        if of(after) > of(before):
            yield after.at, of(after) - of(before)


def _refusal(refusal: "Refusal") -> bytes:
    """The name of an instant, and what is shown of it where one clicks."""
    numbers = refusal.numbers
    rest = _bytes(23, f"refused {format_size(numbers['requested'])}")
    for name in ("requested", "active", "cache", "slack"):
        rest += _bytes(4, _bytes(10, name) + _number(3, numbers.get(name) or 0))
    facts = {"limit": format_limit(numbers.get("limit"))}
    facts["blocked_by"] = clean(numbers.get("blocked_by") or "")
    for name, text in facts.items():
        rest += _bytes(4, _bytes(10, name) + _bytes(6, text))
    return rest
