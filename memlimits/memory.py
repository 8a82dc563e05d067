"""The documented functions, on the process's default allocator.

Where a docstring ends in "After mlx.core.NAME", name, defaults and return value are those that MLX
documents (https://ml-explore.github.io/mlx/build/html/python/memory_management.html), and the text
says where memlimits goes further. All sizes are in bytes. All are safe to call from any thread.
"""

from memlimits import _modules  # makes the modules below
from memlimits._bindings.allocator import (
    at_the_limit,
    default_allocator,
    get_active_memory,
    get_cache_limit,
    get_cache_memory,
    get_memory_limit,
    get_peak_memory,
    get_wired_limit,
    get_wired_memory,
    this_threads_refusal,
)
from memlimits._bindings.budgets import Budget, Reservation, budget, reserve, what_blocks
from memlimits._bindings.budgets import budgets as budgets  # not documented: for reports
from memlimits._bindings.buffer import Buffer, allocate
from memlimits._bindings.wiring import get_array_buffer_size, unwire, wire
from memlimits.errors import MemoryLimitError
from memlimits.figures import Holder, Snapshot, Stats
from memlimits.scopes import limits  # and what it needs as a decorator
from memlimits.sizes import in_bytes as in_bytes  # there, so that no first use opens a file

TYPE_CHECKING = False  # typing's own would cost its import
if TYPE_CHECKING:
    from typing import Any, SupportsFloat, SupportsIndex

__all__ = [
    "Budget",
    "Buffer",
    "Fit",
    "Reservation",
    "allocate",
    "budget",
    "clear_cache",
    "device_info",
    "get_active_memory",
    "get_array_buffer_size",
    "get_cache_limit",
    "get_cache_memory",
    "get_holder_sampling",
    "get_idle_action",
    "get_idle_timeout",
    "get_memory_count",
    "get_memory_limit",
    "get_memory_policy",
    "get_peak_memory",
    "get_wired_limit",
    "get_wired_memory",
    "holders",
    "last_refusal",
    "limits",
    "reserve",
    "reset_peak_memory",
    "set_cache_limit",
    "set_holder_sampling",
    "set_idle_timeout",
    "set_memory_count",
    "set_memory_limit",
    "set_memory_policy",
    "set_wired_limit",
    "stats",
    "unwire",
    "wire",
    "would_fit",
]


def set_memory_limit(limit: "SupportsIndex | str") -> int:
    """Set the memory limit.

    Under the ``"guideline"`` policy, MLX's, memory past the limit is still given while the system
    has it; under ``"strict"`` it is refused. A limit below what is in use takes nothing away from
    callers: the cache is trimmed before the function returns, and the footprint can only fall.

    Parameters
    ----------
    limit : int or str
        Bytes, from 0 to 2**64 - 1, and from 2**63 on there is no limit; or a size such as
        ``"2GiB"``, ``"512 MiB"``, ``"50%"`` (of the memory size) or ``"max"`` (no limit). The
        default is 1.5 times the maximum recommended working set size, but at most 0.95 times the
        memory size.

    Returns
    -------
    int
        The previous limit, in bytes.

    Raises
    ------
    TypeError, ValueError
        `limit` is no such integer or size; the limit stays.

    See Also
    --------
    get_memory_limit : what it is.
    limits : for a part of a program.
    set_memory_policy : what happens at the limit.
    set_memory_count : what the limit is on.

    Notes
    -----
    After ``mlx.core.set_memory_limit``.

    Examples
    --------
    >>> import memlimits
    >>> default = memlimits.set_memory_limit(2 << 30)
    >>> memlimits.set_memory_limit(default) >> 30
    2
    """
    return default_allocator().set_memory_limit(limit)


