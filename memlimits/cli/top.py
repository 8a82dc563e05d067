"""``memlimits top``: what processes and pools hold, live, from outside."""

import os
import sys
import time
from argparse import RawDescriptionHelpFormatter

from memlimits.cli import columns, details
from memlimits.cli.errors import CommandError
from memlimits.cli.source import Everything, Family, GoneError, Members
from memlimits.cli.streams import put, say
from memlimits.cli.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from memlimits.cli.columns import Line
    from memlimits.cli.watch import Look

_INTERVAL = 0.5
_LEAST_INTERVAL, _MOST_INTERVAL = 0.1, 3600.0
_FORM = 1  # of the JSON: counted up where something in it changes its meaning

KEYS = """\
keys:
  arrows, PgUp, PgDn, Home, End   choose a process
  Enter, Esc                      look at that one and its descendants, and back again
  p                               look at its pool
  < >                             sort by another column
  F, M, N                         sort by footprint, resident memory, pid
  R                               turn the order round
  /                               show only what has a text in its command, user or pid
  Space                           look now
  ?, q                            these keys, and the end
"""


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits top`` to its parser."""
    parser.description = (
        "Show what processes and pools hold, live. They are asked nothing: they may compute, hang "
        "or be stopped."
    )
    parser.epilog, parser.formatter_class = KEYS, RawDescriptionHelpFormatter
    parser.add_argument(
        "what",
        nargs="?",
        metavar="PID | POOL",
        help="a process, with its descendants, or a pool; all that you may see unless given",
    )
    parser.add_argument(
        "--pool", metavar="POOL", help="a pool, also one whose name is a number, as a PID is"
    )
    parser.add_argument("--once", action="store_true", help="print a plain table, and end")
    parser.add_argument("--json", action="store_true", help="the same as JSON; sizes are in bytes")
    parser.add_argument(
        "--interval",
        metavar="S",
        help=f"seconds from one look to the next, {_INTERVAL} unless given; with --once it looks "
        "twice, and tells what changed",
    )
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        default="footprint",
        help="what comes first: " + ", ".join(columns.NAMES),
    )


def top(wanted: "Namespace") -> int:
    """Do what the arguments of ``memlimits top`` say; return the exit status.

    Raises
    ------
    CommandError
        They cannot be followed.
    """
    interval = _interval(wanted.interval)
    if wanted.sort not in columns.NAMES:
        raise CommandError(
            f"argument --sort: invalid column {wanted.sort!r}: write one of "
            + ", ".join(columns.NAMES)
        )
    if not sys.platform.startswith("linux"):
        raise CommandError(
            "top: on Linux only do processes tell what they hold; memlimits.stats() tells it "
            "inside one"
        )
    try:
        watch = Watch(_source(wanted))
        if wanted.once or wanted.json or not _is_terminal():
            return _once(watch, wanted, interval if wanted.interval else None)
        watch.look()  # What is wrong from the start is said where it stays to be read.
        return _screen(watch, wanted.sort, interval)
    except GoneError as error:
        say(str(error))
        return 1
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def _interval(text: "str | None") -> float:
    if text is None:
        return _INTERVAL
    try:
        interval = float(text)
    except ValueError:
        interval = -1.0
    if not _LEAST_INTERVAL <= interval <= _MOST_INTERVAL:
        raise CommandError(
            f"argument --interval: invalid time {text!r}: write seconds, from {_LEAST_INTERVAL} to "
            f"{_MOST_INTERVAL:.0f}, such as 2.5"
        )
    return interval


def _source(wanted: "Namespace") -> "Everything | Family | Members":
    """What is to be watched. A number is a pid, whatever pools are called."""
    if wanted.pool is not None:
        if wanted.what is not None:
            raise CommandError(
                f"argument --pool: {wanted.what} is given besides: leave out either of them"
            )
        return Members(wanted.pool)
    what = wanted.what
    if what is None:
        return Everything()
    if not (what.isascii() and what.isdigit()):
        return Members(what)
    try:
        return Family(int(what))
    except GoneError as error:
        from memlimits import pools

        more = "; memlimits top shows those that use memlimits"
        if what in pools.names():
            more = f"; --pool {what} is the pool of that name"
        raise GoneError(f"{error}{more}") from None


def _is_terminal() -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr)
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return not dumb and all(stream is not None and stream.isatty() for stream in streams)


def _screen(watch: Watch, sort: str, interval: float) -> int:
    try:
        import textual  # noqa: F401
    except ImportError:
        raise CommandError(
            "top: the live screen needs Textual: pip install textual; "
            "memlimits top --once works without"
        ) from None
    from memlimits.cli.screen import run

    return run(watch, sort, interval)


# ---- once ----


def _once(watch: Watch, wanted: "Namespace", interval: "float | None") -> int:
    look = watch.look()
    if interval is not None and not look.note:
        time.sleep(interval)
        look = watch.look()
    if look.note:
        raise GoneError(look.note)
    if wanted.json:
        _write_json(look, wanted.sort)
    else:
        _write_table(watch, look, wanted.sort)
    return 0


def _write_json(look: "Look", sort: str) -> None:
    import json

    facts: dict[str, Any] = {
        "version": _FORM,
        "at": look.at,
        "pools": [_without_path(pool) for pool in look.pools],
        "processes": columns.sorted_rows(look.rows, sort),
    }
    _write(json.dumps(facts, indent=2) + "\n")


def _without_path(pool: "dict[str, Any]") -> "dict[str, Any]":
    return {name: value for name, value in pool.items() if name != "path"}


def _write_table(watch: Watch, look: "Look", sort: str) -> None:
    width = None
    if sys.stdout.isatty():
        width = os.get_terminal_size(sys.stdout.fileno()).columns or None
    lines = above(watch, look, width or 100, most_pools=len(look.pools))
    chosen = chosen_columns(watch, look, width, sort)
    rows = columns.sorted_rows(look.rows, sort)
    lines += [columns.titles(chosen, sort), *(columns.cells(chosen, row) for row in rows)]
    _write("".join(columns.plain(line, width) + "\n" for line in lines))


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"  # StringIO has none
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    put(text)


# ---- for both ----


def above(watch: Watch, look: "Look", width: int, *, most_pools: int) -> "list[Line]":
    """Return what stands above the table."""
    lines = [details.summary(look, watch.source.title)]
    lines += details.of_pools(look.pools, most_pools)
    if isinstance(watch.source, Members):
        lines += [line for pool in look.pools for line in details.more_of_pool(pool)]
    if isinstance(watch.source, Family):
        for row in look.rows:
            if row["pid"] == watch.source.pid:
                lines += details.of_process(row, watch.history(row), width)
    if look.note:
        lines.append([(look.note, columns.ALARM)])
    elif not look.rows and isinstance(watch.source, Everything):
        lines.append([("no process that you may see uses memlimits", columns.PLAIN)])
    return details.wrapped(lines, width)


def chosen_columns(
    watch: Watch, look: "Look", width: "int | None", sort: str
) -> "list[columns.Column]":
    """Return the columns for what is watched."""
    in_pool = not isinstance(watch.source, Everything) and bool(look.pools)
    return columns.chosen(width, user=os.geteuid() == 0, pool=in_pool, sort=sort)
