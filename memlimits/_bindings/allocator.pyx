cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport UINT64_MAX, uint64_t
from posix.unistd cimport getpid

from memlimits._base.own cimport own_objects_begin, own_objects_end
from memlimits._base.python cimport ObjectLock, lock_object, unlock_object
from memlimits._base.sync cimport load_acquire, load_count, store_release
from memlimits._bindings.arguments cimport as_limit, as_nanoseconds, seconds_or_none, shown
from memlimits._device.mlim cimport mlim_device_unread, mlim_error, mlim_process
from memlimits._engine.controls cimport (
    Snapshot, controls_active, controls_cache_limit, controls_cached, controls_clear_cache,
    controls_latest_refusal, controls_read, controls_read_process, controls_read_sizes,
    controls_reset_peak, controls_set_policy, controls_settings, controls_snapshot,
)
from memlimits._engine.core cimport core_close, core_open, core_resume, core_stop
from memlimits._engine.decay cimport decay_set_timeout, decay_settings
from memlimits._engine.fork cimport fork_follow
from memlimits._engine.record cimport record_close
from memlimits._engine.refusals cimport refusals_last
from memlimits._engine.settings cimport (
    CACHE, COUNT, MEMORY, POLICY, WIRED, settings_close, settings_init, settings_set,
)
from memlimits._engine.system_room cimport room_lower_unfaulted
from memlimits._heap.heap cimport heaps_peak
from memlimits._ledger.limits cimport (
    BLOCKERS, BUDGET, COUNT_PROCESS, COUNT_RESIDENT, DEFAULT_TIMEOUT, LONGEST_AFTER_REFUSAL,
    NOTHING, POLICY_GUIDELINE, POLICY_WAIT, Limits, Policy, limits_cache_limit, limits_kept_back,
    limits_slack,
)
from memlimits._ledger.queue cimport Refusal
from memlimits._residency.plan cimport residency_why_not
from memlimits._residency.sets cimport MOST_SETS

import sys

from memlimits.errors import WHY, MemoryLimitError, WiredLimitError

cdef enum:
    LEAST_SET_CAP = 64 << 20


cdef extern from "Python.h":
    int warn_or_raise "PyErr_WarnEx"(
        object category, const char *message, Py_ssize_t level) except -1
    int warn_or_keep "PyErr_WarnEx"(object category, const char *message, Py_ssize_t level)
    void PyErr_WriteUnraisable(object context)

cdef const char *WIRE_FAILURE = (
    b"memory within the wired limit could not be kept resident: the system refused to lock it. "
    b"It stays usable, and may be swapped out.")

cdef Layer no_limits     # gives none

POLICIES = ("guideline", "strict", "wait")      # by Policy
COUNTS = ("given", "resident", "process")       # by Count
IDLE_ACTIONS = ("purge", "return")
BLOCKED_BY = (None, *WHY)                       # by Blocker


cdef HoldersInWords holders_in_words = NULL


cdef void put_holders_by(HoldersInWords words) noexcept:
    global holders_in_words
    holders_in_words = words


cdef str own = __file__.rpartition("/")[0] + "/"


cdef Py_ssize_t callers_level() noexcept:
    cdef Py_ssize_t level = 1
    try:
        frame = sys._getframe()
        while frame is not None:
            if not frame.f_code.co_filename.startswith(own):
                return level
            frame = frame.f_back
            level += 1
    except Exception:
        pass    # a thread without Python's code, or no memory
    return 1


cdef object refusal_error(const CallTree *calls, Refusal refusal):
    """A MemoryLimitError, not raised; None for no refusal."""
    if refusal.blocked_by == NOTHING:
        return None
    holders = holders_in_words(calls, refusal.holders) if refusal.holders[0].call else ()
    return MemoryLimitError(
        refusal.requested, refusal.limit, refusal.footprint, refusal.active, refusal.cache,
        refusal.slack, BLOCKED_BY[<int> refusal.blocked_by], refusal.waited / 1e9,
        refusal.budget.decode() if refusal.blocked_by == BUDGET else None,
        refusal.budget_limit, refusal.budget_active, COUNTS[<int> refusal.count],
        refusal.process if refusal.count == COUNT_PROCESS else 0, refusal.untouched,
        refusal.kept_back, refusal.others, holders, refusal.library)