def set_cache_limit(limit: "SupportsIndex | str | None") -> int:
    """Set how many idle bytes may be kept for reuse.

    What is above a lower limit is returned to the system before the function returns. Idle bytes
    are returned, too, before memory grows a quarter, and 16 MiB a thread, above the most that was
    in use since the last `clear_cache`; and, on Metal, before it grows above 0.95 of the
    recommended working set.

    Parameters
    ----------
    limit : int, str or None
        Bytes, from 0 to 2**64 - 1, or a size such as ``"2GiB"``; 0 turns the cache off, and from
        2**63 on there is no limit.
        None, the default, makes it follow the memory limit.

    Returns
    -------
    int
        The previous limit, in bytes: the memory limit, if it followed that.

    Raises
    ------
    TypeError, ValueError
        `limit` is no such integer or size; the limit stays.

    See Also
    --------
    get_cache_limit : what it is.
    clear_cache : empty the cache once.
    set_idle_timeout : bound it by time.

    Notes
    -----
    After ``mlx.core.set_cache_limit``.

    Examples
    --------
    >>> import memlimits
    >>> previous = memlimits.set_cache_limit(0)
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.get_cache_memory()
    0
    """
    return default_allocator().set_cache_limit(limit)


def set_wired_limit(limit: "SupportsIndex | str") -> int:
    """Set how many bytes are kept resident, so that they are never swapped out.

    Memory in use is wired as far as it fits. Raising the limit wires what already lives; lowering
    it unwires before the function returns. A child made by ``fork`` starts with nothing wired and
    a limit of 0, since the system does not hand locked pages on.

    On Metal it takes macOS 15 and a GPU of the Metal 3 family; elsewhere the limit is accepted and
    does nothing, as MLX documents.

    Parameters
    ----------
    limit : int or str
        Bytes, or a size such as ``"2GiB"``, from 0, the default, to
        ``device_info()["max_recommended_working_set_size"]``.

    Returns
    -------
    int
        The previous limit, in bytes.

    Raises
    ------
    WiredLimitError
        `limit` is above the maximum (a ValueError); the limit stays.
    DeviceError
        In a forked child of a process that uses Metal, and `limit` is not 0.
    TypeError, ValueError
        `limit` is no such integer or size; the limit stays.

    Warns
    -----
    RuntimeWarning
        `limit` is above ``device_info()["wired_capacity"]``, what this process may lock. It is
        accepted, and what cannot be locked stays unwired.

    See Also
    --------
    get_wired_limit, get_wired_memory : what it is, and what is wired.
    wire : what is wired ahead of the rest.
    device_info : how high it may be.

    Notes
    -----
    After ``mlx.core.set_wired_limit``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_wired_limit(1 << 20)
    0
    >>> block = memlimits.allocate(1 << 16)
    >>> memlimits.set_wired_limit(0)
    1048576
    """
    return default_allocator().set_wired_limit(limit)


def set_idle_timeout(seconds: "SupportsFloat | None", action: str = "purge") -> float | None:
    """Set after how long without use the system may take idle memory, or gets it back.

    The time counts from the last use; for what is idle when a time is set, and was none, from then.
    What is purged stays in the cache, and its bytes count there, but the system takes its pages
    when it runs short; what is left of it is used again like any other. Wired memory is not purged.
    What is returned leaves the cache. Either happens when this is set, in `trim`, and whenever
    memory is allocated that the cache cannot serve, the oldest first, about 64 MiB at a time.

    Parameters
    ----------
    seconds : float or None
        From 0 to 1e9. None, the default, is never.
    action : {"purge", "return"}
        What happens then.

    Returns
    -------
    float or None
        The previous time.

    Raises
    ------
    TypeError, ValueError
        `seconds` or `action` is no such value; both stay.

    See Also
    --------
    get_idle_timeout, get_idle_action : what they are.
    auto_trim : look without an allocation.
    set_cache_limit : bound the cache by size.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_idle_timeout(30, action="return")
    >>> memlimits.set_idle_timeout(None)
    30.0
    """
    return default_allocator().set_idle_timeout(seconds, action)


def get_idle_timeout() -> float | None:
    """Return after how long without use the system may take idle memory, or gets it back.

    Returns
    -------
    float or None
        Seconds; None for never.

    See Also
    --------
    set_idle_timeout : set it.
    get_idle_action : what happens then.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_idle_timeout() is None
    True
    """
    return default_allocator().get_idle_timeout()


def get_idle_action() -> str:
    """Return what happens to memory that is idle for the timeout.

    Returns
    -------
    str
        ``"purge"`` or ``"return"``, as for `set_idle_timeout`.

    See Also
    --------
    set_idle_timeout : set it.
    get_idle_timeout : after how many seconds.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_idle_action()
    'purge'
    """
    return default_allocator().get_idle_action()


