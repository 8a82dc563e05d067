"""The kinds of entries of a recording, and what is in them."""

from memlimits.errors import NO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Entry = dict[str, Any]

__all__ = ["COUNTS", "SIZES", "VERSION", "RecordingError"]

FIRST = "memlimits recording"
VERSION = 1

# Of a sample: in bytes; and counts, of which all but the first are since the process began.
SIZES = ("footprint", "active", "cache", "slack", "wired", "peak", "resident", "swap")
COUNTS = ("waiting", "refusals", "waits", "overruns", "trims", "evictions")
LIMITS = ("memory_limit", "cache_limit", "wired_limit")
STATES = ("block", "slab", "idle")

_MOST = 2**64  # No size, count or process id is more.
_MOST_SECONDS = 253402300800  # The year 10,000.


class RecordingError(ValueError):
    """What was given is no recording, or one that this version cannot read.

    See Also
    --------
    Reader, load : raise it.

    Examples
    --------
    >>> import tempfile
    >>> from memlimits.recording import Reader, RecordingError
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     try:
    ...         Reader(file.name)
    ...     except RecordingError as error:
    ...         print(str(error).removeprefix(file.name))
    : not a recording of memlimits: it is empty; memlimits run --record FILE makes one
    """


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < _MOST_SECONDS  # type: ignore[operator]


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_object(value: object) -> bool:
    return type(value) is dict


def _or_none(check: "Callable[[object], bool]") -> "Callable[[object], bool]":
    return lambda value: value is None or check(value)


def _each(check: "Callable[[Any], bool]") -> "Callable[[object], bool]":
    return lambda value: type(value) is list and all(map(check, value))


def _is_frame(value: "Any") -> bool:
    return (
        type(value) is list
        and len(value) == 3
        and _is_text(value[0])
        and _is_whole(value[1])
        and _is_text(value[2])
    )


def _is_block(value: "Any") -> bool:
    return (
        type(value) is list
        and len(value) == 5
        and all(map(_is_whole, value[:3]))
        and value[2] <= value[1]
        and value[3] in STATES
        and (value[4] is None or _is_whole(value[4]))
    )


def _is_holder(value: "Any") -> bool:
    return type(value) is dict and not _wrong(value, _HOLDER)


# Of each kind: the fields that have to be there, and those that may be.
_WHEN: "dict[str, Callable[[object], bool]]" = {"at": _is_number, "pid": _is_whole}
_HOLDER = {"file": _is_text, "line": _is_whole, "function": _is_text, "nbytes": _is_whole}
_HOLDERS = _each(_is_holder)
NEEDED: "dict[str, dict[str, Callable[[object], bool]]]" = {
    FIRST: {"version": _is_whole, "at": _is_number},
    "process": _WHEN,
    "sample": {**_WHEN, "footprint": _is_whole},
    "pool": {"at": _is_number, "used": _is_whole},
    "refusal": {**_WHEN, "requested": _is_whole},
    "stack": {"id": _is_whole, "frames": _each(_is_frame)},
    "holders": {**_WHEN, "holders": _HOLDERS},
    "snapshot": {**_WHEN, "blocks": _each(_is_block)},
    "end": _WHEN,
    "closed": {"at": _is_number},
    "thinned": {"at": _is_number},
}
_TEXTS = ("command", "policy", "memory_count", "blocked_by", "ending")
_OPTIONAL: "dict[str, Callable[[object], bool]]" = {
    **dict.fromkeys((*SIZES, *COUNTS, *LIMITS), _or_none(_is_whole)),
    **dict.fromkeys(("limit", "members", "parent", "blocks_left_out", "lost"), _or_none(_is_whole)),
    **dict.fromkeys(("started", "interval"), _or_none(_is_number)),
    **dict.fromkeys(_TEXTS, _or_none(_is_text)),
    "program": _each(_is_text),
    "machine": _is_object,
    "stats": _is_object,
    "left_out": _is_object,
    "holders": _HOLDERS,
    "budgets": _each(_is_object),
}
_OF_HOLDERS = {"stack": _or_none(_is_whole), "blocks": _is_whole}


def _wrong(
    fields: "Mapping[str, Any]",
    needed: "Mapping[str, Callable[[object], bool]]",
    optional: "Mapping[str, Callable[[object], bool]]" = _OF_HOLDERS,
) -> str:
    """Return the name of a field that is missing or not what it has to be; or ""."""
    for name, check in needed.items():
        if name not in fields or not check(fields[name]):
            return name
    for name, value in fields.items():
        if name in optional and name not in needed and not optional[name](value):
            return name
    return ""


def wrong_field(entry: "Any") -> "str | None":
    """Return which field of an entry is not as the format has it; None if all are.

    An entry of a kind that this version does not know is right.
    """
    if type(entry) is not dict or not _is_text(entry.get("kind")):
        return "kind"
    needed = NEEDED.get(entry["kind"])
    return (_wrong(entry, needed, _OPTIONAL) or None) if needed is not None else None


def limit_or_none(limit: "int | None") -> "int | None":
    """Return a limit as a recording has it, in which none is null."""
    return None if limit is None or limit >= NO_LIMIT else limit


def total(holders: "Iterable[Mapping[str, Any]]") -> int:
    """Return the bytes that these hold together."""
    return sum(holder["nbytes"] for holder in holders)
