"""A snapshot as PyTorch writes one, for https://pytorch.org/memory_viz.

Each process is a device there. Its segments are the resources of the snapshot nearest to a time;
how they came to be is the difference of each snapshot and the one before, as far as that time.
"""

import pickle

from memlimits.cli.errors import CommandError
from memlimits.recording.history import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from memlimits.recording import History, Process
    from memlimits.recording.history import Held

    Row = tuple[int, int, int, str, int | None]

# The page reads no later one. It has everything in memory, and draws each entry.
_PROTOCOL = 4
_MOST_ENTRIES = 200_000
_MOST_SNAPSHOTS = 50  # of a process
_LARGE = 1 << 20


def make(history: "History", at: float) -> bytes:
    """Return the pickle of the snapshots nearest to a time.

    Raises
    ------
    CommandError
        The recording has no snapshot.
    """
    if not history.snapshots:
        raise CommandError(
            f"{history.reader.path}: there is no snapshot in it, which --to viz shows: have one "
            "taken, by memlimits.snapshot() or at a refusal, while it is recorded"
        )
    chosen = history.nearest(history.snapshots, at) or [
        min(history.snapshots, key=lambda held: abs(held.at - at))
    ]
    chosen.sort(key=lambda held: (-held.size, held.process.pid))
    segments: list[dict[str, Any]] = []
    traces = []
    for device, held in enumerate(chosen):
        traces.append(_trace(history, held, device))
        rows = _rows(history, held)
        segments += [_segment(history, row, device) for row in rows]
    about = {f"process of device {device}": held.process.name for device, held in enumerate(chosen)}
    snapshot = {
        "segments": segments,
        "device_traces": traces,
        "allocator_settings": {"made by": "memlimits", **about},
        "external_annotations": [],
    }
    return pickle.dumps(snapshot, protocol=_PROTOCOL)


def _rows(history: "History", held: "Held") -> "list[Row]":
    """Return the resources of a snapshot by address; none lies in another."""
    entry = history.reader.at_offset(held.offset)
    rows: list[Row] = []
    for row in sorted(tuple(row) for row in entry["blocks"]):
        if row[1] and (not rows or row[0] >= rows[-1][0] + rows[-1][1]):
            rows.append(row)
    return rows


def _frames(history: "History", stack: "int | None") -> "list[dict[str, Any]]":
    """Return a stack as PyTorch has it, the innermost first."""
    frames = history.stacks.get(-1 if stack is None else stack, ())
    return [
        {"filename": file, "line": line, "name": function}
        for file, line, function in reversed(frames)
    ]


def _segment(history: "History", row: "Row", device: int) -> "dict[str, Any]":
    address, size, used, state, stack = row
    frames = _frames(history, stack)
    blocks = []
    if used:
        blocks.append(_block(address, used, "active_allocated", frames))
    if used < size:
        blocks.append(_block(address + used, size - used, "inactive", []))
    return {
        "device": device,
        "address": address,
        "total_size": size,
        "allocated_size": used,
        "active_size": used,
        "requested_size": used,
        "stream": 0,
        "segment_type": "large" if size > _LARGE and state != "slab" else "small",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": frames,
        "blocks": blocks,
    }


def _block(address: int, size: int, state: str, frames: "list[dict[str, Any]]") -> "dict[str, Any]":
    return {
        "address": address,
        "size": size,
        "requested_size": size,
        "state": state,
        "frames": frames,
    }


def _trace(history: "History", last: "Held", device: int) -> "list[dict[str, Any]]":
    """Return what happened from one snapshot of a process to the next, and its refusals."""
    process = last.process
    snapshots = [one for one in history.snapshots if one.process is process and one.at <= last.at]
    snapshots = sorted(snapshots, key=lambda one: one.at)[-_MOST_SNAPSHOTS:]
    entries: list[dict[str, Any]] = []
    before: dict[int, Row] = {}
    refused = [one for one in history.refusals if one.process is process and one.at <= last.at]
    for held in snapshots:
        while refused and refused[0].at <= held.at:
            refusal = refused.pop(0)
            entries.append(_oom(history, refusal.numbers, process, refusal.at))
        after = {row[0]: row for row in _rows(history, held)}
        time = round(held.at * 1e6)
        for address, row in before.items():
            if after.get(address) != row:
                entries += _gone(history, row, after.get(address), time)
        for address, row in after.items():
            if before.get(address) != row:
                entries += _come(history, row, before.get(address), time)
        before = after
    # Of too many the newest; what they free was there before the trace, as in one of PyTorch's.
    return [{**entry, "device": device} for entry in entries[-_MOST_ENTRIES:]]


def _entry(
    action: str, address: int, size: int, frames: "list[dict[str, Any]]", time: int
) -> "dict[str, Any]":
    return {
        "action": action,
        "addr": address,
        "size": size,
        "stream": 0,
        "time_us": time,
        "frames": frames,
    }


def _gone(history: "History", row: "Row", after: "Row | None", time: int) -> "list[dict[str, Any]]":
    address, size, used, _, stack = row
    frames = _frames(history, stack)
    entries = []
    if used:
        entries.append(_entry("free_requested", address, used, frames, time))
        entries.append(_entry("free_completed", address, used, frames, time))
    if after is None or after[1] != size:
        entries.append(_entry("segment_free", address, size, frames, time))
    return entries


def _come(
    history: "History", row: "Row", before: "Row | None", time: int
) -> "list[dict[str, Any]]":
    address, size, used, _, stack = row
    frames = _frames(history, stack)
    entries = []
    if before is None or before[1] != size:
        entries.append(_entry("segment_alloc", address, size, frames, time))
    if used:
        entries.append(_entry("alloc", address, used, frames, time))
    return entries


def _oom(
    history: "History", numbers: "dict[str, Any]", process: "Process", at: float
) -> "dict[str, Any]":
    limit, sample = numbers.get("limit"), process.sample_at(at)
    used = sum(numbers.get(name) or 0 for name in ("active", "slack"))
    free = max(0, limit - used) if limit is not None else 0
    holders = history.with_frames(numbers.get("holders", []))
    frames = [
        {"filename": file, "line": line, "name": clean(f"holds most: {function}")}
        for file, line, function in reversed(holders[0]["frames"] if holders else ())
    ]
    entry = _entry("oom", 0, numbers["requested"], frames, round(at * 1e6))
    return {**entry, "device_free": free, "resident": sample.resident if sample else 0}
