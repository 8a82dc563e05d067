"""Reading a recording into bounded memory."""

from operator import attrgetter

from memlimits.recording.entries import COUNTS, NEEDED, SIZES, total
from memlimits.recording.history import Held, History, Process, Refusal, Sample, Together, clean
from memlimits.recording.reader import Reader
from memlimits.recording.thinning import first_and_largest, highest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

__all__ = ["load"]

_VALUES = (*SIZES, *COUNTS)
_MOST_SAMPLES = 50_000
_MOST_PROCESSES = 2_000
_MOST_OTHERS = 2_000  # refusals, holders, snapshots, samples of the pool
_MOST_STACKS = 50_000
_SAMPLE_SIZES = (attrgetter("footprint"), attrgetter("resident"))


def load(path: "str | os.PathLike[str]", *, most_samples: int = _MOST_SAMPLES) -> History:
    """Read a recording into memory, in bounded space.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    most_samples : int
        How many samples of processes to keep at most. Of more those with the most footprint and the
        most resident of each span of time stay, at their own instants.

    Returns
    -------
    History
        What its attributes are stands there.

    Raises
    ------
    RecordingError
        It is no recording, or one of a later version.
    OSError
        The file cannot be read.

    See Also
    --------
    Reader : entry by entry, whatever the length.
    Writer : write one.

    Examples
    --------
    >>> import os, tempfile
    >>> from memlimits.recording import Writer, load
    >>> path = os.path.join(tempfile.mkdtemp(), "run.rec")
    >>> with Writer(path, at=0.0) as writer:
    ...     writer.process(0.0, 71, command="load.py", memory_limit=1 << 30)
    ...     writer.sample(1.0, 71, footprint=5 << 20)
    ...     writer.sample(2.0, 71, footprint=3 << 20)
    >>> history = load(path)
    >>> history.peak_at(), history.processes[0].name, history.processes[0].limit_at(2.0) >> 20
    (1.0, '71 load.py', 1024)
    """
    history = History(Reader(path))
    loader = _Loader(history, most_samples)
    for offset, entry in history.reader.with_offsets():
        loader.add(entry, offset)
    loader.finish()
    return history


