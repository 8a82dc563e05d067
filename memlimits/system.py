"""What the system can still give, and giving idle memory back to it.

The documented functions are on the process's default allocator, as those of `memlimits.memory`.
All sizes are in bytes.
"""

from _thread import allocate_lock, get_ident, start_new_thread
from posix import register_at_fork

from memlimits._bindings.allocator import at_the_limit, default_allocator
from memlimits._bindings.system_info import candidates as _candidates
from memlimits._bindings.system_info import get_pressure_trim as _get_pressure_trim
from memlimits._bindings.system_info import interval as _interval
from memlimits._bindings.system_info import set_pressure_trim as _set_pressure_trim
from memlimits._bindings.system_info import trim as _trim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NamedTuple, Self, SupportsFloat, SupportsIndex

    from memlimits._bindings.allocator import Allocator
else:

    class NamedTuple(tuple):
        """In the place of typing's, which takes longer to import than all of memlimits."""

        __slots__ = ()

        def __init_subclass__(cls):
            if cls.__annotations__:
                cls._fields = tuple(cls.__annotations__)  # else those of the class above
            for place, name in enumerate(cls._fields):
                setattr(cls, name, property(lambda self, place=place: self[place]))

        def __new__(cls, *values):
            if len(values) != len(cls._fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            return tuple.__new__(cls, values)

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            values = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({values})"

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **values):
            return type(self)(*({**self._asdict(), **values}).values())


__all__ = [
    "AutoTrim",
    "EffectiveLimit",
    "auto_trim",
    "effective_limit",
    "get_pressure_trim",
    "set_pressure_trim",
    "trim",
]


class Candidate(NamedTuple):
    """One of the bounds that were looked at. Made by `effective_limit`.

    Attributes
    ----------
    kind : str
        ``"limit"``, ``"pool"``, ``"budget"``, ``"reservation"``, ``"rlimit"``, ``"cgroup"`` or
        ``"system"``.
    name : str
        Which: ``"memory limit"``, ``"RLIMIT_AS"``, the path of a control group, ...
    nbytes : int
        How many bytes it lets this process have still.

    See Also
    --------
    EffectiveLimit : all of them.
    """

    kind: str
    name: str
    nbytes: int


class EffectiveLimit(NamedTuple):
    """How many bytes can still be had, and what bounds them. Made by `effective_limit`.

    Attributes
    ----------
    nbytes : int
        The least of the candidates' bytes.
    tightest : str
        The kind of the candidate that has the least.
    name : str
        Its name.
    candidates : tuple of Candidate
        Every bound there is, the tightest first.

    See Also
    --------
    effective_limit : make one.
    Candidate : each bound.
    """

    nbytes: int
    tightest: str
    name: str
    candidates: tuple[Candidate, ...]


def effective_limit() -> EffectiveLimit:
    """Return how many bytes can still be allocated, and which bound is the tightest.

    The bounds are the memory limit, as under the ``"strict"`` policy, and what of it is reserved
    for others; the budgets open here; the process's own limits
    (``RLIMIT_AS``, ``RLIMIT_DATA``); each control group this process is in that has a limit, with
    all above it; and the RAM and swap that the system has left. Idle memory counts as bytes that
    can be had. Bytes that were allocated and not touched yet are spoken for; so is a part for the
    program itself, 1/64 of ``device_info()["memory_size"]``, from 2 to 32 MiB, and up to 3 MiB
    because the system's figures move. What can never be read bounds nothing; what cannot be read
    now, for want of a file descriptor, say, is as it was.

    Others may take the same bytes meanwhile, and one block may be shorter than this
    (``device_info()["max_buffer_length"]``).

    Returns
    -------
    EffectiveLimit
        A named tuple ``(nbytes, tightest, name, candidates)``, sizes in bytes.

    Raises
    ------
    DeviceError
        In a forked child of a process that uses Metal.

    See Also
    --------
    would_fit : whether so many bytes fit.
    set_memory_limit : the limit of this process.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=64 << 20):
    ...     limit = memlimits.effective_limit()
    >>> limit.nbytes >> 20, limit.tightest, limit.name
    (64, 'limit', 'memory limit')
    """
    return at_the_limit(_effective_limit, default_allocator())


