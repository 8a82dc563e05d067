"""The columns of ``memlimits top``: what they show, which fit, and in what order rows are."""

import re
import time
from functools import lru_cache

from memlimits.cli.watch import limit_of
from memlimits.cli.width import fitted, width_of
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from memlimits.cli.source import Facts

    Span = tuple[str, str]
    Line = list[Span]

# How spans look: on a screen, which is never all there is to tell it by.
PLAIN, TITLE, SORTED, GREW, NEAR, ALARM, FAINT = (
    "plain", "title", "sorted", "grew", "near", "alarm", "faint",
)  # fmt: skip

_STATES = {
    "R": "runs",
    "S": "sleeps",
    "D": "blocked",
    "T": "stopped",
    "t": "traced",
    "I": "idle",
    None: "-",
}
_LEAST_COMMAND = 10  # cells

_PYTHON = re.compile(r"(?:\S*/)?python[\d.]*t? +(?=[^- ])")
_RUN = re.compile(
    r"(?:\S*/)?python[\d.]*t? +(?:-[WX] +\S+ +|-\S+ +)*?(?:\S*/memlimits|-m memlimits) run +"
    r"(?:--\S+=\S+ +|--(?:per-process|quiet) +|--\S+ +\S+ +)*"
)


class Column:
    """One of them.

    Attributes
    ----------
    name : str
        Of what it shows, by which it is sorted.
    title : str
    width : int
        Cells; of the last one the least.
    text : callable
        Makes a row's cell.
    falls : bool
        Whether the largest comes first. Such are numbers, which stand on the right.
    """

    def __init__(
        self, name: str, title: str, width: int, text: "Callable[[Facts], str]", falls: bool = True
    ) -> None:
        self.name = name
        self.title = title
        self.width = width
        self.text = text
        self.falls = falls


# ---- cells ----


def short_size(size: "int | None") -> str:
    """Show bytes in at most six characters, in the units that sizes are written in: "1.46Gi"."""
    if size is None:
        return "-"
    power, value = 0, float(size)
    while round(value) >= 1024 and power < 6:
        power, value = power + 1, value / 1024
    if not power:
        return str(size)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    number = f"{value:.{digits}f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number}{'KMGTPE'[power - 1]}i"


def short_count(count: "int | None") -> str:
    """Show a count in at most five characters: "12.3k"."""
    if count is None:
        return "-"
    power, value = 0, float(count)
    while round(value, 1) >= 1000 and power < 6:
        power, value = power + 1, value / 1000
    return f"{value:.1f}{'kMGTPE'[power - 1]}" if power else str(count)


def percent(part: "float | None") -> str:
    """Show a fraction in at most four characters."""
    return "-" if part is None else f"{min(round(part * 100), 999)}%"


def seconds(past: float) -> str:
    """Show a time in at most five characters: "3.2s", "12m", "4h", "9d"."""
    past = max(past, 0.0)
    for unit, one, most in (("s", 1.0, 60.0), ("m", 60.0, 60.0), ("h", 3600.0, 48.0)):
        if past / one < most:
            return f"{past / one:.{0 if past >= 10 else 1}f}{unit}"
    return f"{min(past / 86400.0, 9999):.0f}d"


def state_of(row: "Facts") -> str:
    """Return the one word that matters most of what a process does."""
    marks = row["marks"]
    if "ended" in marks:
        return "ended"
    if row["state"] in ("T", "t"):
        return _STATES[row["state"]]
    for mark in ("waits", "refused"):
        if mark in marks:
            return mark
    return _STATES.get(row["state"], str(row["state"]))


def waiting_of(row: "Facts") -> str:
    """Return for how much of its pool a process waits, and since when."""
    if row["waiting_since"] is None or "ended" in row["marks"]:
        return "-"
    return f"{short_size(row['waiting_for'])} {seconds(time.time() - row['waiting_since'])}"


@lru_cache(4096)
def program(command: str) -> str:
    """Return what matters most of a command: neither folders nor who runs the program.

    Examples
    --------
    >>> program("/usr/bin/python3 -m memlimits run --memory-limit 1GiB /srv/serve.py --port 80")
    'serve.py --port 80'
    >>> program("/usr/bin/python3 -c pass")
    'python3 -c pass'
    """
    text = printable(command)
    for runner in (_RUN, _PYTHON):
        if found := runner.match(text):
            text = text[found.end() :] or text
            break
    first, space, rest = text.partition(" ")
    return (first.rpartition("/")[2] or first) + space + rest


@lru_cache(1024)
def user_name(user: "int | None") -> str:
    """Return a user's name, or his number where he has none."""
    import pwd

    try:
        return "-" if user is None else pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _size(name: str, title: str) -> Column:
    return Column(name, title, 7, lambda row: short_size(row[name]) + _grew(row, name))


def _grew(row: "Facts", name: str) -> str:
    return "+" if name in row["grew"] else " "


