"""A pool and its members, as people read them."""

import time

from memlimits.sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = ("pid", "active", "cached", "wired", "held", "waiting", "command")


def in_use(facts: "dict[str, Any]") -> int:
    """Return how many bytes a pool's members use together."""
    return sum(member["used"] for member in facts["members"])


def describe_pool(facts: "dict[str, Any]") -> "list[str]":
    """Return lines on a pool and its members, for people."""
    members = facts["members"]
    used = in_use(facts)
    ended = f", {facts['ended']} ended" if facts["ended"] else ""
    lines = [
        f"{facts['name']}: in use {format_size(used)} of {format_size(facts['limit'])}, peak "
        f"{format_size(facts['peak'])}; {len(members)} members{ended}; refusals "
        f"{facts['refusals']}, waits {facts['waits']}, moved {format_size(facts['moved'])}"
    ]
    if not members:
        return lines
    rows = [_COLUMNS, *map(_row, members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return lines


def _row(member: "dict[str, Any]") -> "tuple[str, ...]":
    waiting = "-"
    if member["waiting_since"] is not None:
        seconds = max(0.0, time.time() - member["waiting_since"])
        waiting = f"{format_size(member['waiting_for'])} since {seconds:.1f} s"
    sizes = (format_size(member[key]) for key in ("active", "cached", "wired", "held"))
    return str(member["pid"]), *sizes, waiting, member["command"]
