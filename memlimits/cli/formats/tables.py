"""Tables of a recording: CSV, and Arrow's and Parquet's files.

All rows of the file are in them, read one by one: nothing is thinned, whatever its length.
"""

import csv
import io
from datetime import UTC, datetime
from importlib import import_module

from memlimits.cli.errors import CommandError
from memlimits.recording.entries import COUNTS, SIZES
from memlimits.recording.history import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    from memlimits.recording import Reader

    Row = tuple[Any, ...]
    Entry = dict[str, Any]

_ROWS = 5_000  # at a time

# The columns of each table, and of what kind each is. Sizes are in bytes, which their names say.
_WHEN = {"time": "time", "seconds": "float", "pid": "int", "command": "text"}
_OF_REFUSALS = ("requested", "limit", "active", "cache", "slack")
_HOLDER = {
    "file": "text",
    "line": "int",
    "function": "text",
    "held_bytes": "int",
    "blocks": "int",
    "stack": "text",
}
COLUMNS = {
    "samples": {
        **_WHEN,
        **{f"{name}_bytes": "int" for name in SIZES},
        "memory_limit_bytes": "int",
        **dict.fromkeys(COUNTS, "int"),
    },
    "pool": {
        "time": "time",
        "seconds": "float",
        "limit_bytes": "int",
        "used_bytes": "int",
        "peak_bytes": "int",
        **dict.fromkeys(("refusals", "waits", "members"), "int"),
    },
    "holders": {**_WHEN, **_HOLDER},
    "refusals": {
        **_WHEN,
        **{f"{name}_bytes": "int" for name in _OF_REFUSALS},
        "blocked_by": "text",
        **{f"first_{name}": kind for name, kind in _HOLDER.items()},
    },
    "processes": {
        **_WHEN,
        "parent": "int",
        "started": "time",
        **{f"{name}_bytes": "int" for name in ("memory_limit", "cache_limit", "wired_limit")},
        "policy": "text",
        "memory_count": "text",
        "ending": "text",
    },
}
_KIND = {
    "samples": ("sample",),
    "pool": ("pool",),
    "holders": ("holders",),
    "refusals": ("refusal",),
    "processes": ("process", "end"),
}


def write(reader: "Reader", table: str, form: str, file: "BinaryIO") -> "list[str]":
    """Write a table of a recording, and return what is to be said of it.

    Parameters
    ----------
    reader : Reader
        Of the recording.
    table : {"samples", "pool", "holders", "refusals", "processes"}
    form : {"csv", "arrow", "parquet"}
    file : binary file
        It stays open.

    Raises
    ------
    CommandError
        pyarrow is not there, or an entry has a number that is no 64-bit number.
    """
    rows = _Rows(reader, table)
    writers: dict[str, Callable[[_Rows, str, BinaryIO], None]]
    writers = {"csv": _write_csv, "arrow": _write_arrow, "parquet": _write_parquet}
    writers[form](rows, table, file)
    notes = []
    if reader.damaged:
        notes.append(
            f"{reader.damaged:,} damaged lines were skipped, the first of them line "
            f"{reader.where:,}"
        )
    if not rows.number:
        notes.append(f"there are no {table} in it: the table has no rows")
    return notes


