"""Trims, memory pressure, and what bounds the bytes that can still be had."""

from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free

from memlimits._base.arithmetic cimport saturating_sub
from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._bindings.allocator cimport Allocator
from memlimits._bindings.arguments cimport as_nbytes, as_real, shown
from memlimits._bindings.contexts cimport account_here, rooms_here
from memlimits._device.mlim cimport MLIM_CGROUP, MLIM_OK, MLIM_RLIMIT, mlim_bound
from memlimits._device.readings cimport device_stall
from memlimits._engine.books cimport books_checked
from memlimits._engine.controls cimport (
    controls_read_process, controls_read_sizes, controls_settings,
)
from memlimits._engine.core cimport Core, core_resume, core_stop
from memlimits._engine.pressure cimport pressure_set, pressure_trim
from memlimits._engine.system_room cimport room_lower_unfaulted
from memlimits._ledger.accounts cimport Account, account_reserved_for
from memlimits._ledger.limits cimport (
    COUNT_PROCESS, Limits, limits_kept_back, limits_least_available, limits_library,
    limits_process_room, limits_room, limits_unreserved,
)
from memlimits._ledger.pool cimport PoolSums, pool_bytes, pool_limit, pool_sums
from memlimits._ledger.share cimport share_limit

from memlimits.errors import DeviceError

# What a program takes beside its blocks between a look and the next allocation; and of address
# space moreover a node of the page map.
cdef enum:
    LOOSE = 1 << 20
    MAPPED = 3 << 20


def trim(Allocator allocator not None, target):
    """Return idle memory; None for what decay and pressure ask for and no more."""
    cdef uint64_t n = UINT64_MAX if target is None else as_nbytes(target, "target")
    with nogil:
        n = pressure_trim(&allocator.core, n)
    return n


cdef double as_percent(object value) except -1:
    """An argument in percent, None for never."""
    cdef double percent
    if value is None:
        return INFINITY
    percent = as_real(value, "stall", "in percent, or None for never")
    if not 0 < percent <= 100:
        raise ValueError(
            f"stall must be above 0 and at most 100 percent, or None for never, "
            f"not {shown(value)}")
    return percent


def interval(value):
    """A checked argument, in seconds."""
    cdef double seconds = as_real(value, "interval", "in seconds")
    if not 0.001 <= seconds <= 1e6:
        raise ValueError(f"interval must be from 0.001 to 1e6 seconds, not {shown(value)}")
    return seconds


def set_pressure_trim(Allocator allocator not None, available, stall):
    """Set the thresholds; return the previous ones."""
    cdef uint64_t least = 0 if available is None else as_nbytes(available, "available")
    cdef double most = as_percent(stall)
    return thresholds(pressure_set(&allocator.core, least, most))


def get_pressure_trim(Allocator allocator not None):
    return thresholds(controls_settings(&allocator.core))


cdef tuple thresholds(Limits limits):
    return (limits_least_available(&limits) or None,
            None if limits.most_stall == INFINITY else limits.most_stall)


def stall(Allocator allocator not None):
    """How long programs wait for memory, in percent of the time; None where nobody tells."""
    cdef double percent = 0
    return percent if device_stall(allocator.device.handle, &percent) == MLIM_OK else None


def checks():
    """How often the core was found sound in this process; None in a build that does not look."""
    count = books_checked()
    return None if count < 0 else count


cdef Limits exact_limits(Core *core, uint64_t *purgeable) noexcept nogil:
    """The counters after a look at what of our bytes is untouched."""
    cdef Limits limits
    core_stop(core)
    room_lower_unfaulted(core)
    limits = core.limits
    purgeable[0] = core.purgeable
    core_resume(core, False)
    return limits


cdef uint64_t room_in_pool(Core *core) noexcept nogil:
    """What this process may count in its pool, as far as others do not use it; UINT64_MAX: any."""
    cdef PoolSums sums
    cdef uint64_t room = UINT64_MAX
    pthread_mutex_lock(&core.heaps.lock)
    if core.pool.mine != NULL:
        pool_sums(&core.pool, &sums)
        room = core.limits.inherited + min(share_limit(&core.pool), saturating_sub(
            pool_limit(&core.pool), pool_bytes(&core.pool, sums.held - sums.loose)))
    pthread_mutex_unlock(&core.heaps.lock)
    return room


cdef uint64_t reserved_for(Core *core, const Account *account) noexcept nogil:
    """How many bytes are reserved for whoever allocates on the account."""
    cdef uint64_t own
    pthread_mutex_lock(&core.heaps.lock)
    own = account_reserved_for(account, core.limits.reserved)
    pthread_mutex_unlock(&core.heaps.lock)
    return own


def candidates(Allocator allocator not None):
    """Every bound of the bytes that can still be had: what it is, its name, and the bytes.

    As growth is judged: idle memory can be had, and what is untouched of ours is spoken for.
    """
    cdef Limits limits
    cdef size_t count = 0, i
    cdef uint64_t purgeable = 0, n, own, shared, kept
    cdef Account *account
    cdef mlim_bound *bounds
    allocator.device.require()
    allocator.report_unread()
    with nogil:
        controls_read_sizes(&allocator.core)
        controls_read_process(&allocator.core)
        limits = exact_limits(&allocator.core, &purgeable)
        shared = room_in_pool(&allocator.core)
    # What it drew by now is no bound: it can draw more.
    limits.share = UINT64_MAX
    used = limits.footprint - limits.cache
    account = account_here(&allocator.core)
    with nogil:
        own = reserved_for(&allocator.core, account)
    # What is idle may be what is untouched.
    taken = min(used, saturating_sub(limits.footprint, limits.untouched))
    kept = limits_library(&limits) + limits_kept_back(&limits, UINT64_MAX)
    n = saturating_sub(saturating_sub(limits.memory_limit, kept), taken)
    if limits.count == COUNT_PROCESS:
        n = min(n, saturating_sub(
            limits_process_room(&limits, UINT64_MAX, limits.process) + own + limits.cache, LOOSE))
    found = [("limit", "memory limit", n)]
    if shared != UINT64_MAX:
        n = saturating_sub(shared, kept)
        found.append(("pool", "all processes together", saturating_sub(n, taken)))
    if limits.reserved > own:
        found.append((
            "reservation", "reserved for others",
            saturating_sub(limits_unreserved(&limits, UINT64_MAX, own), used)))
    found += rooms_here(&allocator.core)
    try:
        bounds = allocator.device.bounds(&count)
    except DeviceError:
        # Not now. What could be read last is taken to be as it was.
        n = limits_room(&limits, UINT64_MAX, limits.assured) + own
        n += saturating_sub(limits.cache, purgeable)
        found.append(("system", "RAM and swap", saturating_sub(n, LOOSE)))
        return found
    try:
        for i in range(count):
            name = (<const char *> bounds[i].name).decode("utf-8", "surrogateescape")
            if bounds[i].kind == MLIM_RLIMIT:
                n = saturating_sub(bounds[i].room + limits.cache, MAPPED)
                found.append(("rlimit", name, n))
                continue
            # What is purgeable counts as available already.
            n = limits_room(&limits, UINT64_MAX, bounds[i].room) + own
            n += saturating_sub(limits.cache, purgeable)
            found.append((
                "cgroup" if bounds[i].kind == MLIM_CGROUP else "system", name,
                saturating_sub(n, LOOSE)))
    finally:
        free(bounds)
    return found