# Sizes in bytes, the others counts, in the order in which they are shown. Whoever adds one adds it
# here, and to `Stats` in figures.py. At first those that the tests' bookkeeping follows.

cdef dict counters(const Snapshot *snapshot):
    cdef const Limits *limits = &snapshot.limits
    cdef uint64_t refusals = 0
    cdef int blocker
    for blocker in range(<int> BLOCKERS):
        refusals += limits.refusals[blocker]
    return {
        "footprint": limits.footprint,
        "pending": limits.pending,
        "active": limits.active,
        "cache": limits.cache,
        "slack": limits_slack(limits),
        "peak": limits.peak,
        "wired": limits.wired,
        "registered": limits.registered,
        "wired_requested": limits.wired_requested,
        "unwired_requested": limits.unwired_requested,
        "unwired_by_limit": limits.unwired_by_limit,
        "unwired_by_capacity": limits.unwired_by_capacity,
        "resources": limits.resources,
        "hits": limits.hits,
        "misses": limits.misses,
        "overruns": limits.overruns,
        "refusals": refusals,
        "wire_failures": limits.wire_failures,
        "registration_failures": limits.registration_failures,
        "reserved": limits.reserved + limits_kept_back(limits, LONGEST_AFTER_REFUSAL),
        "mlx_active": limits.library_active,
        "mlx_cache": limits.library_cache,
        "mlx_peak": limits.library_peak,
        "mlx_tickets": limits.admitted,
        "waiting": limits.waiting,
        "waits": limits.waits,
        "waited_ns": limits.waited,
        "trims": limits.trims,
        "trimmed": limits.trimmed,
        "pressure_trims": limits.pressure_trims,
        "pressure_trimmed": limits.pressure_trimmed,
        "decays": limits.decays,
        "decayed": limits.decayed,
    }


cdef dict statistics(const Snapshot *snapshot):
    cdef const Limits *limits = &snapshot.limits
    cdef int blocker
    cdef dict all = counters(snapshot)
    for blocker in range(NOTHING + 1, <int> BLOCKERS):
        all[f"refusals_by_{BLOCKED_BY[blocker]}"] = limits.refusals[blocker]
    all["purgeable"] = snapshot.purgeable
    all["largest_idle"] = snapshot.survey.largest_idle
    all["slabs"] = snapshot.survey.slabs
    all["heaps"] = snapshot.heaps
    all["steals"] = limits.steals
    all["evictions"] = limits.evictions
    all["evicted"] = limits.evicted
    all["wires"] = limits.wires
    all["registrations"] = limits.registrations
    all["commits"] = limits.commits
    all["waited_seconds"] = all.pop("waited_ns") / 1e9
    return all


cdef dict with_settings(const Snapshot *snapshot, const mlim_process *process):
    return {
        "memory_limit": snapshot.limits.memory_limit,
        "cache_limit": limits_cache_limit(&snapshot.limits),
        "wired_limit": snapshot.limits.wired_limit,
        "policy": policy_named(snapshot.limits.policy, snapshot.limits.wait_timeout),
        "memory_count": COUNTS[<int> snapshot.limits.count],
        "idle_timeout": seconds_or_none(snapshot.idle_timeout),
        **statistics(snapshot),
        "process_resident": process.resident,
        "process_files": process.files,
        "process_swap": process.swap,
        "process_peak_resident": process.peak_resident,
    }


class Wait(str):
    """The policy "wait", with its ``timeout`` in seconds."""


cdef object to_int(uint64_t value):
    """What was in force before. The call must not fail once that has changed."""
    own_objects_begin()
    try:
        return value
    finally:
        own_objects_end()


