"""Allocations that fail when a test wants it."""

import os
import sys

from memlimits import _modules
from memlimits.sizes import in_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, SupportsIndex

    from memlimits._bindings.failures import Failing

__all__ = ["fail"]

# Python's own requests are as many as its caches make of them: who wants those says so.
_DEFAULT_LEVELS = ("memlimits", "numpy", "malloc")


def fail(
    *,
    nth: "int | None" = None,
    every: "int | None" = None,
    bytes: "SupportsIndex | str | None" = None,
    where: "str | None" = None,
    level: "str | Iterable[str] | None" = None,
    any_thread: bool = False,
) -> "Failing":
    """Have requests for memory refused, in a ``with`` block or in a decorated function.

    A request takes the way of every refusal then: what asked gets `MemoryLimitError`, NumPy's own
    error, `MemoryError`, or NULL and ``ENOMEM``; it is counted (``stats().refusals_by_test``), and
    ``last_refusal().blocked_by`` is ``"test"``. Limits stay in force besides.

    Parameters
    ----------
    nth : int, optional
        The request that is refused, from 1 on, of those that count. With `every` it is the first of
        several.
    every : int, optional
        One in so many requests is refused: this one, twice this, and so on. Without `nth` and
        `every` all are.
    bytes : int or str, optional
        Only requests for so many bytes and more count; a size as the command takes it (``"1MiB"``).
    where : str, optional
        Only requests count that are made below a function of Python's, by the end of its qualified
        name (``"load"``, ``"Reader.load"``); below any function of a file, by the end of its path
        (``"io/reader.py"``); or of that in this (``"reader.py:load"``). Looked for are the
        innermost 512 calls.
    level : str or iterable of str, optional
        Only requests count that come this way: ``"memlimits"``, from `allocate`, `empty`, `zeros`,
        and C code through memlimits.h; ``"numpy"``, for data of arrays, and ``"python"``, for
        Python's objects, where these are governed; ``"malloc"``, where the process's malloc is, as
        below ``memlimits run --govern all``. By default all but ``"python"``.
    any_thread : bool, optional
        Whether requests of all threads count, instead of those of the thread that enters the block.

    Returns
    -------
    Failing
        A context manager and decorator. Its ``requests`` says how many requests counted, its
        ``refused`` how many of them were refused.

    Raises
    ------
    TypeError, ValueError
        An argument is not as it has to be.
    RuntimeError
        On entering it: what a named level asks for is not governed here.

    See Also
    --------
    memlimits.limits : refuse by a limit.
    memlimits.last_refusal : what was refused.

    Notes
    -----
    What counts is each request that reaches memlimits, whether it would be served from what is idle
    or not, but those to resize a block to what it has room for. Small objects of Python's (512
    bytes and less) do not: Python cuts them from arenas, and it is an arena of 1 MiB that is asked
    for. When it asks for one hangs on all that was made and freed before, so at the level
    ``"python"`` the count is the same in a fresh process only, and not across versions. NumPy keeps
    freed data of less than 1 KiB for the next array, which is no request then.

    Examples
    --------
    >>> import numpy as np
    >>> from memlimits import govern_numpy, last_refusal, testing
    >>> with govern_numpy(), testing.fail(nth=2, level="numpy") as failing:
    ...     first = np.empty(5000)
    ...     try:
    ...         second = np.empty(5000)
    ...     except MemoryError:
    ...         print(last_refusal().blocked_by)
    ...     third = np.empty(5000)
    test
    >>> failing.requests, failing.refused
    (3, 1)
    """
    failures = _modules.for_failures()
    first = 1 if nth is None else _count(nth, "nth")
    each = 0 if every is None else _count(every, "every")
    if nth is None:
        first = each or 1
    if nth is None and every is None:
        each = 1
    levels = levels_of(level)
    file, function = _place(where, failures.MOST_BYTES_OF_A_PLACE)
    if not isinstance(any_thread, bool):
        raise TypeError(f"any_thread must be True or False, not {any_thread!r}")
    may_open = _no_check if level is None else _Governed(levels).check
    made: Failing = failures.Failing(
        first, each, _size(bytes), file, function, levels, any_thread, may_open
    )
    return made


def _count(number: int, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, from 1 on, not {number!r}")
    if not 1 <= number < 1 << 63:
        raise ValueError(f"{name} must be from 1 on, and less than 2**63, not {number}")
    return number


def _size(size: "SupportsIndex | str | None") -> int:
    if size is None:
        return 0
    number = in_bytes(size, "bytes")
    if not 0 <= number < 1 << 63:
        raise ValueError(f"bytes must be from 0 on, and less than 2**63, not {size}")
    return number


def levels_of(level: "str | Iterable[str] | None") -> "tuple[str, ...]":
    """Return those that are meant, as `fail` takes them."""
    known = tuple(_modules.for_failures().LEVELS)
    if level is None:
        return _DEFAULT_LEVELS
    try:
        levels = (level,) if isinstance(level, str) else tuple(level)
    except TypeError:
        raise TypeError(f"level must be a str or several, of {known}, not {level!r}") from None
    for one in levels or [level]:
        if one not in known:
            raise ValueError(f"level must be of {known}, not {one!r}")
    return levels


def _place(where: "str | None", most: int) -> "tuple[bytes, bytes]":
    if where is None:
        return b"", b""
    if not isinstance(where, str):
        raise TypeError(f"where must be a str such as 'reader.py:load', not {where!r}")
    file, colon, function = where.rpartition(":")
    if not colon and function.endswith(".py"):
        file, function = function, ""
    found = os.fsencode(file), function.encode("utf-8", "surrogatepass")
    if not (file or function) or (colon and not file) or "\0" in where:
        raise ValueError(f"where must be a file, a function, or FILE:FUNCTION, not {where!r}")
    for place in found:
        if len(place) > most:
            raise ValueError(
                f"where must be at most {most} bytes, not {len(place)}: its end will do"
            )
    return found


def _no_check() -> None:
    pass


_WAYS: "dict[str, str]" = {
    "numpy": "with memlimits.govern_numpy(): ...",
    "python": "with memlimits.govern_python(): ...",
    "malloc": "start the program by `memlimits run --govern all`",
}


class _Governed:
    """Levels that somebody named, of which nothing would fail where they are not governed."""

    def __init__(self, levels: "tuple[str, ...]") -> None:
        self.levels = levels

    def check(self) -> None:
        for level in self.levels:
            if level != "memlimits" and not is_governed(level):
                raise RuntimeError(
                    f"nothing of the level {level!r} can fail, since it is not governed here: "
                    f"{_WAYS[level]}"
                )


def was_governed(level: str) -> bool:
    """Whether what came by a level reached memlimits in this process at any time."""
    return f"memlimits.adapters._{level}" in sys.modules


def is_governed(level: str) -> bool:
    """Whether what comes by a level reaches memlimits in this process."""
    name = "process" if level == "malloc" else level
    adapter: Any = sys.modules.get(f"memlimits.adapters._{name}")
    if adapter is None:
        return False
    if level == "numpy":
        return bool(adapter.governs(sys.modules["numpy._core._multiarray_umath"]))
    return bool(adapter.governs())
