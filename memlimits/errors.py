"""The exceptions of memlimits.

Each can be made from one string, as libraries do that raise a worker's error again, and each
travels between processes with all that it has, subclasses with a constructor of their own included.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.figures import Holder

# What can refuse, in the order of `Blocker` (_ledger/limits), and what the message says of it.
WHY = {
    "limit": "the memory limit does not allow it",
    "system": "the system has not that much memory left (RAM, swap, or a control group's room)",
    "device": "the system refused to map the memory",
    "max_buffer_length": "it is longer than one buffer can be, or than all memory of the "
    "machine or container (device_info()['max_buffer_length'])",
    "resources": "the system allows no further resource (device_info()['resource_limit'])",
    "fork": "Metal does not work in a forked child process",
    "budget": "its budget does not allow it",
    "reservation": "the room within the memory limit is reserved for others",
    "queue": "other threads wait for memory, and come first",
    "pool": "the limit for all processes together, or this one's maximum, does not allow it",
    "test": "a test wanted it to fail (memlimits.testing.fail)",
}

_WAY_OUT = {
    "limit": "Free something, or raise it with set_memory_limit().",
    "system": "Free something, here or in another process.",
    "device": "Free something, or raise the process's limits (ulimit -v).",
    "max_buffer_length": "Ask for less, in smaller buffers.",
    "resources": "Free some buffers, use fewer and larger ones, or raise the system's limit.",
    "budget": "Free something that was allocated in it, or open it with a higher limit.",
    "reservation": "Free something, raise the limit with set_memory_limit(), or reserve less.",
    "queue": "Free something, or wait longer: set_memory_policy('wait', timeout=...).",
    "pool": "Free something, here or in another of them, or run fewer at a time.",
    "fork": "Start processes with the 'spawn' method, multiprocessing.set_start_method('spawn').",
}


NO_LIMIT = 1 << 63  # a limit from there on bounds nothing
_UNKNOWN = "unknown"


def _bare(kind: type[BaseException], *args: object) -> BaseException:
    return kind.__new__(kind, *args)


def _reduced(error: BaseException) -> tuple[object, ...]:
    """What it takes to copy it. By itself that calls the class with ``args``, which may not fit."""
    return _bare, (type(error), *error.args), error.__dict__


class MemoryLimitError(MemoryError):
    """An allocation was refused, and nothing has changed.

    One that was made from a text says that text, and its numbers are 0.

    Attributes
    ----------
    requested : int
        Bytes asked for.
    limit : int
        The memory limit at that moment, or the pool's if that refused, in bytes.
    footprint : int
        Bytes held from the device or being asked of it.
    active : int
        Bytes of blocks in callers' hands, counted at their capacity.
    cache : int
        Idle bytes that `clear_cache` could have returned.
    slack : int
        Idle bytes inside slabs that still hold a live block.
    blocked_by : str
        What refused: ``"limit"``, ``"system"``, ``"device"``, ``"max_buffer_length"``,
        ``"resources"``, ``"budget"``, ``"reservation"`` or ``"queue"``: there was room, but others
        had waited for memory longer; ``"pool"``: all its processes together; ``"test"``: nothing,
        but `memlimits.testing.fail` wanted it; ``"fork"``, which only `last_refusal` tells:
        `allocate` raises `DeviceError` then; or ``"unknown"`` where it was made from a text.
    waited : float
        Seconds that the request waited for others to free memory, under the policy ``"wait"``.
    budget : str or None
        The name of the budget that refused.
    budget_limit, budget_active : int
        Its limit and what was charged to it, in bytes; 0 where none refused.
    counted : str
        What the memory limit was on, as for `set_memory_count`.
    process : int
        Bytes that the process held, governed or not, where the limit was on that, else 0.
    untouched : int
        Bytes of the footprint that nobody had touched, where the limit was on what is resident, and
        so not on these, or on the process, which they add to where that alone is not too much; else
        0.
    kept_back : int
        Bytes of the limit that were kept back from this request, for the errors that follow a
        refusal.
    others : int
        Bytes that the other processes of the pool used, where that refused, else 0.
    holders : tuple of Holder
        The three lines of the program that held most, the first most; none where
        `set_holder_sampling` was not called.
    mlx : int
        Bytes of the limit that MLX had tickets for, or held (`memlimits.adapters.mlx`).

    See Also
    --------
    last_refusal : this thread's last one, where another error was raised in its place.
    is_refusal : whether one was behind an error.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=1 << 20, policy="strict"):
    ...     try:
    ...         memlimits.allocate(2 << 20)
    ...     except memlimits.MemoryLimitError as error:
    ...         print(error.requested, error.limit, error.active, error.blocked_by)
    2097152 1048576 0 limit
    """

    requested: int = 0
    limit: int = 0
    footprint: int = 0
    active: int = 0
    cache: int = 0
    slack: int = 0
    blocked_by: str = _UNKNOWN
    waited: float = 0.0
    budget: str | None = None
    budget_limit: int = 0
    budget_active: int = 0
    counted: str = "given"
    process: int = 0
    untouched: int = 0
    kept_back: int = 0
    others: int = 0
    holders: "tuple[Holder, ...]" = ()
    mlx: int = 0

    def __init__(
        self,
        requested: int | str = "",
        limit: int = 0,
        footprint: int = 0,
        active: int = 0,
        cache: int = 0,
        slack: int = 0,
        blocked_by: str = _UNKNOWN,
        waited: float = 0.0,
        budget: str | None = None,
        budget_limit: int = 0,
        budget_active: int = 0,
        counted: str = "given",
        process: int = 0,
        untouched: int = 0,
        kept_back: int = 0,
        others: int = 0,
        holders: "tuple[Holder, ...]" = (),
        mlx: int = 0,
    ) -> None:
        numbers = (limit, footprint, active, cache, slack)
        of_budget = (budget, budget_limit, budget_active)
        if isinstance(requested, int):
            of_process = (counted, process, untouched, kept_back)
            of_others = (*of_process, others, holders, mlx)
            super().__init__(requested, *numbers, blocked_by, waited, *of_budget, *of_others)
            self.requested = requested
        else:
            super().__init__(requested)
            self.requested = 0
        self.limit, self.footprint, self.active, self.cache, self.slack = numbers
        self.blocked_by = blocked_by
        self.waited = waited
        self.budget, self.budget_limit, self.budget_active = of_budget
        self.counted, self.process, self.untouched = counted, process, untouched
        self.kept_back = kept_back
        self.others = others
        self.holders = holders
        self.mlx = mlx

    def __str__(self) -> str:
        from memlimits.sizes import format_exact as size  # which imports this

        if self.blocked_by == _UNKNOWN:
            bare = f"cannot allocate {size(self.requested)}" if self.requested else ""
            return bare or super().__str__()
        waited = f" after waiting for {self.waited:.3g} s" if self.waited else ""
        why = WHY.get(self.blocked_by, f"it was blocked by {self.blocked_by}")
        if self.budget is not None:
            why = (
                f"the budget {self.budget!r} does not allow it "
                f"(limit {size(self.budget_limit)}, active {size(self.budget_active)})"
            )
        counted = ""
        if self.counted == "process":
            counted = f", the process held {size(self.process)}"
            if self.untouched:
                counted += f", given and not touched yet {size(self.untouched)}"
        elif self.counted == "resident":
            counted = f", not touched and not counted {size(self.untouched)}"
        if self.kept_back:
            counted += f", kept back for errors {size(self.kept_back)}"
        if self.mlx:
            counted += f", for MLX {size(self.mlx)}"
        if self.blocked_by == "pool":
            counted += f", other processes {size(self.others)}"
        held = f"Held by {'; '.join(map(str, self.holders))}. " if self.holders else ""
        return (
            f"cannot allocate {size(self.requested)}{waited}: {why}. "
            f"Limit {size(self.limit)}, footprint {size(self.footprint)}, of it active "
            f"{size(self.active)}, cache {size(self.cache)}, slack {size(self.slack)}{counted}. "
            f"{held}{_WAY_OUT.get(self.blocked_by, '')}"
        ).rstrip()

    __reduce__ = _reduced


class WiredLimitError(ValueError):
    """A wired limit above what the system allows.

    One that was made from a text says that text, and its numbers are 0.

    Attributes
    ----------
    requested : int
        The wired limit asked for, in bytes.
    maximum : int
        ``device_info()["max_recommended_working_set_size"]``, in bytes.

    See Also
    --------
    set_wired_limit : raises it.

    Examples
    --------
    >>> import memlimits
    >>> try:
    ...     memlimits.set_wired_limit(1 << 62)
    ... except memlimits.WiredLimitError as error:
    ...     error.maximum == memlimits.device_info()["max_recommended_working_set_size"]
    True
    """

    requested: int = 0
    maximum: int = 0
    _way_out: str = ""

    def __init__(self, requested: int | str = "", maximum: int = 0, way_out: str = "") -> None:
        if isinstance(requested, int):
            super().__init__(requested, maximum, way_out)
            self.requested = requested
        else:
            super().__init__(requested)
            self.requested = 0
        self.maximum = maximum
        self._way_out = way_out

    def __str__(self) -> str:
        numbers = isinstance(self.requested, int) and isinstance(self.maximum, int)
        if not numbers or not self.maximum:
            return super().__str__()
        from memlimits.sizes import format_exact

        wanted = "infinity" if self.requested >= NO_LIMIT else format_exact(self.requested)
        return (
            f"a wired limit of {wanted} is above the system's {format_exact(self.maximum)} "
            f"(max_recommended_working_set_size). {self._way_out}"
        )

    __reduce__ = _reduced


class DeviceError(RuntimeError):
    """The device could not be opened, cannot do what was asked, or did not survive a fork.

    See Also
    --------
    device_info : what it says of itself.

    Examples
    --------
    Without Metal there is no command queue:

    >>> import memlimits.metal
    >>> try:
    ...     memlimits.metal.attach(0x1000)
    ... except memlimits.DeviceError as error:
    ...     print("no Metal" in str(error))
    True
    """

    __reduce__ = _reduced


def is_refusal(exception: BaseException) -> bool:
    """Tell whether a refusal of memlimits was behind an exception, of whatever type and library.

    Parameters
    ----------
    exception : BaseException
        One that was raised, in this process or another.

    Returns
    -------
    bool
        True for a `MemoryLimitError`, for what NumPy, Python or a library raised because memlimits
        refused it memory, for what was raised from such an error (``raise ... from``, or instead of
        it, if it says that memory ran out), and for a group with one in it. False for errors of the
        same types with other causes.

    Raises
    ------
    TypeError
        It is no exception.

    See Also
    --------
    last_refusal : the numbers.
    govern_numpy, govern_python : what has errors of their own raised.

    Notes
    -----
    What C code raises is told by the place in Python's code where that was refused memory; of a
    thread of a library's own, by what it says within a minute. What Python's own code raises is
    told only as that of the error that it came from. The refusals of the last 256 places and sizes
    are kept, and each serves one exception, which has it as a note (``__notes__``) from then on.
    One that was pickled or copied, or whose traceback was taken off, has its note if somebody
    looked at that before, as process pools do.

    A program that catches an error and does not look at it leaves its refusal to the next of the
    same instruction: a MemoryError with another cause may be taken for one then, unless it is
    NumPy's, which has its size. Nothing of the exception's own class is called.

    Examples
    --------
    >>> import memlimits
    >>> from memlimits.errors import is_refusal
    >>> with memlimits.limits(memory=8 << 20, policy="strict"), memlimits.govern_python():
    ...     try:
    ...         text = "x" * (16 << 20)
    ...     except MemoryError as error:
    ...         print(is_refusal(error), is_refusal(MemoryError()))
    True False
    """
    # Nothing is taken from it by name: that takes memory, of which there may be none.
    import memlimits

    found: bool = memlimits._modules.for_notes().is_refusal(exception)
    return found