class _Rows:
    """The rows of a table, in the order of the file."""

    def __init__(self, reader: "Reader", table: str) -> None:
        self.reader, self.table = reader, table
        self.first = float(reader.first["at"])
        self.number = 0
        self.commands: dict[int, str] = {}
        self.limits: dict[int, int | None] = {}
        self.stacks: dict[int, str] = {}

    def __iter__(self) -> "Iterator[Row]":
        make = getattr(self, f"_{self.table}")
        wanted = _KIND[self.table]
        for entry in self.reader:
            kind = entry["kind"]
            if kind == "process":
                self._note(entry)
            elif kind == "stack" and self.table in ("holders", "refusals"):
                self.stacks[entry["id"]] = ";".join(map(_frame, entry["frames"]))
            if kind in wanted:
                for row in make(entry):
                    self.number += 1
                    yield row

    def _note(self, entry: "Entry") -> None:
        pid = entry["pid"]
        self.commands[pid] = clean(entry.get("command") or self.commands.get(pid, ""))
        self.limits[pid] = entry.get("memory_limit", self.limits.get(pid))

    def _when(self, entry: "Entry") -> "Row":
        at = entry["at"]
        pid = entry["pid"]
        return at, round(at - self.first, 6), pid, self.commands.get(pid, "")

    def _samples(self, entry: "Entry") -> "Iterator[Row]":
        sizes = [entry.get(name) for name in SIZES]
        counts = [entry.get(name) for name in COUNTS]
        yield *self._when(entry), *sizes, self.limits.get(entry["pid"]), *counts

    def _pool(self, entry: "Entry") -> "Iterator[Row]":
        names = ("limit", "used", "peak", "refusals", "waits", "members")
        at = entry["at"]
        yield at, round(at - self.first, 6), *(entry.get(name) for name in names)

    def _holder(self, holder: "Entry") -> "Row":
        place = clean(holder["file"]), holder["line"], clean(holder["function"])
        stack = self.stacks.get(holder.get("stack", -1))
        return *place, holder["nbytes"], holder.get("blocks"), stack

    def _holders(self, entry: "Entry") -> "Iterator[Row]":
        for holder in entry["holders"]:
            yield *self._when(entry), *self._holder(holder)

    def _refusals(self, entry: "Entry") -> "Iterator[Row]":
        numbers = [entry.get(name) for name in _OF_REFUSALS]
        holders = entry.get("holders")
        first = self._holder(holders[0]) if holders else (None,) * len(_HOLDER)
        yield *self._when(entry), *numbers, _text(entry, "blocked_by"), *first

    def _processes(self, entry: "Entry") -> "Iterator[Row]":
        names = ("parent", "started", "memory_limit", "cache_limit", "wired_limit")
        texts = [_text(entry, name) for name in ("policy", "memory_count", "ending")]
        yield *self._when(entry), *(entry.get(name) for name in names), *texts


def _text(entry: "Entry", name: str) -> "str | None":
    value = entry.get(name)
    return clean(value) if isinstance(value, str) else None


def _frame(frame: "list[Any]") -> str:
    file, line, function = frame
    return clean(f"{function} ({file}:{line})".replace(";", ":"))


def _write_csv(rows: _Rows, table: str, file: "BinaryIO") -> None:
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
    try:
        writer = csv.writer(text, lineterminator="\n")
        columns = COLUMNS[table]
        writer.writerow(columns)
        times = [place for place, kind in enumerate(columns.values()) if kind == "time"]
        for row in rows:
            values = list(row)
            for place in times:
                if values[place] is not None:
                    values[place] = _iso(values[place])
            writer.writerow(values)
        text.flush()
    finally:
        text.detach()


def _iso(at: float) -> str:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    return when.replace("+00:00", "Z")


def _arrow() -> "tuple[Any, Any]":
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise CommandError("this needs pyarrow: pip install pyarrow, or write --to csv") from None


def _batches(pyarrow: "Any", rows: _Rows, table: str) -> "tuple[Any, Iterator[Any]]":
    """Return the schema, and the rows as record batches."""
    kinds = {
        "time": pyarrow.timestamp("us", tz="UTC"),
        "float": pyarrow.float64(),
        "int": pyarrow.int64(),
        "text": pyarrow.string(),
    }
    columns = COLUMNS[table]
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])

    def batch(chunk: "list[Row]") -> "Any":
        arrays = []
        for place, kind in enumerate(columns.values()):
            values = [row[place] for row in chunk]
            if kind == "time":
                values = [None if value is None else round(value * 1e6) for value in values]
            try:
                arrays.append(pyarrow.array(values, kinds[kind]))
            except (OverflowError, pyarrow.ArrowInvalid) as error:
                raise CommandError(f"{rows.reader.path}: {error}; write --to csv") from None
        return pyarrow.record_batch(arrays, schema=schema)

    def batches() -> "Iterator[Any]":
        chunk: list[Row] = []
        for row in rows:
            chunk.append(row)
            if len(chunk) == _ROWS:
                yield batch(chunk)
                chunk.clear()
        yield batch(chunk)

    return schema, batches()


def _write_arrow(rows: _Rows, table: str, file: "BinaryIO") -> None:
    pyarrow, _ = _arrow()
    schema, batches = _batches(pyarrow, rows, table)
    with pyarrow.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_parquet(rows: _Rows, table: str, file: "BinaryIO") -> None:
    pyarrow, parquet = _arrow()
    schema, batches = _batches(pyarrow, rows, table)
    with parquet.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
