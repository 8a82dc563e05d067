from libc.stdint cimport UINT64_MAX, int64_t

from memlimits._base.sync cimport (
    CLOCK_COARSE, pthread_mutex_lock, pthread_mutex_unlock, store_count, time_of,
)
from memlimits._device.mlim cimport MLIM_OK, mlim_buffer_set_purgeable
from memlimits._engine.core cimport (
    core_detach, core_note, core_resume, core_return, core_set_aside, core_settle, core_stop,
)
from memlimits._heap.cache cimport cache_put_back
from memlimits._heap.heaps cimport heaps_next_idle, heaps_rewind, heaps_set_timed
from memlimits._heap.resource cimport OUTSIDE, Resource
from memlimits._ledger.limits cimport (
    Limits, limits_confirm, limits_excess, limits_reserve, limits_set_aside,
)


cdef Resource *set_aside(
    Core *core, uint64_t enough, bint returns, uint64_t *aged
) noexcept nogil:
    """While stopped: what is due, out of the cache for the device call, the newest first."""
    cdef uint64_t now = time_of(CLOCK_COARSE)
    cdef Resource *due = NULL
    cdef Resource *resource
    heaps_rewind(&core.heaps)
    while now >= core.idle_timeout and aged[0] < enough:
        resource = heaps_next_idle(&core.heaps)
        if resource == NULL or resource.idle_since > now - core.idle_timeout:
            break
        if returns or not resource.purgeable and resource.wiring == OUTSIDE:
            core_set_aside(core, resource, &due)
            aged[0] += resource.bytes
    return due


cdef void count(Limits *limits, const Resource *due, bint returns) noexcept nogil:
    """While stopped: what goes back, or what the system took; not what it refused."""
    while due != NULL:
        if returns or due.purgeable:
            limits.decays += 1
            limits.decayed += due.bytes
        due = due.next


cdef void put_back(Core *core, Resource *due) noexcept nogil:
    """While stopped. One that the system did not take stays as it was."""
    cdef Resource *next
    while due != NULL:
        next = due.next
        cache_put_back(&core.heaps.shared.cache, due)
        due = next


cdef Decay decay_settings(Core *core) noexcept nogil:
    cdef Decay decay
    pthread_mutex_lock(&core.heaps.lock)
    decay = Decay(core.idle_timeout, core.idle_returns)
    pthread_mutex_unlock(&core.heaps.lock)
    return decay


cdef uint64_t decay_step(Core *core, uint64_t enough) noexcept nogil:
    cdef Resource *due
    cdef Resource *resource
    cdef uint64_t clears, aged = 0
    cdef bint returns
    if not decay_is_on(core):
        return 0
    core_stop(core)
    clears = core.clears
    returns = core.idle_returns
    due = set_aside(core, enough, returns, &aged)
    if returns:
        count(&core.limits, due, True)
        limits_reserve(&core.limits, 0, aged)
    else:
        limits_set_aside(&core.limits, aged)
    core_resume(core, False)
    if returns:
        core_return(core, due)
        return aged
    if due == NULL:
        return 0
    resource = due
    while resource != NULL:
        resource.purgeable = mlim_buffer_set_purgeable(resource.buffer, True, NULL) == MLIM_OK
        resource = resource.next
    core_stop(core)
    count(&core.limits, due, False)
    limits_confirm(&core.limits, aged, False)
    put_back(core, due)
    # The cache may have been cleared meanwhile, or a limit lowered.
    core_note(core)
    due = core_detach(
        core, limits_excess(&core.limits) if core.clears == clears else UINT64_MAX)
    core_settle(core)
    core_resume(core, False)
    core_return(core, due)
    return 0


cdef uint64_t decay_set_timeout(Core *core, uint64_t timeout, bint returns) noexcept nogil:
    cdef uint64_t previous
    core_stop(core)
    previous = core.idle_timeout
    store_count(<int64_t *> &core.idle_timeout, <int64_t> timeout)
    core.idle_returns = returns
    heaps_set_timed(&core.heaps, timeout != UINT64_MAX)
    core_resume(core, False)
    decay_step(core, UINT64_MAX)
    return previous
