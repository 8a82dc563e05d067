"""What pytest's options and markers ask for, checked."""

import os

import pytest

import memlimits
from memlimits import testing
from memlimits.sizes import format_size, in_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT, FAILURES = "memory_limit", "fail_allocations"
LINES = (
    f"{LIMIT}(size): the test fails where it asks for memory that, with what it has taken, is "
    'more than this ("100MiB", or bytes); needs memlimits',
    f"{FAILURES}(max=100, bytes=None, where=None, level=None, any_thread=False, timeout=60, "
    "leak=None): the test is run with its 1st, 2nd, ... request for memory refused, each in a "
    "process of its own; needs memlimits",
)
# What of the marker's is the rule's, for `memlimits.testing.fail`.
RULE: "dict[str, Any]" = {"bytes": None, "where": None, "level": None, "any_thread": False}
_OTHERS: "dict[str, Any]" = {"max": 100, "timeout": 60.0, "leak": None}

# An arena of Python's: there is no test without one.
_LEAST_LIMIT = 1 << 20
_PARTS_OF_A_PLACE = 3  # of a path, by which a test's file is known


def limit_of(size: "Any", whose: str) -> int:
    """Return the bytes of a limit.

    Raises
    ------
    pytest.UsageError
        It is none, or less than Python asks for at a time.
    """
    limit = bytes_of(size, whose)
    if limit < _LEAST_LIMIT:
        raise pytest.UsageError(
            f"{whose}: {size!r} is too little, since Python alone asks for "
            f"{format_size(_LEAST_LIMIT)} at a time: write that, or more"
        )
    return limit


def bytes_of(size: "Any", whose: str) -> int:
    """Return the bytes of a size: an int, or what the command takes."""
    try:
        number = in_bytes(size, whose)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    if not 0 <= number < 1 << 64:
        raise pytest.UsageError(f"{whose}: a size is from 0 to 2**64 - 1, not {size}")
    return number


def marked_limit(mark: pytest.Mark, item: pytest.Item) -> int:
    """Return the limit that a marker sets for a test."""
    whose = f"{item.nodeid}: @pytest.mark.{LIMIT}"
    if len(mark.args) != 1 or mark.kwargs:
        raise pytest.UsageError(f'{whose} takes one size, such as "100MiB"')
    return limit_of(mark.args[0], whose)


def marked_failures(mark: pytest.Mark, item: pytest.Item) -> "dict[str, Any]":
    """Return what a marker asks for, with what it leaves open filled in."""
    whose = f"{item.nodeid}: @pytest.mark.{FAILURES}"
    known = _OTHERS | RULE
    if not hasattr(os, "fork") or memlimits.device_info()["backend"] == "metal":
        raise pytest.UsageError(f"{whose} needs to fork, which does not work here")
    if mark.args:
        raise pytest.UsageError(f"{whose} takes keyword arguments only, not {mark.args[0]!r}")
    for name in mark.kwargs:
        if name not in known:
            raise pytest.UsageError(f"{whose} takes {', '.join(known)}, and no {name!r}")
    wanted: dict[str, Any] = {**known, **mark.kwargs}
    _check_number(wanted["max"], f"{whose}(max=...)", int)
    _check_number(wanted["timeout"], f"{whose}(timeout=...)", int | float)
    if wanted["leak"] is not None:
        wanted["leak"] = bytes_of(wanted["leak"], f"{whose}(leak=...)")
    if wanted["where"] is None:
        wanted["where"] = "/".join(item.path.parts[-_PARTS_OF_A_PLACE:]).lstrip("/")
    try:
        testing.fail(**{name: wanted[name] for name in RULE})
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{whose}: {error}") from None
    return wanted


def _check_number(value: "Any", whose: str, kind: "Any") -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < 1e9:
        raise pytest.UsageError(f"{whose} must be a number above 0 and below 1e9, not {value!r}")