class _Loader:
    """Adds entries to a history, and thins it whenever it has twice as much as it may."""

    def __init__(self, history: History, most_samples: int) -> None:
        self.history, self.most = history, most_samples
        self.newest: dict[int, Process] = {}  # of each process id
        self.samples = 0
        self.width = float(history.reader.first.get("interval") or 0.5)
        self.widths: dict[str, float] = {}
        self.adders: dict[str, Callable[[dict[str, Any], int], None]] = {
            kind: getattr(self, f"_add_{kind}") for kind in NEEDED if hasattr(self, f"_add_{kind}")
        }

    def add(self, entry: "dict[str, Any]", offset: int) -> None:
        kind = entry["kind"]
        add = self.adders.get(kind)
        if add is None:
            return
        if "at" in entry and kind not in ("closed", "thinned"):
            self.history.last = max(self.history.last, entry["at"])
            self.history.first = min(self.history.first, entry["at"])
        add(entry, offset)

    def finish(self) -> None:
        for process in self.history.processes:
            process.samples.sort(key=attrgetter("at"))

    def _process(self, entry: "dict[str, Any]", *, new: bool = False) -> Process:
        """Return whose entry it is; what is told of one that ended belongs to it still."""
        process = self.newest.get(entry["pid"])
        if process is None or new:
            process = self.newest[entry["pid"]] = Process(entry["pid"], entry["at"])
            self.history.processes.append(process)
            if len(self.history.processes) > 2 * _MOST_PROCESSES:
                self._leave_processes_out()
        if process.ending is None:
            process.first = min(process.first, entry["at"])
            process.last = max(process.last, entry["at"])
        return process

    def _is_another(self, entry: "dict[str, Any]") -> bool:
        """Tell whether it is of a process that has the id of one before it."""
        before = self.newest.get(entry["pid"])
        if before is None:
            return False
        started, known = entry.get("started"), before.facts.get("started")
        if started is None or known is None:
            return before.ending is not None
        return bool(started != known)

    def _add_process(self, entry: "dict[str, Any]", _: int) -> None:
        process = self._process(entry, new=self._is_another(entry))
        entry["command"] = clean(entry.get("command") or process.command)
        process.facts |= entry
        process.command, process.parent = entry["command"], entry.get("parent", process.parent)
        if "memory_limit" in entry and (
            not process.limits or process.limits[-1][1] != entry["memory_limit"]
        ):
            process.limits.append((entry["at"], entry["memory_limit"]))
            if len(process.limits) > 2 * _MOST_OTHERS:
                del process.limits[1:-_MOST_OTHERS]

    def _add_end(self, entry: "dict[str, Any]", _: int) -> None:
        process = self._process(entry)
        process.ending = clean(entry.get("ending") or "exited")

    def _add_sample(self, entry: "dict[str, Any]", _: int) -> None:
        get = entry.get
        values = (entry["at"], *[get(name) or 0 for name in _VALUES])
        # What the class itself does takes as long as reading the line.
        self._process(entry).samples.append(tuple.__new__(Sample, values))
        self.samples += 1
        if self.samples > 2 * self.most:
            self._thin_samples()

    def _thin_samples(self) -> None:
        before = self.samples
        while self.samples > self.most:
            self.width *= 2
            for process in self.history.processes:
                process.samples = highest(
                    process.samples, self.width, attrgetter("at"), _SAMPLE_SIZES
                )
            self.samples = sum(len(process.samples) for process in self.history.processes)
            if self.width > 1e9:
                break
        self._leave_out("samples", before - self.samples)

    def _leave_processes_out(self) -> None:
        """Leave those out that ended and held least, with all that is told of them."""
        processes = self.history.processes
        order = sorted(processes, key=lambda one: (one.ending is not None, -one.peak))
        gone = set(order[_MOST_PROCESSES:]) - {processes[-1]}
        processes[:] = [process for process in processes if process not in gone]
        self.samples -= sum(len(process.samples) for process in gone)
        for name in ("refusals", "held", "snapshots"):
            left: list[Any] = getattr(self.history, name)
            left[:] = [one for one in left if one.process not in gone]
        self._leave_out("processes", len(gone))

    def _add_pool(self, entry: "dict[str, Any]", _: int) -> None:
        self.history.pool.append(Together(entry["at"], entry["used"], entry.get("limit")))
        self._thin_spread("samples of all processes", self.history.pool, attrgetter("used"))

    def _add_refusal(self, entry: "dict[str, Any]", _: int) -> None:
        refusals = self.history.refusals
        refusals.append(Refusal(entry["at"], self._process(entry), entry))
        if len(refusals) > 2 * _MOST_OTHERS:
            self._leave_out("refusals", len(refusals) - _MOST_OTHERS)
            requested = attrgetter("requested")
            refusals[:] = first_and_largest(refusals, _MOST_OTHERS, lambda _: 1, requested)

    def _add_holders(self, entry: "dict[str, Any]", offset: int) -> None:
        size = total(entry["holders"])
        self.history.held.append(Held(entry["at"], self._process(entry), size, offset))
        self._thin_spread("holders", self.history.held, attrgetter("size"))

    def _add_snapshot(self, entry: "dict[str, Any]", offset: int) -> None:
        if entry.get("holders"):
            self._add_holders(entry, offset)
        size = sum(block[2] for block in entry["blocks"])
        self.history.snapshots.append(Held(entry["at"], self._process(entry), size, offset))
        self._thin_spread("snapshots", self.history.snapshots, attrgetter("size"))

    def _add_stack(self, entry: "dict[str, Any]", _: int) -> None:
        if len(self.history.stacks) >= _MOST_STACKS:
            self._leave_out("stacks", 1)
            return
        frames = [(clean(file), line, clean(function)) for file, line, function in entry["frames"]]
        if frames:
            self.history.stacks[entry["id"]] = tuple(frames)

    def _add_thinned(self, entry: "dict[str, Any]", _: int) -> None:
        for name, number in entry.get("left_out", {}).items():
            if type(number) is int:
                self._leave_out(clean(name), number)
        self.width = max(self.width, entry.get("interval") or 0.0)

    def _add_closed(self, entry: "dict[str, Any]", _: int) -> None:
        self.history.closed = True
        self.history.lost = entry.get("lost") or 0

    def _thin_spread(self, name: str, items: "list[Any]", size: "Any") -> None:
        if len(items) <= 2 * _MOST_OTHERS:
            return
        before, width = len(items), self.widths.get(name, 0.5)
        while len(items) > _MOST_OTHERS and width < 1e9:
            width *= 2
            items[1:] = highest(items[1:], width, attrgetter("at"), (size,))
        self.widths[name] = width
        self._leave_out(name, before - len(items))

    def _leave_out(self, name: str, number: int) -> None:
        left_out = self.history.left_out
        left_out[name] = left_out.get(name, 0) + number
