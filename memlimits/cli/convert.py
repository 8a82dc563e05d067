"""``memlimits convert``: what others can open, made of a recording."""

import os
from datetime import datetime
from importlib import import_module

from memlimits.cli import outputs
from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say
from memlimits.figures import printable
from memlimits.recording import Reader, RecordingError, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from typing import TypeVar

    from memlimits.recording import History

    Opened = TypeVar("Opened")

# What each is called when it is made, and what it is.
FORMATS = {
    "html": (".html", "a report, for a browser"),
    "flamegraph": (".flame.html", "who holds the memory at a time, for a browser"),
    "folded": (".folded", "the same as text, for flamegraph.pl and speedscope"),
    "viz": (".pickle", "the snapshots, for https://pytorch.org/memory_viz"),
    "perfetto": (".perfetto-trace", "the counters, for https://ui.perfetto.dev"),
    "csv": (".csv", "a table"),
    "arrow": (".arrow", "a table (pip install pyarrow)"),
    "parquet": (".parquet", "a table (pip install pyarrow)"),
}
TABLES = ("samples", "pool", "holders", "refusals", "processes")
_OF_A_TIME = ("flamegraph", "folded", "viz")
_TABLES = ("csv", "arrow", "parquet")


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits convert`` to its parser."""
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument(
        "--to",
        required=True,
        choices=FORMATS,
        metavar="FORMAT",
        help=f"what to make. {_describe()}",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="the file to make, or - for standard output; beside FILE unless given",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="of which time: seconds since the recording began, such as 12.5; a time such as "
        f"2026-03-01T12:00:00; or peak, the default. For {', '.join(_OF_A_TIME)}",
    )
    parser.add_argument(
        "--table", choices=TABLES, help=f"which table; samples unless given. For {_words(_TABLES)}"
    )


def _describe() -> str:
    return "; ".join(f"{name}: {what}" for name, (_, what) in FORMATS.items())


def _words(names: "tuple[str, ...]") -> str:
    return ", ".join(names)


def convert(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits convert`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    if wanted.at is not None and wanted.to not in _OF_A_TIME:
        raise CommandError(
            f"argument --at: only --to {_words(_OF_A_TIME)} is of one time: leave --at out"
        )
    if wanted.table is not None and wanted.to not in _TABLES:
        raise CommandError(
            f"argument --table: only --to {_words(_TABLES)} makes tables: leave --table out"
        )
    name = wanted.output or _beside(wanted.file, FORMATS[wanted.to][0])
    outputs.check(name, force=wanted.force, made_of=wanted.file)
    if wanted.to in _TABLES:
        _convert_table(wanted, name)
        return
    history = read(wanted.file)
    data = _make(wanted.to, history, _time(wanted.at or "peak", history))
    with outputs.output(name) as file:
        file.write(data)
    tell(history)
    _made(name)


def read(path: str) -> "History":
    """Load a recording.

    Raises
    ------
    CommandError
        It is none, or cannot be read.
    """
    return _opened(load, path)


def _opened(how: "Callable[[str], Opened]", path: str) -> "Opened":
    try:
        return how(path)
    except RecordingError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None


def tell(history: "History") -> None:
    """Say on standard error what is missing in a recording, if anything is."""
    for note in history.notes():
        say(printable(f"{history.reader.path}: {note}"))


def _made(name: str) -> None:
    if name != outputs.STANDARD:
        say(f"made {printable(name)} ({os.path.getsize(name):,} bytes)")


def _beside(path: str, ending: str) -> str:
    stem, old = os.path.splitext(path)
    return (stem if old in (".rec", ".jsonl", ".json") else path) + ending


def _time(text: str, history: "History") -> float:
    """Return a time in seconds since 1970.

    Raises
    ------
    CommandError
        It is no time, or outside the recording.
    """
    if text == "peak":
        return history.peak_at()
    try:
        at = history.first + float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise CommandError(
                f"argument --at: invalid time {text!r}: write seconds since the recording began, "
                "such as 12.5; a time such as 2026-03-01T12:00:00; or peak"
            ) from None
    length = history.last - history.first
    if not history.first <= at <= history.last:
        raise CommandError(
            f"argument --at: {text} is not in the recording, which has {length:.3f} s from "
            f"{datetime.fromtimestamp(history.first).isoformat(timespec='milliseconds')} on: "
            f"write 0 to {length:.3f}, or peak"
        )
    return at


# What makes each, but for tables.
_MAKERS = {
    "viz": ("viz", "make"),
    "perfetto": ("perfetto", "make"),
    "flamegraph": ("flamegraph", "make"),
    "folded": ("flamegraph", "make_folded"),
    "html": ("report", "make"),
}


def _make(to: str, history: "History", at: float) -> bytes:
    module, function = _MAKERS[to]
    made = getattr(import_module(f"memlimits.cli.formats.{module}"), function)(history, at)
    assert isinstance(made, bytes)
    return made


def _convert_table(wanted: "Namespace", name: str) -> None:
    from memlimits.cli.formats import tables

    reader = _opened(Reader, wanted.file)
    with outputs.output(name) as file:
        notes = tables.write(reader, wanted.table or "samples", wanted.to, file)
    for note in notes:
        say(printable(f"{wanted.file}: {note}"))
    _made(name)
