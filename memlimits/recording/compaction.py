"""How a recording that reached its bound becomes shorter.

The file is read twice, line by line: first for which lines stay, then to copy those. What is kept
in between is a few words for each line.
"""

import fcntl
import json
import os

from memlimits.recording.entries import total
from memlimits.recording.thinning import first_and_largest, highest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple
else:
    from memlimits.system import NamedTuple

# How many 32nds of the bound each may take afterwards.
_SHARES = {
    "sample": 10,
    "pool": 1,
    "holders": 2,
    "snapshot": 4,
    "refusal": 1,
    "process": 2,
    "stack": 2,
}
_NAMES = {
    "sample": "samples",
    "pool": "samples of all processes",
    "holders": "holders",
    "snapshot": "snapshots",
    "refusal": "refusals",
    "process": "processes",
    "stack": "stacks",
}
_WIDEST = 7 * 86400.0  # seconds


class Thinned(NamedTuple):
    """The file that took the recording's place.

    Attributes
    ----------
    descriptor : int
        Open for appending; the caller's.
    size : int
        Its bytes.
    interval : float
        Seconds between the samples of a process that were kept.
    stacks : set of int
        Which of them it has.
    """

    descriptor: int
    size: int
    interval: float
    stacks: "set[int]"


class _Item(NamedTuple):
    """What is remembered of a line: where it is, what it costs, what it is worth."""

    offset: int
    length: int
    at: float
    size: int
    resident: int
    refers: "tuple[tuple[int, int], ...]"


def _at(item: _Item) -> float:
    return item.at


def _length(item: _Item) -> int:
    return item.length


def _size(item: _Item) -> int:
    return item.size


def _resident(item: _Item) -> int:
    return item.resident


class _Lines:
    """What the file has, by kind; of samples and of processes by the process.

    A process is told by its id and how many with that id had ended before it.
    """

    def __init__(self, path: str) -> None:
        self.kinds: dict[str, list[_Item]] = {kind: [] for kind in _SHARES}
        self.samples: dict[tuple[int, int], list[_Item]] = {}
        self.processes: dict[tuple[int, int], list[_Item]] = {}
        self.stacks: dict[int, _Item] = {}
        self.always: list[_Item] = []
        self.left_out: dict[str, int] = {}
        self.count = dict.fromkeys(_SHARES, 0)
        ended: dict[int, int] = {}
        with open(os.fspath(path), "rb") as file:
            offset = 0
            for line in file:
                self._add(json.loads(line), offset, len(line), ended)
                offset += len(line)

    def _add(self, entry: "dict[str, Any]", offset: int, length: int, ended: "Any") -> None:
        kind, pid = entry["kind"], entry.get("pid", 0)
        key = (pid, ended.get(pid, 0))
        refers = tuple(_refers(entry))
        item = _Item(offset, length, entry.get("at", 0.0), _worth(entry), 0, refers)
        of = "process" if kind == "end" else kind
        if of in self.count:
            self.count[of] += 1
        if kind == "sample":
            item = item._replace(resident=entry.get("resident") or 0)
            self.samples.setdefault(key, []).append(item)
        elif kind in ("process", "end"):
            self.processes.setdefault(key, []).append(item)
            if kind == "end":
                ended[pid] = key[1] + 1
        elif kind == "stack":
            self.stacks[entry["id"]] = item
        elif kind == "thinned":
            self.left_out = entry["left_out"]
        elif kind in self.kinds:
            self.kinds[kind].append(item)
        else:
            self.always.append(item)


def _worth(entry: "dict[str, Any]") -> int:
    """Return how large what an entry tells of is, in bytes."""
    kind = entry["kind"]
    if kind == "holders":
        return total(entry["holders"])
    if kind == "snapshot":
        return sum(block[2] for block in entry["blocks"])
    name = {"sample": "footprint", "pool": "used", "refusal": "requested"}.get(kind)
    return entry[name] if name else 0


def _refers(entry: "dict[str, Any]") -> "Iterable[tuple[int, int]]":
    """Return the stacks that an entry names, and the bytes that they hold in it."""
    for holder in entry.get("holders", ()):
        if holder["stack"] is not None:
            yield holder["stack"], holder["nbytes"]
    for block in entry.get("blocks", ()):
        if block[4] is not None:
            yield block[4], block[2]


