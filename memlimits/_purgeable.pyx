from libc.stdint cimport UINT64_MAX
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from memlimits._cache cimport cache_age, cache_note_idle, cache_put_back
from memlimits._core cimport core_detach, core_return, core_settle
from memlimits._device cimport buffer_set_purgeable
from memlimits._limits cimport limits_confirm, limits_excess, limits_set_aside
from memlimits._mlim cimport MLIM_OK
from memlimits._resource cimport Resource
from memlimits._sync cimport pthread_mutex_lock, pthread_mutex_unlock


cdef uint64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef Resource *set_aside(Core *core, uint64_t enough, uint64_t *aged) noexcept nogil:
    """Under the lock: what is due, out of the cache for the device call."""
    cdef uint64_t now = clock()
    cdef Resource *due
    cache_note_idle(&core.cache, now)
    if now < core.idle_timeout:
        return NULL
    due = cache_age(&core.cache, now - core.idle_timeout, enough, aged)
    limits_set_aside(&core.limits, aged[0])
    return due


cdef void put_back(Core *core, Resource *due) noexcept nogil:
    """Under the lock. One that the system did not take stays as it was."""
    cdef Resource *next
    while due != NULL:
        next = due.next
        cache_put_back(&core.cache, &core.limits, due)
        due = next


cdef void purgeable_step(Core *core, uint64_t enough) noexcept nogil:
    cdef Resource *due
    cdef Resource *resource
    cdef uint64_t clears, aged = 0
    pthread_mutex_lock(&core.lock)
    clears = core.clears
    due = NULL if core.idle_timeout == UINT64_MAX else set_aside(core, enough, &aged)
    pthread_mutex_unlock(&core.lock)
    if due == NULL:
        return
    resource = due
    while resource != NULL:
        resource.purgeable = buffer_set_purgeable(resource.buffer, True) == MLIM_OK
        resource = resource.next
    pthread_mutex_lock(&core.lock)
    limits_confirm(&core.limits, aged, False)
    put_back(core, due)
    # The cache may have been cleared meanwhile, or a limit lowered.
    due = core_detach(
        core, limits_excess(&core.limits) if core.clears == clears else UINT64_MAX)
    core_settle(core)
    pthread_mutex_unlock(&core.lock)
    core_return(core, due)


cdef uint64_t purgeable_set_timeout(Core *core, uint64_t timeout) noexcept nogil:
    cdef uint64_t previous
    pthread_mutex_lock(&core.lock)
    previous = core.idle_timeout
    core.idle_timeout = timeout
    pthread_mutex_unlock(&core.lock)
    purgeable_step(core, UINT64_MAX)
    return previous
