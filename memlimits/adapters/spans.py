"""A limit on what one part of a program takes beyond what was held when it began."""

import contextlib

import memlimits
from memlimits import _modules
from memlimits._bindings.allocator import default_allocator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from memlimits.errors import MemoryLimitError

# Kept back for errors, of which short requests may have a quarter: so they are refused 1 MiB late
# at most. An error has to be raised only, what shows it comes after.
_FOR_ERRORS = 4 << 20
_IDLE = 1 << 20  # left to a test by those before
_FOR_ERRORS_PART = 4  # of the limit, at most


class Span:
    """What a test takes, in as many pieces as it has parts that count.

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
    """

    def __init__(self, limit: "int | None", *, python: bool) -> None:
        self.limit = limit
        self.peak = 0
        self.refusals = 0
        self.last: MemoryLimitError | None = None
        self.held = -1
        self._active = 0
        self._python = python
        self._open: contextlib.ExitStack | None = None

    @contextlib.contextmanager
    def inside(self) -> "Iterator[None]":
        """Have what is taken meanwhile count."""
        if self.held < 0:
            # A longer block that is idle would serve a shorter request, and count as what it is.
            if memlimits.get_cache_memory() > _IDLE:
                memlimits.clear_cache()
            self.held, self._active = _held(), memlimits.get_active_memory()
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def outside(self) -> "Iterator[None]":
        """Within the former: have it not count. What stays of it was held when the test began."""
        if self._open is None:
            yield
            return
        self._leave()
        held, active = _held(), memlimits.get_active_memory()
        try:
            yield
        finally:
            self.held += _held() - held
            self._active += memlimits.get_active_memory() - active
            self._enter()

    def _enter(self) -> None:
        with contextlib.ExitStack() as stack:
            kept = 0
            stack.enter_context(memlimits.govern_numpy())
            if self._python:
                stack.enter_context(_kept_back())
                kept = _FOR_ERRORS
            self._before = memlimits.memory.counters()["refusals"]
            memlimits.reset_peak_memory()
            if self.limit is not None:
                limit = _with_room_for(self.held + self.limit, kept)
                stack.enter_context(memlimits.limits(memory=limit, policy="strict", count="given"))
            self._open = stack.pop_all()

    def _leave(self) -> None:
        stack, self._open = self._open, None
        if stack is None:
            return
        stack.close()
        self.peak = max(self.peak, memlimits.get_peak_memory() - self._active)
        refusals = memlimits.memory.counters()["refusals"] - self._before
        if refusals:
            self.refusals += refusals
            self.last = default_allocator().latest_refusal()


def _held() -> int:
    counters = memlimits.memory.counters()
    return counters["footprint"] - counters["cache"]


@contextlib.contextmanager
def _kept_back() -> "Iterator[None]":
    python = _modules.for_python()
    with memlimits.govern_python():
        before = python.keep_back(_FOR_ERRORS)
        try:
            yield
        finally:
            python.keep_back(before)


def _with_room_for(target: int, kept: int) -> int:
    """Return the limit of which `target` is left to long requests."""
    if (target + kept) // _FOR_ERRORS_PART >= kept:
        return target + kept
    return -(-target * _FOR_ERRORS_PART // (_FOR_ERRORS_PART - 1))