def set_memory_policy(policy: str, timeout: "SupportsFloat | None" = None) -> str:
    """Set what happens to an allocation that does not fit the memory limit.

    Parameters
    ----------
    policy : {"guideline", "strict", "wait"}
        ``"guideline"``, the default and what MLX documents: it is given as long as the system has
        the memory. ``"strict"``: it is refused. ``"wait"``: it waits, without the GIL, until others
        have freed enough, and is refused when the time is up. Whatever the policy, memory that the
        system does not have is refused; under ``"wait"`` that waits, too. Python's objects under
        `govern_python` cannot wait, since that keeps the GIL.
    timeout : float, optional
        Seconds that a request waits under ``"wait"``, from 0 to 1e9; by default 60, or what
        `policy` has brought along.

    Returns
    -------
    str
        The previous policy; ``"wait"`` has the attribute ``timeout``, and brings it along when it
        is set again.

    Raises
    ------
    TypeError, ValueError
        `policy` is none of these, or `timeout` no such number; the policy stays.

    See Also
    --------
    get_memory_policy : what it is.
    set_memory_limit : the limit.
    limits : for a part of a program.

    Notes
    -----
    Requests are served in the order in which they come, those of threads that hold memory before
    those of threads that hold none, which cannot free any. A thread holds the blocks that it took,
    and the room of a reservation that is open where it asks. Garbage is collected once before
    `allocate`, `empty` or `zeros` wait, if `gc.isenabled()`, and signals are handled meanwhile.
    Inside NumPy's own allocations neither is done, since no Python may run there: SIGINT ends the
    wait with a refusal, and other signals' handlers run when the wait is over, so a `timeout` is to
    be shorter than what SIGTERM may take.

    On free-threaded Python an object that another thread let go of is freed by the thread that made
    it, between two steps of Python. So it is while that waits in `allocate`; not on a daemon
    thread, nor inside NumPy's own allocations, until another thread collects garbage.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_memory_policy("wait", timeout=5)
    'guideline'
    >>> memlimits.get_memory_policy().timeout
    5.0
    """
    return default_allocator().set_memory_policy(policy, timeout)


def get_memory_policy() -> str:
    """Return what happens to an allocation that does not fit the memory limit.

    Returns
    -------
    str
        ``"guideline"``, ``"strict"`` or ``"wait"``, as for `set_memory_policy`; ``"wait"`` has the
        attribute ``timeout``, in seconds.

    See Also
    --------
    set_memory_policy : set it.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_memory_policy()
    'guideline'
    """
    return default_allocator().get_memory_policy()


def set_memory_count(count: str) -> str:
    """Set what the memory limit is on.

    Budgets and reservations are on what is given, whatever this says.

    Parameters
    ----------
    count : {"given", "resident", "process"}
        ``"given"``, the default: bytes handed out, touched or not, and what is kept for reuse. It
        is exact at every instant. ``"resident"``: of these only what is touched. Before anything is
        refused idle memory goes back, and a look is taken at the pages, of up to some tens of
        milliseconds for each GiB: the more, the more mappings there are. What is touched later can
        pass the limit; when that is seen it counts as an overrun, and what is asked for next is
        refused. Under the policy ``"guideline"``, which refuses nothing for the limit, it is as
        ``"given"``. ``"process"``: besides what was given, all that this process holds, whoever
        allocated it: what is resident, without pages of files, which the system can drop, and what
        is swapped out. With it goes what was given and is not touched yet. So memory that is not
        governed takes from the room, and the next growth that does not fit is refused, or does what
        the policy says; what is idle is handed out again without a look. It is read after each
        16 MiB of growth, and nearer to the limit after each quarter of the room: what is not
        governed is not refused, and can pass the limit.

    Returns
    -------
    str
        The previous one.

    Raises
    ------
    TypeError, ValueError
        `count` is none of these; it stays as it was.

    See Also
    --------
    get_memory_count : what it is.
    set_memory_limit : the limit.
    stats : what was given, and what is resident.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_memory_count("process")
    'given'
    """
    return default_allocator().set_memory_count(count)


