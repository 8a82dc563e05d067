from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport pthread_cond_init, pthread_mutex_lock, pthread_mutex_unlock
from memlimits._device.mlim cimport MLIM_OK, mlim_device_usable
from memlimits._device.readings cimport device_after_fork, device_before_fork
from memlimits._engine.controls cimport controls_clear_cache
from memlimits._engine.core cimport core_wait
from memlimits._heap.heap cimport heap_self
from memlimits._heap.heaps cimport (
    heaps_after_fork, heaps_before_fork, heaps_lose, heaps_resume, heaps_stop,
)
from memlimits._ledger.queue cimport Waiter
from memlimits._residency.plan cimport residency_forget


cdef void fork_prepare(Core *core) noexcept nogil:
    # Handlers of others run between this and fork_resume, too.
    own_begin()
    heaps_before_fork()
    while True:
        pthread_mutex_lock(&core.residency.mutex)
        heaps_stop(&core.heaps)
        if core.limits.pending == 0 and core.claims == 0:
            break
        # A pending return may need the mutex to be done.
        pthread_mutex_unlock(&core.residency.mutex)
        core_wait(core)
        heaps_resume(&core.heaps)
    # Who reads now needs nothing that is held here.
    device_before_fork()


cdef void keep_own_waiters(Core *core) noexcept nogil:
    """Those of the thread that forked, in a signal's handler while it waits; others are gone."""
    cdef Waiter **link = &core.queue
    core.limits.waiting = 0
    while link[0] != NULL:
        if link[0].self == heap_self():
            core.limits.waiting += 1
            link = &link[0].next
        else:
            link[0] = link[0].next


cdef void fork_resume(Core *core, bint child) noexcept nogil:
    device_after_fork(child)
    # It was given to one process.
    core.limits.credit = 0
    heaps_after_fork(&core.heaps, child)
    if not child:
        pthread_mutex_unlock(&core.residency.mutex)
        own_end()
        return
    # The threads that waited are gone, and so is their claim on these.
    pthread_cond_init(&core.settled, NULL)
    core.waiters = 0
    keep_own_waiters(core)
    residency_forget(&core.residency)
    if mlim_device_usable(core.device, NULL) != MLIM_OK:
        heaps_lose(&core.heaps)
    own_end()
    # Idle memory would be copied, page by page, by who uses it first, parent or child: a hit is no
    # growth to anyone else.
    controls_clear_cache(core)
