"""The exceptions of memlimits."""

_WHY = {
    "limit": "the memory limit does not allow it",
    "system": "the system has not that much memory left (RAM, swap, or a control group's room)",
    "device": "the system refused to map the memory",
    "length": "it is longer than one buffer can be (device_info()['max_buffer_length'])",
    "resources": "the system allows no further resource (device_info()['resource_limit'])",
    "fork": "Metal does not work in a forked child process",
    "budget": "its budget does not allow it",
    "reservation": "the room within the memory limit is reserved for others",
}

_WAY_OUT = {
    "limit": "Free something, or raise it with set_memory_limit().",
    "system": "Free something, here or in another process.",
    "device": "Free something, or raise the process's limits (ulimit -v).",
    "length": "Split it into smaller buffers.",
    "resources": "Free some buffers, use fewer and larger ones, or raise the system's limit.",
    "budget": "Free something that was allocated in it, or open it with a higher limit.",
    "reservation": "Free something, raise the limit with set_memory_limit(), or reserve less.",
    "fork": "Start processes with the 'spawn' method, multiprocessing.set_start_method('spawn').",
}


class MemoryLimitError(MemoryError):
    """An allocation was refused, and nothing has changed.

    Attributes
    ----------
    requested : int
        Bytes asked for.
    limit : int
        The memory limit at that moment, in bytes.
    footprint : int
        Bytes held from the device or being asked of it.
    active : int
        Bytes of blocks in callers' hands, counted at their capacity.
    cache : int
        Idle bytes that `clear_cache` could have returned.
    slack : int
        Idle bytes inside slabs that still hold a live block.
    blocked_by : str
        What refused: ``"limit"``, ``"system"``, ``"device"``, ``"length"``, ``"resources"``,
        ``"budget"`` or ``"reservation"``; or ``"fork"``, which only `last_refusal` tells:
        `allocate` raises `DeviceError` then.
    waited : float
        Seconds that the request waited for others to free memory, under the policy ``"wait"``.
    budget : str or None
        The name of the budget that refused.
    budget_limit, budget_active : int
        Its limit and what was charged to it, in bytes; 0 where none refused.
    """

    requested: int
    limit: int
    footprint: int
    active: int
    cache: int
    slack: int
    blocked_by: str
    waited: float
    budget: str | None
    budget_limit: int
    budget_active: int

    def __init__(
        self,
        requested: int,
        limit: int,
        footprint: int,
        active: int,
        cache: int,
        slack: int,
        blocked_by: str,
        waited: float = 0.0,
        budget: str | None = None,
        budget_limit: int = 0,
        budget_active: int = 0,
    ) -> None:
        super().__init__(
            requested,
            limit,
            footprint,
            active,
            cache,
            slack,
            blocked_by,
            waited,
            budget,
            budget_limit,
            budget_active,
        )
        self.requested = requested
        self.limit = limit
        self.footprint = footprint
        self.active = active
        self.cache = cache
        self.slack = slack
        self.blocked_by = blocked_by
        self.waited = waited
        self.budget = budget
        self.budget_limit = budget_limit
        self.budget_active = budget_active

    def __str__(self) -> str:
        waited = f", after waiting for {self.waited:.3g} s" if self.waited else ""
        why = _WHY[self.blocked_by]
        if self.budget is not None:
            why = (
                f"the budget {self.budget!r} does not allow it "
                f"(limit {self.budget_limit}, active {self.budget_active})"
            )
        return (
            f"cannot allocate {self.requested} bytes: {why}{waited}. "
            f"Limit {self.limit}, footprint {self.footprint} "
            f"(active {self.active}, cache {self.cache}, slack {self.slack}). "
            f"{_WAY_OUT[self.blocked_by]}"
        )


class WiredLimitError(ValueError):
    """A wired limit above what the system allows.

    Attributes
    ----------
    requested : int
        The wired limit asked for, in bytes.
    maximum : int
        ``device_info()["max_recommended_working_set_size"]``, in bytes.
    """

    requested: int
    maximum: int

    def __init__(self, requested: int, maximum: int, way_out: str) -> None:
        super().__init__(requested, maximum, way_out)
        self.requested = requested
        self.maximum = maximum
        self._way_out = way_out

    def __str__(self) -> str:
        return (
            f"a wired limit of {self.requested} bytes is above the system's {self.maximum} "
            f"(max_recommended_working_set_size). {self._way_out}"
        )


class DeviceError(RuntimeError):
    """The device could not be opened, cannot do what was asked, or did not survive a fork."""
