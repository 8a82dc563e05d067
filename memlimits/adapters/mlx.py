"""MLX within this process's limits and its pool's. It needs MLX: ``pip install 'mlx[cpu]'``."""

import atexit
import os
import sys
from _thread import RLock, allocate_lock, start_new_thread
from contextlib import suppress
from time import monotonic, process_time

import memlimits
from memlimits import _modules
from memlimits.sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, SupportsFloat, SupportsIndex

    from memlimits.pools import Membership

__all__ = ["Limits", "Ticket", "apply", "ticket"]

_NEEDED = (
    "get_active_memory", "get_cache_memory", "get_peak_memory", "clear_cache",
    "set_memory_limit", "set_cache_limit", "set_wired_limit",
)  # fmt: skip
_EVERY = 0.05  # seconds: what another process frees, or MLX takes, is seen so late
_POLICIES = ("sum", "max")

_lock = RLock()  # had by who changes MLX's limits; its holder may be a signal's handler, too
_applied: "Limits | None" = None
# What MLX had in use, idle and in use at most before the last fork; in a forked child that is its
# parent's, where it counts.
_seen = _inherited = (0, 0, 0)


def _core() -> "Any":
    """Return MLX.

    Raises
    ------
    ImportError
        It is not installed.
    RuntimeError
        It is too old, or counts already.
    """
    try:
        import mlx.core as core
    except ImportError as error:
        raise ImportError(
            "memlimits.adapters.mlx needs MLX: pip install mlx, and on Linux pip install "
            "'mlx[cpu]'",
            name="mlx",
        ) from error
    for name in _NEEDED:
        if not hasattr(core, name):
            version = getattr(core, "__version__", "of unknown version")
            raise RuntimeError(
                f"this MLX, {version}, has no mlx.core.{name}: pip install --upgrade mlx"
            )
    process = sys.modules.get("memlimits.adapters._process")
    if process is not None and process.governs():
        raise RuntimeError(
            "what MLX takes counts already, since malloc is governed (--govern all): limit it "
            "there, or give memlimits run --govern python"
        )
    return core


def _has(core: "Any") -> "tuple[int, int, int]":
    return core.get_active_memory(), core.get_cache_memory(), core.get_peak_memory()


def _look(core: "Any", needed: int = 0, clears: bool = True) -> int:
    """Count what MLX has, and return the bytes that it may have.

    What it keeps for reuse goes if anyone waits for memory, or if it is in the way of so many
    bytes. In a forked child that would wait for threads of MLX's that are not there, but there it
    has nothing but its parent's.

    On a CPU it waits for what MLX computes, and no Python runs meanwhile; so does a change of MLX's
    cache limit.
    """
    note = _modules.for_admissions().note
    active, cache, peak = map(max, map(int.__sub__, _has(core), _inherited), (0, 0, 0))
    room, wanted = note(active, cache, peak)
    if cache and clears and (wanted or needed > room - active - cache):
        core.clear_cache()
        room, _ = note(active, 0, peak)
    result: int = room
    return result


# ---- limits ----