def compact(path: str, most: int, interval: float) -> Thinned:
    """Replace a recording by a shorter one, of at most 11/16 of that many bytes or little more.

    Parameters
    ----------
    path : str
        It has whole lines, as `Writer` writes them.
    most : int
        Its bound, in bytes.
    interval : float
        Seconds between the samples that stayed before; doubled as often as is necessary.

    Raises
    ------
    OSError
        It cannot be written. The recording is as it was, and nothing lies beside it.
    """
    lines = _Lines(path)
    share = {kind: part * most // 32 for kind, part in _SHARES.items()}
    kept = {"process": _keep_processes(lines, share["process"])}
    kept["sample"], interval = _keep_samples(lines, share["sample"], interval)
    for kind in ("pool", "holders"):
        kept[kind] = _keep_spread(lines.kinds[kind], share[kind], interval)
    for kind in ("snapshot", "refusal"):
        kept[kind] = first_and_largest(lines.kinds[kind], share[kind], _length, _size)
    stacks = _keep_stacks(
        lines, [item for items in kept.values() for item in items], share["stack"]
    )
    kept["stack"] = [lines.stacks[number] for number in stacks]
    everything = [*lines.always, *(item for items in kept.values() for item in items)]
    thinned = {
        "kind": "thinned",
        "at": max((item.at for item in everything), default=0.0),
        "interval": interval,
        "left_out": _left_out(lines, {kind: len(items) for kind, items in kept.items()}),
    }
    offsets = {item.offset for item in everything}
    descriptor, size = _copy(path, offsets, json.dumps(thinned, separators=(",", ":")).encode())
    return Thinned(descriptor, size, interval, set(stacks))


def _keep_processes(lines: _Lines, share: int) -> "list[_Item]":
    """Keep what is known of the processes, of too many that of the largest; and only their samples.

    Of one whose limits changed often the first and the last lines stay.
    """
    for key, items in lines.processes.items():
        if len(items) > 100:
            lines.processes[key] = [*items[:50], *items[-50:]]
    peaks = {key: max(map(_size, items)) for key, items in lines.samples.items()}
    keys = list(lines.processes)
    kept = first_and_largest(
        keys,
        share,
        lambda key: sum(map(_length, lines.processes[key])),
        lambda key: peaks.get(key, 0),
    )
    known = set(kept) | (lines.samples.keys() - lines.processes.keys())
    lines.samples = {key: items for key, items in lines.samples.items() if key in known}
    return [item for key in kept for item in lines.processes[key]]


def _keep_samples(lines: _Lines, share: int, interval: float) -> "tuple[list[_Item], float]":
    groups = lines.samples
    while True:
        groups = {
            key: highest(items, interval, _at, (_size, _resident)) for key, items in groups.items()
        }
        if sum(item.length for items in groups.values() for item in items) <= share:
            break
        if interval > _WIDEST:
            cost = {key: sum(map(_length, items)) for key, items in groups.items()}
            peak = {key: max(map(_size, items)) for key, items in groups.items()}
            kept = first_and_largest(list(groups), share, cost.__getitem__, peak.__getitem__)
            groups = {key: groups[key] for key in kept}
            break
        interval *= 2
    return [item for items in groups.values() for item in items], interval


def _keep_spread(items: "list[_Item]", share: int, interval: float) -> "list[_Item]":
    """Keep the first, and the largest of each span of time."""
    kept = items
    while sum(map(_length, kept)) > share and interval <= _WIDEST:
        kept = [*kept[:1], *highest(kept[1:], interval, _at, (_size,))]
        interval *= 2
    return kept


def _keep_stacks(lines: _Lines, kept: "list[_Item]", share: int) -> "list[int]":
    """Keep those that are named, of too many those that hold most."""
    held: dict[int, int] = {}
    for item in kept:
        for number, nbytes in item.refers:
            if number in lines.stacks:
                held[number] = held.get(number, 0) + nbytes
    length = {number: lines.stacks[number].length for number in held}
    return first_and_largest(list(held), share, length.__getitem__, held.__getitem__)


def _left_out(lines: _Lines, kept: "dict[str, int]") -> "dict[str, int]":
    """Return how many lines went, now and before, by what they were."""
    gone = {
        name: lines.count[kind] - kept[kind] + lines.left_out.get(name, 0)
        for kind, name in _NAMES.items()
    }
    return {name: number for name, number in gone.items() if number}


def _copy(path: str, offsets: "set[int]", thinned: bytes) -> "tuple[int, int]":
    """Copy those lines, with what was done behind the first; return the new file and its size."""
    beside = f"{path}.{os.getpid()}.tmp"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as the old one, which it takes the place of
        with open(path, "rb") as old, open(descriptor, "wb", closefd=False) as new:
            os.fchmod(descriptor, os.fstat(old.fileno()).st_mode & 0o7777)
            offset = 0
            for line in old:
                if offset in offsets:
                    new.write(line)
                    if not offset:
                        new.write(thinned + b"\n")
                offset += len(line)
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        os.rename(beside, path)
    except BaseException:
        os.close(descriptor)
        os.unlink(beside)
        raise
    _sync_folder(os.path.dirname(path))
    return descriptor, size


def _sync_folder(folder: str) -> None:
    """Have the new name outlast a loss of power, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
