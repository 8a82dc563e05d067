"""What ``memlimits top`` says above its table: of all, of one process, of pools."""

import time

from memlimits.cli.columns import (
    ALARM,
    FAINT,
    NEAR,
    PLAIN,
    TITLE,
    percent,
    seconds,
    short_count,
    short_size,
    user_name,
)
from memlimits.cli.watch import NEAR as NEAR_PART
from memlimits.cli.width import width_of
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memlimits.cli.columns import Line
    from memlimits.cli.source import Facts
    from memlimits.cli.watch import Look

_BARS = "▁▂▃▄▅▆▇█"
_MOST_POOLS = 4


def summary(look: "Look", title: str) -> "Line":
    """Return the first line: what is watched, how many there are and what they hold together."""
    live = [row for row in look.rows if "ended" not in row["marks"]]
    together = short_size(sum(row["footprint"] for row in live))
    clock = time.strftime("%H:%M:%S", time.localtime(look.at))
    many = f"{len(live)} process" + ("" if len(live) == 1 else "es")
    line = [(f"{title}  ", TITLE), (f"{clock}  {many}", PLAIN), (f", together {together}", PLAIN)]
    for mark, words in (("waits", "waiting"), ("refused", "refused"), ("near", "near a limit")):
        if count := sum(mark in row["marks"] for row in live):
            line.append((f", {count} {words}", NEAR if mark == "near" else ALARM))
    return line


def of_pools(pools: "list[Facts]", most: int = _MOST_POOLS) -> "list[Line]":
    """Return a line for each pool, the fullest first, and one for those that are left out."""
    order = sorted(pools, key=lambda pool: pool["of_limit"] or 0, reverse=True)
    lines = [of_pool(pool) for pool in order[:most]]
    if left := len(order) - most:
        lines += [[(f"and {left} more", FAINT)]] if left > 0 else []
    return lines


def of_pool(pool: "Facts") -> "Line":
    """Return a line on a pool."""
    members = pool["members"]
    used = sum(member["used"] for member in members)
    active = sum(member["active"] for member in members)
    near = active >= NEAR_PART * pool["limit"]
    share = f"{percent(pool['of_limit'])}{'!' if near else ''}"
    waiting = [member for member in members if member["waiting_since"] is not None]
    line = [
        (f"{printable(pool['name'])}: ", TITLE),
        (f"{short_size(used)} of {short_size(pool['limit'])} ", PLAIN),
        (share, NEAR if near else PLAIN),
        (f", peak {short_size(pool['peak'])}, {_members(len(members))}", PLAIN),
    ]
    if waiting:
        first = min(member["waiting_since"] for member in waiting)
        size = short_size(sum(member["waiting_for"] for member in waiting))
        text = f", {len(waiting)} waiting for {size} since {seconds(time.time() - first)}"
        line.append((text, ALARM))
    counts = f", refusals {short_count(pool['refusals'])}, waits {short_count(pool['waits'])}"
    return [*line, (counts, PLAIN)]


def more_of_pool(pool: "Facts") -> "list[Line]":
    """Return further lines on a pool, for who looks at it alone."""
    wired = sum(member["wired"] for member in pool["members"])
    held = sum(member["held"] for member in pool["members"])
    promised = sum(member["minimum"] for member in pool["members"])
    return _block(
        ("held", f"{short_size(held)}, minimums {short_size(promised)}"),
        ("wired", f"{short_size(wired)} of {short_size(pool['wired_limit'])}"),
        ("moved", short_size(pool["moved"])),
        ("ended", f"{pool['ended']}, {pool['vanished']} of them without leaving"),
        ("overruns", short_count(pool["overruns"])),
    )


def _members(count: int) -> str:
    return f"{count} member" + ("" if count == 1 else "s")