class Limits:
    """MLX's limits, kept to what this process may use. Made by `apply`.

    A context manager that closes it.

    Attributes
    ----------
    closed : bool
        Whether MLX has its own limits again.

    See Also
    --------
    apply : make one.
    """

    closed = False

    def __init__(self, core: "Any", membership: "Membership | None") -> None:
        self._core = core
        self._membership = membership
        self._names = ["memory", "cache", *(["wired"] if core.metal.is_available() else [])]
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._thread: tuple[Any, Any] | None = None

    def _set(self, name: str, limit: int) -> int:
        """Set one of MLX's limits; the previous one."""
        before: int = getattr(self._core, f"set_{name}_limit")(limit)
        return before

    def _begin(self) -> None:
        for name in self._names:
            self._before[name] = self._set(name, 0)  # which is how it is asked for
        self._keep(True)
        self._start()

    def _keep(self, calm: bool) -> None:
        """Set MLX's limits by what there is now: that of its cache, and what is there, if calm.

        Its caller has the lock.
        """
        room = _look(self._core, clears=calm)
        wired = max(memlimits.get_wired_limit() - memlimits.get_wired_memory(), 0)
        for name in self._names:
            limit = min(room, wired if name == "wired" else self._before[name])
            if self._now.get(name) != limit and (calm or name != "cache"):
                self._set(name, limit)
                self._now[name] = limit

    def _restore(self) -> None:
        self.closed = True
        for name, limit in self._before.items():
            self._set(name, limit)

    def _start(self) -> None:
        sleeping, ended = allocate_lock(), allocate_lock()
        sleeping.acquire()
        ended.acquire()
        start_new_thread(_watch, (sleeping, ended, "wired" in self._names))
        self._thread = sleeping, ended

    def _pause(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            sleeping, ended = thread
            sleeping.release()
            ended.acquire()

    def close(self) -> None:
        """Give MLX its own limits back, and leave the pool that `apply` joined.

        Closing twice is allowed.
        """
        global _applied
        with _lock:
            if self.closed:
                return  # or it is its parent's
            _applied = None
            self._restore()
        self._pause()
        if self._membership is not None:
            with suppress(RuntimeError):  # It was left.
                self._membership.leave()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<memlimits.adapters.mlx.apply, {'closed' if self.closed else 'open'}>"


def _watch(sleeping: "Any", ended: "Any", has_metal: bool) -> None:
    """Keep MLX's limits now and then: a thread's, which is to end when `sleeping` is unlocked."""
    try:
        while True:
            worked, began = process_time(), monotonic()
            if sleeping.acquire(timeout=_EVERY):
                break
            # MLX computes nothing on a CPU where that was idle.
            idle = process_time() - worked < (monotonic() - began) / 2
            # Who has the lock may wait for this thread's end.
            if _lock.acquire(blocking=False):
                try:
                    if _applied is not None:
                        _applied._keep(has_metal or idle)
                except MemoryError:
                    continue  # Python's own objects may be refused; the next look is soon.
                finally:
                    _lock.release()
    finally:
        ended.release()


def apply(pool: "str | None" = None) -> Limits:
    """Have MLX keep to what this process may use, until it is closed.

    MLX's memory limit and cache limit become what the memory limit and the pool leave beside what
    memlimits has in use itself, if MLX's own were not lower; with Metal its wired limit becomes
    what of `set_wired_limit` memlimits has not wired itself. They are set anew as that changes: a
    daemon thread looks 20 times a second. What MLX holds counts towards the limit and in the pool
    from when it is seen, and what it keeps for reuse goes as soon as somebody waits for memory here
    or in the pool. On a CPU that, and the cache limit, are left until MLX computes nothing, since
    they would wait for it, and no Python would run meanwhile.

    Parameters
    ----------
    pool : str, optional
        A pool to join first, as by `memlimits.join`; closing leaves it.

    Returns
    -------
    Limits
        To ``close``; a context manager.

    Raises
    ------
    ImportError
        MLX is not installed.
    RuntimeError
        It is applied already; MLX is too old; or all that malloc gives counts already
        (``memlimits run --govern all``).
    LookupError, ValueError
        As for `memlimits.join`.

    See Also
    --------
    ticket : what makes sure of room before work begins.

    Notes
    -----
    MLX's memory limit makes it return what is idle, and with Metal wait for its own tasks; beyond
    it MLX takes memory all the same. `ticket` refuses.

    A fork ends the thread, which starts anew with the next ticket. In a forked child it is closed.
    MLX itself cannot go on in a child that was forked after it had computed: there it raises a
    RuntimeError, too.

    Examples
    --------
    >>> import memlimits
    >>> from memlimits.adapters import mlx
    >>> with memlimits.limits(memory=64 << 20), mlx.apply() as limits:
    ...     limits.closed
    False
    """
    global _applied
    core = _core()
    if _inherited[2]:
        raise RuntimeError(
            "MLX had computed before this process was forked, and cannot go on here: start "
            "processes with the 'spawn' method"
        )
    with _lock:
        if _applied is not None:
            raise RuntimeError("MLX's limits are applied already: close() those first")
        membership = None if pool is None else memlimits.join(pool)
        _applied = limits = Limits(core, membership)
        try:
            limits._begin()
        except BaseException:
            _applied = None
            limits._restore()
            limits._pause()
            if membership is not None:
                membership.leave()
            raise
    return limits


# ---- tickets ----


class Ticket:
    """Room for work of MLX's. Made by `ticket`.

    A context manager: open inside.

    Attributes
    ----------
    nbytes : int
        Bytes that it admits.
    policy : {"sum", "max"}
    group : str or None
        Of which the largest open ticket counts.

    See Also
    --------
    ticket : make one.
    """

    policy: str = "sum"
    group: str | None = None
    _admission: "Any" = None

    def __init__(
        self,
        nbytes: "SupportsIndex | str",
        policy: str = "sum",
        timeout: "SupportsFloat | None" = None,
        group: "str | None" = None,
    ) -> None:
        if isinstance(nbytes, str):
            nbytes = parse_size(nbytes, _memory_size)
        if policy not in _POLICIES:
            raise ValueError(f"policy must be 'sum' or 'max', not {policy!r:.100}")
        if group is not None and not isinstance(group, str):
            raise TypeError(f"group must be a str, not {group!r:.100}")
        if group is not None and policy != "max":
            raise ValueError("a group is of the policy 'max': give that, too")
        name = None if policy == "sum" else str(group or "")
        self._admission = _modules.for_admissions().Admission(nbytes, name, timeout)
        self._mlx = _core()
        self.policy = policy
        self.group = name

    @property
    def nbytes(self) -> int:
        return 0 if self._admission is None else int(self._admission.nbytes)

    def open(self) -> None:
        """Open it, as the start of a ``with`` block does.

        Raises
        ------
        MemoryLimitError
            There is no such room; under the policy ``"wait"`` not in time.
        RuntimeError
            It is open.
        """
        _look(self._mlx, self.nbytes)
        if not self._admission.open():
            raise RuntimeError(f"{self} is open already: it can be opened again when it was closed")
        try:
            _keep()
        except BaseException:
            self._admission.close()
            raise

    def close(self) -> None:
        """Close it, as the end of a ``with`` block does. What MLX holds counts on.

        Raises
        ------
        RuntimeError
            It is not open.
        """
        _look(self._mlx)
        if not self._admission.close():
            raise RuntimeError(f"{self} is not open: it was closed, or never opened")
        _keep()
        _look(self._mlx)

    def __enter__(self) -> "Self":
        self.open()
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        group = f" of {self.group!r}" if self.group else ""
        return f"the ticket{group} for {self.nbytes} bytes"


def _memory_size() -> int:
    size = memlimits.device_info()["memory_size"]
    assert isinstance(size, int)
    return size


def _keep() -> None:
    """Set MLX's limits by what a ticket changed."""
    with _lock:
        if _applied is not None:
            _applied._keep(False)
            if _applied._thread is None:
                _applied._start()  # anew, after a fork


def ticket(
    nbytes: "SupportsIndex | str",
    policy: str = "sum",
    timeout: "SupportsFloat | None" = None,
    *,
    group: "str | None" = None,
) -> Ticket:
    """Admit work of MLX's before it begins: a ``with`` block that has room, or does not begin.

    Where the memory limit, the pool or the system has no such room, it is refused; under the policy
    ``"wait"`` it waits for others first, also for other processes of the pool. This goes for the
    policy ``"guideline"``, too, as for `memlimits.reserve`. So MLX never meets a malloc that fails,
    which it does not survive.

    What MLX holds, with what it keeps for reuse, is taken to be of the open tickets: the larger of
    the two counts, not both. So open one for what stays, such as weights, too. MLX is not hindered
    to take more than its tickets say; that counts once it is seen.

    Parameters
    ----------
    nbytes : int or str
        Bytes that the work needs at most, from 0 to 2**63 - 1, or a size such as ``"2GiB"``.
    policy : {"sum", "max"}
        With ``"sum"`` the tickets that are open add up. With ``"max"`` of a group the largest alone
        counts: for work of which one part runs at a time.
    timeout : float, optional
        Seconds to wait under the policy ``"wait"``; by default as long as that says.
    group : str, optional
        Which group, with ``"max"``; by default one that has no name.

    Returns
    -------
    Ticket
        A context manager. It can be opened again when it was closed.

    Raises
    ------
    MemoryLimitError
        On opening: there is no such room.
    TypeError, ValueError
        An argument is not as it has to be.
    ImportError, RuntimeError
        As for `apply`, which need not be open.

    See Also
    --------
    apply : MLX's own limits.
    memlimits.reserve : the same for what memlimits allocates.

    Notes
    -----
    A ticket is of the process that opened it: a killed one's is its pool's again, and a forked
    child has none.

    Examples
    --------
    >>> import memlimits
    >>> from memlimits.adapters import mlx
    >>> with memlimits.limits(memory=64 << 20, policy="strict"):
    ...     with mlx.ticket("48MiB"):
    ...         try:
    ...             with mlx.ticket("32MiB"):
    ...                 print("never reached")
    ...         except memlimits.MemoryLimitError as error:
    ...             print(error.blocked_by, error.requested >> 20, error.mlx >> 20)
    limit 32 48
    """
    return Ticket(nbytes, policy, timeout, group)


# ---- forks, and the end ----


def _before_fork() -> None:
    global _seen
    if core := sys.modules.get("mlx.core"):
        _seen = _has(core)  # a child cannot ask: another thread may have had MLX's lock
    # Python warns of a fork of several threads, and would count this one, before and after.
    if _applied is not None:
        _applied._pause()


def _after_fork_in_child() -> None:
    global _lock, _applied, _inherited
    _lock = RLock()
    _inherited = _seen
    if _applied is not None:
        _applied.closed = True
        _applied = None


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


@atexit.register
def _at_exit() -> None:
    if _applied is not None:
        _applied.close()