def get_memory_count() -> str:
    """Return what the memory limit is on.

    Returns
    -------
    str
        ``"given"``, ``"resident"`` or ``"process"``, as for `set_memory_count`.

    See Also
    --------
    set_memory_count : set it.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_memory_count()
    'given'
    """
    return default_allocator().get_memory_count()


class Fit:
    """Whether an allocation would fit: true or false, and why not. Made by `would_fit`.

    Attributes
    ----------
    nbytes : int
        Bytes asked about.
    blocked_by : str or None
        What would refuse them, as in `MemoryLimitError`; None where they fit.

    See Also
    --------
    would_fit : make one.

    Examples
    --------
    >>> import memlimits
    >>> fit = memlimits.would_fit(1 << 20)
    >>> bool(fit), fit.nbytes, fit.blocked_by
    (True, 1048576, None)
    """

    nbytes: int = 0
    blocked_by: str | None = None

    def __init__(self, nbytes: int, blocked_by: str | None) -> None:
        object.__setattr__(self, "nbytes", nbytes)
        object.__setattr__(self, "blocked_by", blocked_by)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Fit does not change: it has no {name} to set")

    def __bool__(self) -> bool:
        return self.blocked_by is None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fit):
            return NotImplemented
        return (self.nbytes, self.blocked_by) == (other.nbytes, other.blocked_by)

    def __hash__(self) -> int:
        return hash((self.nbytes, self.blocked_by))

    def __repr__(self) -> str:
        return f"Fit(nbytes={self.nbytes}, blocked_by={self.blocked_by!r})"


def would_fit(nbytes: "SupportsIndex | str") -> Fit:
    """Tell whether an allocation would fit at this moment, and what would block it.

    It counts with this thread's budgets and reservations, and takes nothing: only within `reserve`
    is the answer still true when the allocation comes.

    Parameters
    ----------
    nbytes : int or str
        Bytes, from 0 to 2**63 - 1, or a size such as ``"2GiB"``.

    Returns
    -------
    Fit
        True where it would fit; ``blocked_by`` says what blocks. Under the policy ``"guideline"``
        that is not the memory limit; under ``"wait"`` it is also where others wait before this one.

    Raises
    ------
    TypeError, ValueError
        `nbytes` is no such integer or size.

    See Also
    --------
    reserve : have room that stays.
    effective_limit : how many bytes would fit.
    MemoryLimitError : what blocks.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=1 << 20, policy="strict"):
    ...     memlimits.would_fit(2 << 20)
    Fit(nbytes=2097152, blocked_by='limit')
    """
    return at_the_limit(_fit, nbytes)


def _fit(nbytes: "SupportsIndex | str") -> Fit:
    return Fit(*what_blocks(nbytes))


def reset_peak_memory() -> None:
    """Set the peak to 0. It reads 0 until the next allocation.

    See Also
    --------
    get_peak_memory : read it.
    stats : read it and reset it in one step.

    Notes
    -----
    After ``mlx.core.reset_peak_memory``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.reset_peak_memory()
    >>> memlimits.get_peak_memory()
    0
    """
    default_allocator().reset_peak_memory()


def clear_cache() -> None:
    """Return every idle resource to the system: afterwards `get_cache_memory` is 0.

    See Also
    --------
    get_cache_memory : how many bytes there are.
    trim : return a part of them.
    set_cache_limit : bound them.

    Notes
    -----
    After ``mlx.core.clear_cache``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.get_cache_memory()
    1048576
    >>> memlimits.clear_cache()
    >>> memlimits.get_cache_memory()
    0
    """
    default_allocator().clear_cache()