def _effective_limit(allocator: "Allocator") -> EffectiveLimit:
    found = _candidates(allocator)
    ordered = sorted((Candidate(*bound) for bound in found), key=lambda bound: bound.nbytes)
    least = ordered[0]
    return EffectiveLimit(least.nbytes, least.kind, least.name, tuple(ordered))


def trim(target: "SupportsIndex | str | None" = 0) -> int:
    """Return idle memory to the system, the oldest first, until at most `target` bytes are cached.

    What the idle timeout and memory pressure ask for goes back, too, whatever the target.

    Parameters
    ----------
    target : int, str or None
        Bytes, from 0, or a size such as ``"2GiB"``. None: only what the idle timeout and memory
        pressure ask for.

    Returns
    -------
    int
        How many bytes went back.

    Raises
    ------
    TypeError, ValueError
        `target` is no such integer or size; nothing is returned.

    See Also
    --------
    clear_cache : return all of it.
    auto_trim : do it now and then.
    set_pressure_trim, set_idle_timeout : what is returned without a call.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.trim()
    1048576
    """
    return _trim(default_allocator(), target)


def set_pressure_trim(
    available: "SupportsIndex | str | None" = None, stall: "SupportsFloat | None" = None
) -> tuple[int | None, float | None]:
    """Set when idle memory is returned because the system runs short.

    The pressure is read in `trim`, and wherever the system's room is read: after each 16 MiB of
    growth. Memory in use is never touched.

    Parameters
    ----------
    available : int, str or None
        Bytes, or a size such as ``"1GiB"``: as soon as the system, or a control group this process
        is in, has less than this left, as much goes back as is missing, the oldest first. The
        default is 1/64 of ``device_info()["memory_size"]``, from 2 to 32 MiB, which allocations
        leave to the system anyway; with more, a program that needs what is left loses idle memory
        that it could have used again. None: never.
    stall : float or None
        Percent, above 0 to 100: all idle memory goes back as soon as programs wait for memory for
        this part of the time, in the last ten seconds: ``some avg10`` of ``memory.pressure``, the
        highest of the control groups this process is in, or else of ``/proc/pressure/memory``. On
        macOS a warning counts as 50, a critical level as 100. None, the default: never.

    Returns
    -------
    tuple of (int or None, float or None)
        The previous `available` and `stall`.

    Raises
    ------
    TypeError, ValueError
        A value is no such number or size; nothing changes.

    See Also
    --------
    get_pressure_trim : what they are.
    trim, auto_trim : look at the pressure now, and now and then.

    Examples
    --------
    >>> import memlimits
    >>> before = memlimits.set_pressure_trim(available=1 << 30, stall=10)
    >>> memlimits.set_pressure_trim(*before)
    (1073741824, 10.0)
    """
    return _set_pressure_trim(default_allocator(), available, stall)


def get_pressure_trim() -> tuple[int | None, float | None]:
    """Return when idle memory is returned because the system runs short.

    Returns
    -------
    tuple of (int or None, float or None)
        ``available``, in bytes, and ``stall``, in percent, as for `set_pressure_trim`.

    See Also
    --------
    set_pressure_trim : set them.

    Examples
    --------
    >>> import memlimits
    >>> available, stall = memlimits.get_pressure_trim()
    >>> available >= 2 << 20, stall
    (True, None)
    """
    return _get_pressure_trim(default_allocator())