cdef object policy_named(Policy policy, uint64_t timeout):
    name = POLICIES[<int> policy]
    if policy == POLICY_WAIT:
        name = Wait(name)
        name.timeout = timeout / 1e9
    return name


cdef int raise_refusal(Allocator allocator) except -1:
    allocator.device.require()
    raise refusal_error(&allocator.core.calls, refusals_last())


@cython.final
@cython.no_gc   # a Device refers to nothing
cdef class Allocator:
    """Memory from one device within one set of limits.

    Parameters
    ----------
    device : Device, optional
        Where the memory comes from; by default the machine's own.
    residency_set_cap : int, optional
        Bytes that one residency set takes; 0 for an equal share of the recommended working set,
        but at least 64 MiB.
    """

    def __cinit__(self, Device device=None, *, uint64_t residency_set_cap=0):
        device = Device() if device is None else device
        if residency_set_cap == 0:
            residency_set_cap = device.facts.sizes.max_recommended_working_set_size // MOST_SETS + 1
            residency_set_cap = max(residency_set_cap, <uint64_t> LEAST_SET_CAP)
        if core_open(&self.core, device.handle, device.facts, residency_set_cap) != 0:
            raise MemoryError
        settings_init(&self.settings, &self.core)
        self.device = device
        if self.is_metal():
            self.core.limits.trim_limit = <uint64_t> (
                0.95 * <double> device.facts.sizes.max_recommended_working_set_size)
        self.reported_failures = self.lacks_residency()

    def __dealloc__(self):
        if self.device is not None:
            settings_close(&self.settings)
            core_close(&self.core)

    def set_memory_limit(self, limit):
        cdef Layer layer = no_limits
        self.give_memory(&layer, limit, "limit")
        with nogil:
            layer = settings_set(&self.settings, &layer)
        return to_int(layer.memory)

    def get_memory_limit(self):
        return controls_read(&self.core, &self.core.limits.memory_limit)

    def set_cache_limit(self, limit):
        cdef Layer layer = no_limits
        self.give_cache(&layer, limit, "limit")
        with nogil:
            layer = settings_set(&self.settings, &layer)
        return to_int(layer.memory if layer.cache_follows else layer.cache)

    def get_cache_limit(self):
        return controls_cache_limit(&self.core)

    def set_wired_limit(self, limit):
        cdef Layer layer = no_limits
        self.give_wired(&layer, limit, "limit")
        self.may_wire(layer.wired)
        with nogil:
            layer = settings_set(&self.settings, &layer)
        self.report_wire_failures()
        return to_int(layer.wired)

    def get_wired_limit(self):
        return controls_read(&self.core, &self.core.limits.wired_limit)

    def set_idle_timeout(self, seconds, action="purge"):
        cdef uint64_t timeout = UINT64_MAX if seconds is None else as_nanoseconds(
            seconds, "seconds", "never")
        cdef bint returns
        if not isinstance(action, str) or action not in IDLE_ACTIONS:
            error = ValueError if isinstance(action, str) else TypeError
            raise error(f"action must be 'purge' or 'return', not {shown(action)}")
        returns = action == "return"
        with nogil:
            timeout = decay_set_timeout(&self.core, timeout, returns)
        return seconds_or_none(timeout)

    def get_idle_timeout(self):
        return seconds_or_none(decay_settings(&self.core).timeout)

    def get_idle_action(self):
        return IDLE_ACTIONS[decay_settings(&self.core).returns]

    def set_memory_policy(self, policy, timeout=None):
        cdef Layer layer = no_limits
        own_objects_begin()
        try:
            self.give_policy(&layer, policy, timeout)
            with nogil:
                layer = settings_set(&self.settings, &layer)
            return policy_named(layer.policy, layer.timeout)
        finally:
            own_objects_end()

    def get_memory_policy(self):
        cdef Limits limits = controls_settings(&self.core)
        return policy_named(limits.policy, limits.wait_timeout)

    def set_memory_count(self, count):
        cdef Layer layer = no_limits
        own_objects_begin()
        try:
            self.give_count(&layer, count)
            with nogil:
                layer = settings_set(&self.settings, &layer)
            return COUNTS[<int> layer.count]
        finally:
            own_objects_end()

    def get_memory_count(self):
        return COUNTS[<int> controls_settings(&self.core).count]

    def get_active_memory(self):
        return controls_active(&self.core)

    def get_cache_memory(self):
        return controls_cached(&self.core)

    def get_peak_memory(self):
        return heaps_peak(&self.core.heaps)

    def get_wired_memory(self):
        return controls_read(&self.core, &self.core.limits.wired)

    def reset_peak_memory(self):
        controls_reset_peak(&self.core)

    def clear_cache(self):
        with nogil:
            controls_clear_cache(&self.core)

    def device_info(self):
        with nogil:
            controls_read_sizes(&self.core)
        self.report_unread()
        own_objects_begin()
        try:
            return self.device.info()
        finally:
            own_objects_end()

    def latest_refusal(self):
        """The last refusal of any thread as a MemoryLimitError, not raised, or None."""
        own_objects_begin()
        try:
            return refusal_error(&self.core.calls, controls_latest_refusal(&self.core))
        finally:
            own_objects_end()

    def counters(self):
        """One consistent snapshot of every counter: sizes in bytes, the others counts."""
        cdef Snapshot snapshot
        controls_snapshot(&self.core, False, &snapshot)
        return counters(&snapshot)

    def statistics(self, reset_peak, made_of=dict):
        """What `made_of` makes of them, the limits, the policy and what the process holds.

        The peak is reset in the same step, or not.
        """
        cdef Snapshot snapshot
        cdef mlim_process process
        with nogil:
            process = controls_read_process(&self.core)
        controls_snapshot(&self.core, reset_peak, &snapshot)
        own_objects_begin()
        try:
            return made_of(with_settings(&snapshot, &process))
        finally:
            own_objects_end()

    def closing_statistics(self, int pid):
        """The same at the end of a program, which nothing is refused after; and ``untouched``.

        None, and no more, in a process that is not `pid`. Nothing is allocated before the policy
        is the guideline: the limit may be passed already. The policy told is the one before.
        """
        cdef Snapshot snapshot
        cdef mlim_process process
        cdef Limits before
        if getpid() != pid:
            return None
        with nogil:
            process = controls_read_process(&self.core)
            before = controls_settings(&self.core)
            if before.count == COUNT_RESIDENT:
                core_stop(&self.core)
                room_lower_unfaulted(&self.core)
                core_resume(&self.core, False)
            controls_snapshot(&self.core, False, &snapshot)
            record_close()
            controls_set_policy(&self.core, POLICY_GUIDELINE, 0)
        snapshot.limits.overruns = before.overruns      # a look of our own is none
        return {**with_settings(&snapshot, &process), "untouched": snapshot.limits.untouched}

    cdef int give_memory(self, Layer *layer, limit, str name) except -1:
        layer.memory = as_limit(limit, name)
        layer.given |= MEMORY
        return 0

    cdef int give_cache(self, Layer *layer, limit, str name) except -1:
        layer.cache_follows = limit is None
        layer.cache = 0 if limit is None else as_limit(limit, name)
        layer.given |= CACHE
        return 0

    cdef int give_wired(self, Layer *layer, limit, str name) except -1:
        cdef uint64_t maximum = self.device.sizes().max_recommended_working_set_size
        layer.wired = as_limit(limit, name)
        if layer.wired > maximum:
            raise WiredLimitError(layer.wired, maximum, self.way_to_wire_more())
        layer.given |= WIRED
        return 0

    cdef int give_policy(self, Layer *layer, policy, timeout) except -1:
        if not isinstance(policy, str) or policy not in POLICIES:
            error = ValueError if isinstance(policy, str) else TypeError
            raise error(f"policy must be 'guideline', 'strict' or 'wait', not {shown(policy)}")
        layer.policy = POLICIES.index(policy)
        if layer.policy == POLICY_WAIT:
            timeout = getattr(policy, "timeout", DEFAULT_TIMEOUT) if timeout is None else timeout
            layer.timeout = as_nanoseconds(timeout, "timeout", f"{DEFAULT_TIMEOUT} s")
        elif timeout is not None:
            raise ValueError(f"only the policy 'wait' takes a timeout, not {shown(policy)}")
        layer.given |= POLICY
        return 0

    cdef int give_count(self, Layer *layer, count) except -1:
        if not isinstance(count, str) or count not in COUNTS:
            error = ValueError if isinstance(count, str) else TypeError
            raise error(f"count must be one of {', '.join(map(repr, COUNTS))}, not {shown(count)}")
        layer.count = COUNTS.index(count)
        layer.given |= COUNT
        return 0

    cdef int may_wire(self, uint64_t limit) except -1:
        cdef uint64_t capacity = self.device.facts.wired_capacity
        if limit:
            self.device.require()
        if load_count(&self.core.residency.registers):
            return 0    # the driver asks no limit on what is locked
        if limit > capacity and not self.lacks_residency():
            from memlimits.sizes import format_exact
            warn_or_raise(RuntimeWarning, (
                f"a wired limit of {format_exact(limit)} is above what this process may lock, "
                f"{format_exact(capacity)} (wired_capacity): the rest is not kept resident. Raise "
                "it with 'ulimit -l' before the program starts.").encode(), callers_level())
            self.reported_failures = True
        return 0

    cdef bint is_metal(self):
        return self.device.facts.backend == b"metal"

    cdef bint lacks_residency(self):
        """An older macOS or GPU: the limit is accepted and does nothing, as MLX documents."""
        return self.is_metal() and self.device.facts.wired_capacity == 0

    cdef str way_to_wire_more(self):
        if self.is_metal():
            return "Raise the system's with 'sudo sysctl iogpu.wired_limit_mb=...'."
        return "It is three quarters of the memory this process may use: set it no higher."

    cdef void report_unread(self) noexcept:
        cdef mlim_error error
        if mlim_device_unread(self.device.handle, &error):
            self.warn(b"cannot be read: %s. Memory is bounded by what else the system tells." % (
                <const char *> error.message))

    cdef void warn(self, bytes text) noexcept:
        # Where warnings are errors it cannot be raised: what it tells of fails no call.
        if warn_or_keep(RuntimeWarning, text, callers_level()) < 0:
            PyErr_WriteUnraisable(self)

    cdef void report_wire_failures(self) noexcept:
        cdef ObjectLock lock
        cdef bint reported
        if load_count(&self.core.residency.registers):
            self.report_registrations()
            return
        if self.reported_failures:
            return
        if controls_read(&self.core, &self.core.limits.wire_failures) == 0:
            return
        lock_object(&lock, <PyObject *> self)
        reported = self.reported_failures
        self.reported_failures = True
        unlock_object(&lock)
        if not reported:
            self.warn(WIRE_FAILURE)

    cdef void report_registrations(self) noexcept:
        cdef ObjectLock lock
        cdef mlim_error error
        cdef bint reported
        if self.reported_registrations or (
            controls_read(&self.core, &self.core.limits.registration_failures) == 0
        ):
            return
        lock_object(&lock, <PyObject *> self)
        reported = self.reported_registrations
        self.reported_registrations = True
        unlock_object(&lock)
        if reported:
            return
        with nogil:
            reported = not residency_why_not(&self.core.residency, &error)
        if reported:
            return
        self.warn(b"memory within the wired limit could not be registered with CUDA: %s. It stays "
                  b"usable, and copies to a GPU are slower (stats().registration_failures)." % (
                      <const char *> error.message if error.message[0]
                      else b"the system has not as much memory to give at once"))


