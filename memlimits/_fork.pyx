from memlimits._controls cimport core_clear_cache
from memlimits._core cimport core_wait
from memlimits._device cimport device_usable
from memlimits._heaps cimport (
    heaps_after_fork, heaps_before_fork, heaps_lose, heaps_resume, heaps_stop,
)
from memlimits._mlim cimport MLIM_OK
from memlimits._residency cimport residency_forget
from memlimits._sync cimport pthread_cond_init, pthread_mutex_lock, pthread_mutex_unlock


cdef void core_before_fork(Core *core) noexcept nogil:
    heaps_before_fork()
    while True:
        pthread_mutex_lock(&core.residency.mutex)
        heaps_stop(&core.heaps)
        if core.limits.pending == 0:
            return
        # A pending return may need the mutex to be done.
        pthread_mutex_unlock(&core.residency.mutex)
        core_wait(core)
        heaps_resume(&core.heaps)


cdef void core_after_fork(Core *core, bint child) noexcept nogil:
    heaps_after_fork(&core.heaps, child)
    if not child:
        pthread_mutex_unlock(&core.residency.mutex)
        return
    # The threads that waited are gone, and so is their claim on these.
    pthread_cond_init(&core.settled, NULL)
    core.waiters = 0
    core.queue = NULL
    core.limits.waiting = 0
    residency_forget(&core.residency)
    if device_usable(core.device) != MLIM_OK:
        heaps_lose(&core.heaps)
        core_clear_cache(core)