def of_process(row: "Facts", history: "Sequence[int]", width: int) -> "list[Line]":
    """Return lines on one process, for who looks at it alone."""
    began = "-" if row["began"] is None else seconds(time.time() - row["began"])
    command = f"{row['pid']}  {user_name(row['user'])}  for {began}  {printable(row['command'])}"
    by = ", ".join(
        f"{name} {short_count(count)}" for name, count in (row["refusals_by"] or {}).items()
    )
    lines: list[Line] = [[(command, PLAIN)]]
    lines += _block(
        ("memory limit", f"{_limit(row['memory_limit'])} {row['policy']}, {row['memory_count']}"),
        ("cache limit", _limit(row["cache_limit"])),
        ("wired limit", _limit(row["wired_limit"])),
        ("pool", _pool(row)),
    )
    lines += _block(
        ("footprint", short_size(row["footprint"])),
        ("active", short_size(row["active"])),
        ("idle", short_size(row["idle"])),
        ("peak", short_size(row["peak"])),
        ("reserved", short_size(row["reserved"])),
        ("pending", short_size(row["pending"])),
        ("wired", short_size(row["wired"])),
        ("resident", short_size(row["resident"])),
        ("swap", short_size(row["swap"])),
    )
    if row["mlx_peak"] or row["mlx_tickets"]:
        parts = ("active", "cache", "peak", "tickets")
        lines += _block(*((f"MLX {part}", short_size(row[f"mlx_{part}"])) for part in parts))
    counts = ("refusals", "waits", "misses", "overruns", "evictions", "trims")
    lines += _block(*((name, _count(row, name)) for name in counts))
    if by:
        lines.append([("refused by  ", FAINT), (by, PLAIN)])
    if row["waits"] or row["waiting"]:
        waited = f"{seconds(row['waited_seconds'] or 0)} in all, {row['waiting']} wait now"
        lines.append([("waited      ", FAINT), (waited, ALARM if row["waiting"] else PLAIN)])
    if len(history) > 1:
        lines.append(_history(history, width))
    return lines


def _pool(row: "Facts") -> str:
    if row["pool_limit"] is None:
        return "none"
    name = printable(row["pool"] or "one that cannot be seen")
    return f"{name} {short_size(row['pool_limit'])}"


def _limit(limit: "int | None") -> str:
    return "none" if limit is None else short_size(limit)


def _count(row: "Facts", name: str) -> str:
    text = short_count(row[name])
    rate = (row["rates"] or {}).get(name, 0.0)
    return f"{text} (+{rate:.1f}/s)" if rate > 0 else text


def _block(*pairs: "tuple[str, str]") -> "list[Line]":
    line: Line = []
    for name, text in pairs:
        line += [(f"{name} ", FAINT), (f"{text}   ", PLAIN)]
    return [line]


def _history(history: "Sequence[int]", width: int) -> "Line":
    top = max(max(history), 1)
    text = f"   0 to {short_size(top)}"
    values = list(history)[-max(width - len("footprint ") - len(text), 1) :]
    bars = "".join(_BARS[min(value * len(_BARS) // (top + 1), len(_BARS) - 1)] for value in values)
    return [("footprint ", FAINT), (bars, PLAIN), (text, FAINT)]


def wrapped(lines: "list[Line]", width: int) -> "list[Line]":
    """Return lines of which none is longer, as far as their spans are not: these stay whole."""
    result: list[Line] = []
    for line in lines:
        part: Line = []
        length = 0
        for (text, look), following in zip(line, [*line[1:], ("", PLAIN)], strict=True):
            # What a word names stays beside it.
            named = bool(part) and part[-1][1] == FAINT
            whole = text + following[0] if look == FAINT else text
            if part and not named and length + width_of(whole.rstrip()) > width:
                result.append(_ended(part))
                part, length = [], 0
                text = text.removeprefix(", ")
            part.append((text, look))
            length += width_of(text)
        result.append(_ended(part))
    return result


def _ended(line: "Line") -> "Line":
    """Without spaces at its end, for which there may be no room."""
    return [*line[:-1], (line[-1][0].rstrip(), line[-1][1])] if line else line