def this_threads_refusal():
    """This thread's last refusal as a MemoryLimitError, not raised, or None."""
    own_objects_begin()
    try:
        return refusal_error(&get_default().core.calls, refusals_last())
    finally:
        own_objects_end()


def at_the_limit(call, what):
    """Call it, and have what is made of Python's objects be there where nothing more is given."""
    own_objects_begin()
    try:
        return call(what)
    finally:
        own_objects_end()


# Set once.
cdef Allocator the_default = None
cdef Core *default_core = NULL


cdef Allocator get_default():
    if load_acquire(<void **> &default_core) == NULL:
        allocator = Allocator()
        if set_default(allocator):
            allocator.report_unread()
    return the_default


cdef bint set_default(Allocator allocator) noexcept:
    """The first of those that threads make at once is the one; nothing was taken from others."""
    global the_default, default_core
    cdef ObjectLock lock
    cdef bint first
    lock_object(&lock, <PyObject *> POLICIES)
    first = default_core == NULL
    if first:
        the_default = allocator
        Py_INCREF(allocator)
        store_release(<void **> &default_core, &allocator.core)     # all else is to be seen then
        fork_follow(default_core, &allocator.settings)
    unlock_object(&lock)
    return first


def default_allocator():
    """The allocator behind the documented functions."""
    return get_default()


