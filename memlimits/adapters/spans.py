"""A limit on what one part of a program takes beyond what was held when it began."""

import memlimits
from memlimits import _modules
from memlimits._bindings.allocator import default_allocator
from memlimits.memory import counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from memlimits.adapters._governing import Governing
    from memlimits.errors import MemoryLimitError
    from memlimits.figures import Holder

# Kept back for errors, of which short requests may have a quarter: so they are refused 1 MiB late
# at most. An error has to be raised only, what shows it comes after.
_FOR_ERRORS = 4 << 20
_IDLE = 1 << 20  # left to a test by those before
_FOR_ERRORS_PART = 4  # of the limit, at most


class Span:
    """What a test takes, in as many pieces as it has parts that count: a context manager for each.

    Parameters
    ----------
    limit : int or None
        Bytes that it may take; None has them measured only.
    python : bool
        Whether Python's objects count, too.

    Attributes
    ----------
    held : int
        Bytes that were held when it began, and what was taken outside since.
    peak : int
        The most bytes that were active beyond those that were when it began.
    refusals : int
        How many requests were refused, for whatever reason.
    last : MemoryLimitError or None
        The last of them.
    kept_for_errors : int
        Bytes above what was held and `limit` that short requests may not have.
    """

    def __init__(self, limit: "int | None", *, python: bool) -> None:
        self.limit = limit
        self.peak = 0
        self.refusals = 0
        self.last: MemoryLimitError | None = None
        self.kept_for_errors = 0
        self.held = -1
        self._holders: dict[object, Holder] = {}  # those that held when it began
        self._active = 0
        self._before = 0  # refusals
        self._python = python
        self._is_open = False
        self._governings: list[Governing] = []
        self._kept_back: int | None = None  # what was, before
        self._limits: memlimits.limits | None = None

    def __enter__(self) -> None:
        if self.held < 0:
            # A longer block that is idle would serve a shorter request, and count as what it is.
            if memlimits.get_cache_memory() > _IDLE:
                memlimits.clear_cache()
            if memlimits.get_holder_sampling() is not None:
                self._holders = {_place(one): one for one in memlimits.holders(None)}
            self.held, self._active = _held(), memlimits.get_active_memory()
        try:
            self._begin()
        except BaseException:
            self._put_back()
            raise

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self._put_back()
        if not self._is_open:
            return
        self._is_open = False
        self.peak = max(self.peak, memlimits.get_peak_memory() - self._active)
        refusals = counters()["refusals"] - self._before
        if refusals:
            self.refusals += refusals
            self.last = default_allocator().latest_refusal()

    def holders(self) -> "list[Holder]":
        """Return the three that hold most of what it took: when it was refused, or else by now."""
        taken = self._taken(self.last.holders) if self.last is not None else []
        return (taken or self._taken(memlimits.holders(None)))[:3]

    def _taken(self, holders: "Iterable[Holder]") -> "list[Holder]":
        found = []
        for one in holders:
            before = self._holders.get(_place(one))
            nbytes, blocks = (before.nbytes, before.blocks) if before else (0, 0)
            if one.nbytes > nbytes:
                found.append(
                    one._replace(nbytes=one.nbytes - nbytes, blocks=max(1, one.blocks - blocks))
                )
        return sorted(found, key=lambda one: -one.nbytes)

    def outside(self) -> "_Outside":
        """Return a context manager: what is taken meanwhile was held when the test began."""
        return _Outside(self)

    def _begin(self) -> None:
        kept = 0
        if memlimits._numpy_is_there():
            self._governings.append(memlimits.govern_numpy())
        if self._python:
            self._governings.append(memlimits.govern_python())
            self._kept_back = _modules.for_python().keep_back(_FOR_ERRORS)
            kept = _FOR_ERRORS
        self._before = counters()["refusals"]
        memlimits.reset_peak_memory()
        self._is_open = True
        if self.limit is not None:
            limit = _with_room_for(self.held + self.limit, kept)
            self.kept_for_errors = limit - self.held - self.limit
            limits = memlimits.limits(memory=limit, policy="strict", count="given")
            self._limits = limits.__enter__()

    def _put_back(self) -> None:
        limits, self._limits = self._limits, None
        if limits is not None:
            limits.__exit__(None, None, None)
        kept_back, self._kept_back = self._kept_back, None
        if kept_back is not None:
            _modules.for_python().keep_back(kept_back)
        while self._governings:
            self._governings.pop().close()


class _Outside:
    def __init__(self, span: Span) -> None:
        self.span = span
        self.was_open = span._is_open
        self.held = self.active = 0

    def __enter__(self) -> None:
        if self.was_open:
            self.span.__exit__(None, None, None)
            self.held, self.active = _held(), memlimits.get_active_memory()

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        if self.was_open:
            self.span.held += _held() - self.held
            self.span._active += memlimits.get_active_memory() - self.active
            self.span.__enter__()


def _place(holder: "Holder") -> object:
    return holder.file, holder.line, holder.function


def _held() -> int:
    found = counters()
    return found["footprint"] - found["cache"]


def _with_room_for(target: int, kept: int) -> int:
    """Return the limit of which `target` is left to long requests."""
    if (target + kept) // _FOR_ERRORS_PART >= kept:
        return target + kept
    return -(-target * _FOR_ERRORS_PART // (_FOR_ERRORS_PART - 1))