_USER = Column("user", "USER", 8, lambda row: user_name(row["user"]), falls=False)
_COMMAND = Column("command", "COMMAND", 0, lambda row: program(row["command"]), falls=False)
_HELD = Column("held", "HELD", 6, lambda row: short_size(row["held"]))
ALL = [
    Column("pid", "PID", 7, lambda row: str(row["pid"]), falls=False),
    _USER,
    _size("footprint", "FOOTPR "),
    Column(
        "of_limit",
        "%LIM ",
        5,
        lambda row: percent(row["of_limit"]) + ("!" if "near" in row["marks"] else " "),
    ),
    _size("active", "ACTIVE "),
    _size("idle", "IDLE "),
    _size("peak", "PEAK "),
    _size("resident", "RESID "),
    _size("wired", "WIRED "),
    _HELD,
    Column(
        "refusals", "REFUS ", 6, lambda row: short_count(row["refusals"]) + _grew(row, "refusals")
    ),
    Column("waits", "WAITS ", 6, lambda row: short_count(row["waits"]) + _grew(row, "waits")),
    Column("state", "STATE", 7, state_of, falls=False),
    Column("waiting_for", "WAITS FOR", 12, waiting_of),
    _COMMAND,
]
NAMES = [column.name for column in ALL]
_LEFT = ("user", "state", "command")
# Where not all fit, which stay: the first of these.
_IMPORTANCE = (
    "command", "pid", "footprint", "state", "of_limit", "user", "active", "refusals", "waits",
    "waiting_for", "resident", "idle", "peak", "wired", "held",
)  # fmt: skip


def chosen(
    width: "int | None", *, user: bool, pool: bool, sort: str = "footprint"
) -> "list[Column]":
    """Return the columns that fit into so many cells, or all.

    Parameters
    ----------
    width : int or None
    user : bool
        Whether processes of several users may be seen.
    pool : bool
        Whether members of a pool are shown.
    sort : str
        The column that is sorted by, which is among them wherever two fit.
    """
    left = [*([] if user else ["user"]), *([] if pool else ["held", "waiting_for"])]
    wanted = [column for column in ALL if column.name not in left]
    if width is None:
        return wanted
    order = list(_IMPORTANCE)
    if sort in order[3:]:
        order.insert(2, order.pop(order.index(sort)))
    room = width - max(_LEAST_COMMAND, width // 5)
    fit = {"command"}
    for name in order[1:]:
        column = next((each for each in wanted if each.name == name), None)
        if column and room >= column.width + 1:
            room -= column.width + 1
            fit.add(name)
    return [column for column in wanted if column.name in fit]


# ---- rows ----


def sorted_rows(rows: "Iterable[Facts]", name: str, turned: bool = False) -> "list[Facts]":
    """Return rows by a column, by its rule or turned round; equal ones by pid."""
    column = ALL[NAMES.index(name)]
    falls = column.falls != turned
    rows = sorted(rows, key=lambda row: row["pid"])
    return sorted(rows, key=lambda row: _rank(column, row), reverse=falls)


def _rank(column: Column, row: "Facts") -> "Any":
    if column.name == "command":
        return row["command"]
    if column.name in _LEFT:
        return column.text(row)
    return row[column.name] or 0


def titles(columns: "list[Column]", sort: str) -> "Line":
    """Return the line above the rows."""
    return _line(columns, [column.title for column in columns], [
        SORTED if column.name == sort else TITLE for column in columns
    ])  # fmt: skip


def cells(columns: "list[Column]", row: "Facts") -> "Line":
    """Return a row's line."""
    return _line(
        columns,
        [column.text(row) for column in columns],
        [_look(column.name, row) for column in columns],
    )


def _look(name: str, row: "Facts") -> str:
    marks = row["marks"]
    if "ended" in marks:
        return FAINT
    if name == "state" and state_of(row) in ("waits", "refused"):
        return ALARM
    if name == "waiting_for" and "waits" in marks:
        return ALARM
    if name == "of_limit" and "near" in marks:
        return NEAR
    if name in row["grew"]:
        return ALARM if name == "refusals" else GREW
    return PLAIN


def _line(columns: "list[Column]", texts: "list[str]", looks: "list[str]") -> "Line":
    line = []
    for column, text, look in zip(columns, texts, looks, strict=True):
        if column.name == "command":
            line.append((text, look))
        else:
            line.append((fitted(text, column.width, right=column.name not in _LEFT), look))
            line.append((" ", PLAIN))
    return line


def plain(line: "Line", width: "int | None" = None) -> str:
    """Return a line's text, in so many cells at most."""
    text = "".join(span for span, _ in line)
    if width is not None and width_of(text) > width:
        text = fitted(text, width)
    return text.rstrip()


def limit_text(row: "Facts") -> str:
    """Return what bounds a process, for people."""
    return short_size(limit_of(row))