def device_info(d: object = None) -> dict[str, str | int]:
    """Return the facts of the device that memory comes from.

    Parameters
    ----------
    d : object
        The device that MLX is asked about. There is one here, whatever this says.

    Returns
    -------
    dict
        Sizes in bytes.

        - ``device_name``, ``architecture``: what the machine calls itself.
        - ``backend``: ``"host"`` (memory mappings) or ``"metal"`` (shared Metal buffers).
        - ``memory_size``: what all programs here share now: RAM, or the smallest limit
          (``memory.max``, ``memory.high``) of the control groups this process is in.
        - ``max_recommended_working_set_size``: the highest wired limit. On the host 0.75 times
          that; on Metal what the GPU is said to use without loss of speed
          (``iogpu.wired_limit_mb``).
        - ``max_buffer_length``: the longest single block.
        - ``resource_limit``: how many resources the system allows (``vm.max_map_count``,
          ``iogpu.rsrc_limit``).
        - ``wired_capacity``: what this process may keep resident. On the host what
          ``RLIMIT_MEMLOCK`` lets it lock; on Metal the recommended size, or 0 without residency
          sets.

    See Also
    --------
    effective_limit : what can still be had.
    set_wired_limit : what the working set bounds.

    Notes
    -----
    After ``mlx.core.device_info``.

    Examples
    --------
    >>> import memlimits
    >>> facts = memlimits.device_info()
    >>> facts["max_recommended_working_set_size"] < facts["memory_size"]
    True
    """
    return default_allocator().device_info()


def last_refusal() -> MemoryLimitError | None:
    """Return this thread's last refused allocation, or None.

    NumPy replaces an allocator's exception by its own, which has no numbers: here they are.

    Returns
    -------
    MemoryLimitError or None
        Not raised; its attributes are the counters at the moment of the refusal. In a forked child
        of a process that uses Metal its ``blocked_by`` is ``"fork"``.

    See Also
    --------
    MemoryLimitError : what its numbers are.
    memlimits.errors.is_refusal : whether one was behind an error.
    refusal_snapshot : what lived then.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=1 << 20, policy="strict"):
    ...     try:
    ...         block = memlimits.allocate(2 << 20)
    ...     except MemoryError:
    ...         refusal = memlimits.last_refusal()
    >>> refusal.requested, refusal.limit, refusal.blocked_by
    (2097152, 1048576, 'limit')
    """
    return this_threads_refusal()


def set_holder_sampling(nbytes: "SupportsIndex | str | None") -> int | None:
    """Set how often it is noted who allocates a block, so that a refusal says who holds most.

    Noted is where Python's code stands in the thread that asks: for each block of `nbytes` and
    more, and for about one in as many bytes of shorter ones, drawn at random. It is forgotten when
    the block is freed. Blocks that were there before are nobody's.

    Parameters
    ----------
    nbytes : int, str or None
        Bytes from one sample to the next, from 4096 to 2**40, or a size such as ``"1MiB"``; what is
        no power of two is rounded up to the next. None, as long as nothing was set: no block is
        noted from then on.

    Returns
    -------
    int or None
        What it was before.

    Raises
    ------
    TypeError, ValueError
        `nbytes` is no such integer or size.
    MemoryError
        The system has no memory for the table of the places.

    See Also
    --------
    holders : what was noted.
    get_holder_sampling : how often it is noted.

    Notes
    -----
    With 2**18, an estimate of 100 MiB in short blocks is off by 5 % or less in two of three cases.
    The tables take 9 MiB of addresses at most, of which what is used is touched; none of it counts
    towards the limits. They have room for 65,528 places and 4 MiB of names: more than that is told
    as of the callers.

    What is small of Python's own objects, up to 512 bytes, lies in arenas of 1 MiB, which are whose
    object was the first that found no room in others.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_holder_sampling(1 << 18)
    >>> block = memlimits.allocate(3 << 20)
    >>> [holder] = memlimits.holders()
    >>> holder.nbytes, holder.blocks
    (3145728, 1)
    >>> memlimits.set_holder_sampling(None)
    262144
    """
    return _modules.for_holders().sample_every(nbytes)  # type: ignore[no-any-return]


def get_holder_sampling() -> int | None:
    """Return how often it is noted who allocates a block.

    Returns
    -------
    int or None
        Bytes from one sample to the next; None where none are taken.

    See Also
    --------
    set_holder_sampling : set it.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_holder_sampling() is None
    True
    """
    return _modules.for_holders().sampled_every()  # type: ignore[no-any-return]