# ---- the documented getters, on it ----

def get_memory_limit():
    """Return the memory limit.

    Returns
    -------
    int
        Bytes; from 2**63 on there is none.

    See Also
    --------
    set_memory_limit : set it.
    effective_limit : how much can still be had.

    Notes
    -----
    After ``mlx.core.get_memory_limit``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_memory_limit() <= memlimits.device_info()["memory_size"]
    True
    """
    cdef Core *core = &get_default().core
    return controls_read(core, &core.limits.memory_limit)


def get_cache_limit():
    """Return the cache limit.

    Returns
    -------
    int
        Bytes; the memory limit, where it follows that.

    See Also
    --------
    set_cache_limit : set it.
    get_cache_memory : what is kept.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_cache_limit() == memlimits.get_memory_limit()
    True
    """
    return controls_cache_limit(&get_default().core)


def get_wired_limit():
    """Return the wired limit.

    Returns
    -------
    int
        Bytes.

    See Also
    --------
    set_wired_limit : set it.
    get_wired_memory : what is wired.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_wired_limit()
    0
    """
    cdef Core *core = &get_default().core
    return controls_read(core, &core.limits.wired_limit)


def get_active_memory():
    """Return how much is in callers' hands.

    Returns
    -------
    int
        Bytes, counted at the capacity of their blocks.

    See Also
    --------
    get_peak_memory : the most that it was.
    get_array_buffer_size : of some arrays.
    stats : every counter.

    Notes
    -----
    After ``mlx.core.get_active_memory``.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(1 << 20)
    >>> memlimits.get_active_memory()
    1048576
    """
    return controls_active(&get_default().core)