class _Trimming:
    """One thread's. Each step is one of C's, so a signal's handler may come between any two.

    No thread of `threading`'s: to import that can fail, and takes as long as memlimits does.
    """

    def __init__(self, interval: "SupportsFloat") -> None:
        self.interval = _interval(interval)
        self.closed = False
        self._closing = allocate_lock()  # had by who ends it, once
        self._sleeping = allocate_lock()  # locked until it is to end
        self._sleeping.acquire()
        self._ended = allocate_lock()  # locked until it has ended
        self._ended.acquire()
        self._ident: int | None = None

    def _run(self) -> None:
        self._ident = get_ident()
        try:
            while not self._sleeping.acquire(timeout=self.interval):
                trim(None)
        finally:
            self.let_go()
            _threads.discard(self)

    def start(self) -> None:
        try:
            running = _running.setdefault("it", self)
            if running is not self:
                raise RuntimeError(
                    f"auto_trim runs already, every {running.interval:g} s: close() that one first"
                )
            _threads.add(self)
            start_new_thread(self._run, ())
        except BaseException:
            if _running.get("it") is self:
                self.end()
            _threads.discard(self)
            raise

    def end(self) -> bool:
        """Let the thread end. False: that was done before."""
        if not self._closing.acquire(blocking=False):
            return False
        self.closed = True
        self._sleeping.release()
        if _running.get("it") is self:
            del _running["it"]
        return True

    def join(self) -> None:
        if self in _threads and self._ident != get_ident():
            self._ended.acquire()
            self.let_go()

    def let_go(self) -> None:
        """Who waits for the thread goes on."""
        if self._ended.locked():
            self._ended.release()

    def forget(self) -> None:
        """In a forked child the thread is not there."""
        self._closing.acquire(blocking=False)
        self.closed = True
        self.let_go()


_running: dict[str, _Trimming] = {}  # at most one, as "it"
_threads: set[_Trimming] = set()  # that one, and those that have not ended yet


def _forget_all() -> None:
    for trimming in tuple(_threads):
        trimming.forget()
    _threads.clear()
    _running.clear()


register_at_fork(after_in_child=_forget_all)


class AutoTrim:
    """A thread that returns idle memory, until it is closed. Made by `auto_trim`.

    A context manager that closes it.

    Attributes
    ----------
    interval : float
        Seconds between two looks.
    closed : bool
        Whether the thread has ended. It has in a forked child.

    See Also
    --------
    auto_trim : make one.
    """

    _trimming: _Trimming | None = None
    _entered = False

    def __init__(self, interval: "SupportsFloat") -> None:
        trimming = _Trimming(interval)
        default_allocator()
        trimming.start()
        self._trimming = trimming

    @property
    def interval(self) -> float:
        return 0.0 if self._trimming is None else self._trimming.interval

    @property
    def closed(self) -> bool:
        return self._trimming is None or self._trimming.closed

    def close(self) -> None:
        """End the thread. Closing twice is allowed."""
        if self._trimming is not None and self._trimming.end():
            self._trimming.join()

    def __enter__(self) -> "Self":
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Where an exception came between the start of a block and its first line, nobody else can.
        if self._entered and self._trimming is not None:
            self._trimming.end()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"every {self.interval:g} s"
        return f"<memlimits.auto_trim, {state}>"


def auto_trim(interval: "SupportsFloat" = 10.0) -> AutoTrim:
    """Have one daemon thread return idle memory while the program allocates nothing.

    Each time it does what ``trim(None)`` does: idle memory goes back as far as the idle timeout
    (`set_idle_timeout`) and memory pressure (`set_pressure_trim`) ask for it. After a fork it does
    not run in the child, where it can be started anew.

    Parameters
    ----------
    interval : float
        Seconds between two looks, from 0.001 to 1e6.

    Returns
    -------
    AutoTrim
        Close it, or use it as a context manager, to end the thread. One that is dropped without
        either goes on; a block that nobody can leave any more is left.

    Raises
    ------
    RuntimeError
        It runs already.
    TypeError, ValueError
        `interval` is no such number.

    See Also
    --------
    trim : once.
    set_idle_timeout, set_pressure_trim : what it goes by.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.auto_trim(60) as trimming:
    ...     trimming.interval, trimming.closed
    (60.0, False)
    >>> trimming.closed
    True
    """
    return AutoTrim(interval)