def holders(limit: "SupportsIndex | None" = 10) -> "list[Holder]":
    """Return who holds most memory: lines of the program, and what is held of theirs.

    Parameters
    ----------
    limit : int or None
        How many at most; None for all.

    Returns
    -------
    list of Holder
        The first holds most. A line is that of the innermost function that is neither a library's,
        below a directory ``site-packages`` or ``dist-packages``, nor of Python's own modules, if
        there is one. None before `set_holder_sampling`.

    Raises
    ------
    TypeError, ValueError
        `limit` is no integer of 0 or more.

    See Also
    --------
    set_holder_sampling : have it noted.
    memlimits.figures.Holder : what is told of a line.
    snapshot : all holders, with every block.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_holder_sampling(1 << 18)
    >>> block = memlimits.allocate(3 << 20)
    >>> [holder] = memlimits.holders()
    >>> holder.function, holder.nbytes
    ('<module>', 3145728)
    """
    return _modules.for_holders().holders(limit)  # type: ignore[no-any-return]


def snapshot() -> "Snapshot":
    """Return what lives, and who holds it, as of one instant.

    Returns
    -------
    Snapshot
        Every resource of the allocator with its address, length and use, all holders (with
        `set_holder_sampling`), the limits and counters.

    Raises
    ------
    MemoryError
        The system has no memory for it: 40 bytes a resource, and what Python's objects take.

    See Also
    --------
    memlimits.figures.Snapshot : what it has.
    holders : the lines that hold most.
    stats : the counters alone.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(5_000_000)
    >>> found = memlimits.snapshot()
    >>> max(each.used for each in found.blocks) >= 5_000_000
    True
    """
    return _modules.for_holders().snapshot()  # type: ignore[no-any-return]


def set_refusal_snapshots(keep: bool) -> bool:
    """Set whether a refused allocation leaves a snapshot.

    The newest is kept; where refusals follow each other closely, not each has one, so that no more
    than a twentieth of the time is spent on them.

    Parameters
    ----------
    keep : bool
        False, as long as nothing was set; the one that is kept is forgotten then.

    Returns
    -------
    bool
        What it was before.

    See Also
    --------
    refusal_snapshot : the newest.
    set_holder_sampling : have it say who held what.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.set_refusal_snapshots(True)
    False
    """
    return _modules.for_holders().keep_refusals(keep)  # type: ignore[no-any-return]


def refusal_snapshot() -> "Snapshot | None":
    """Return what lived when an allocation was refused last, in any thread.

    Returns
    -------
    Snapshot or None
        None where there is none: see `set_refusal_snapshots`.

    See Also
    --------
    set_refusal_snapshots : have them made.
    snapshot : what lives now.

    Examples
    --------
    >>> import memlimits
    >>> before = memlimits.set_refusal_snapshots(True)
    >>> with memlimits.limits(memory=1 << 20, policy="strict"):
    ...     try:
    ...         block = memlimits.allocate(2 << 20)
    ...     except MemoryError:
    ...         memlimits.refusal_snapshot().stats.refusals
    1
    """
    return _modules.for_holders().of_refusal()  # type: ignore[no-any-return]


def stats(*, reset_peak: bool = False) -> "Stats":
    """Return the limits and every counter as of one instant.

    Parameters
    ----------
    reset_peak : bool
        Set the peak to 0, as `reset_peak_memory` does, in the same step: no peak is lost between.

    Returns
    -------
    Stats
        Unchangeable; its attributes and their units stand in its docstring.

    See Also
    --------
    memlimits.figures.Stats : what the attributes are.
    snapshot : with every block, and who holds it.
    memlimits.processes.get : the figures of another process.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(1 << 20)
    >>> found = memlimits.stats()
    >>> found.active, found.refusals
    (1048576, 0)
    >>> found.active + found.cache + found.slack + found.pending == found.footprint
    True
    """
    return default_allocator().statistics(reset_peak, Stats)


def closing_stats(pid: int) -> "dict[str, Any] | None":
    """Return what `stats` does as a program ends, and have nothing refused from then on.

    Parameters
    ----------
    pid : int
        The process that is over; in another, such as a forked child, nothing is done.

    Returns
    -------
    dict or None
        The attributes of `Stats` and ``untouched``, the bytes of the footprint that the program
        had not touched where the memory limit counts only what is resident, else 0; or None.
    """
    return default_allocator().closing_statistics(pid)


def latest_refusal() -> MemoryLimitError | None:
    """Return the last refused allocation of any thread, or None."""
    return default_allocator().latest_refusal()


def counters() -> dict[str, int]:
    """Return one consistent snapshot of the counters: sizes in bytes, the others counts."""
    return default_allocator().counters()