def get_cache_memory():
    """Return how much is kept for reuse.

    Returns
    -------
    int
        Idle bytes, which `clear_cache` would return.

    See Also
    --------
    clear_cache : return them.
    set_cache_limit : bound them.

    Notes
    -----
    After ``mlx.core.get_cache_memory``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.get_cache_memory()
    1048576
    """
    return controls_cached(&get_default().core)


def get_peak_memory():
    """Return the highest active memory, since the start or `reset_peak_memory`.

    Returns
    -------
    int
        Bytes.

    See Also
    --------
    reset_peak_memory : begin anew.
    get_active_memory : what it is now.

    Notes
    -----
    Where several threads allocate it may be up to 2 % above that, or 64 KiB for each but one of
    them, and is never below it.

    After ``mlx.core.get_peak_memory``.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.allocate(1 << 20).release()
    >>> memlimits.get_peak_memory()
    1048576
    """
    return heaps_peak(&get_default().core.heaps)


def get_wired_memory():
    """Return how much is kept resident now.

    Returns
    -------
    int
        Bytes.

    See Also
    --------
    set_wired_limit : bound it.
    stats : what could not be wired, and why.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.get_wired_memory()
    0
    """
    cdef Core *core = &get_default().core
    return controls_read(core, &core.limits.wired)
