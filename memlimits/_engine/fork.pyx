from libc.stdint cimport int64_t

from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport (
    load_count, pthread_atfork, pthread_cond_init, pthread_mutex_lock, pthread_mutex_unlock,
    store_count, store_release,
)
from memlimits._device.mlim cimport MLIM_OK, mlim_device_usable
from memlimits._device.page cimport mlim_page_forget
from memlimits._device.readings cimport device_after_fork, device_before_fork
from memlimits._engine.controls cimport controls_clear_cache
from memlimits._engine.core cimport core_tell, core_wait
from memlimits._engine.members cimport members_after_fork, members_before_fork
from memlimits._engine.record cimport record_after_fork
from memlimits._engine.settings cimport settings_after_fork, settings_before_fork
from memlimits._heap.heap cimport heap_self
from memlimits._heap.heaps cimport (
    heaps_after_fork, heaps_before_fork, heaps_lose, heaps_resume, heaps_stop,
)
from memlimits._ledger.limits cimport limits_admit, limits_drop_credit, limits_note_library
from memlimits._ledger.queue cimport Waiter
from memlimits._residency.plan cimport residency_forget

cdef enum:
    WORTH_RETURNING = 1 << 20

cdef Core *core
cdef Settings *settings
cdef int64_t others_follow      # changed under the settings' mutex, which a fork holds


# ---- before and after ----

cdef void take_locks() noexcept nogil:
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


cdef void fork_prepare() noexcept nogil:
    members_before_fork()
    settings_before_fork(settings)
    take_locks()


cdef void keep_own_waiters() noexcept nogil:
    """Those of the thread that forked, in a signal's handler while it waits; others are gone."""
    cdef Waiter **link = &core.queue
    core.limits.waiting = 0
    while link[0] != NULL:
        if link[0].self == heap_self():
            core.limits.waiting += 1
            link = &link[0].next
        else:
            link[0] = link[0].next


cdef void forget_page() noexcept nogil:
    """Its parent's: a child tells of itself once it has one of its own."""
    store_release(<void **> &core.heaps.claims.told, &core.heaps.claims.untold)
    mlim_page_forget()


cdef void give_locks(bint child) noexcept nogil:
    if child:
        forget_page()
    device_after_fork(child)
    # It was given to one process.
    limits_drop_credit(&core.limits)
    heaps_after_fork(&core.heaps, child)
    if not child:
        pthread_mutex_unlock(&core.residency.mutex)
        own_end()
        return
    # The threads that waited are gone, and so is their claim on these.
    pthread_cond_init(&core.settled, NULL)
    core.waiters = 0
    # Tickets are the parent's, and what the library holds was counted there.
    core.tickets = NULL
    limits_admit(&core.limits, 0)
    limits_note_library(&core.limits, 0, 0, 0)
    keep_own_waiters()
    residency_forget(&core.residency)
    if mlim_device_usable(core.device, NULL) != MLIM_OK:
        heaps_lose(&core.heaps)
    own_end()
    # Idle memory would be copied, page by page, by who uses it first, parent or child: a hit is no
    # growth to anyone else.
    controls_clear_cache(core)


cdef void fork_resume(int child) noexcept nogil:
    give_locks(child)
    settings_after_fork(settings, child)
    members_after_fork(child)
    if child:
        record_after_fork(core)
    if not child and core.pool.mine != NULL and core.limits.cache >= WORTH_RETURNING:
        # Until a slow step starts its thread anew this process does not hear who wants that.
        controls_clear_cache(core)


# ---- who calls them ----

cdef void prepare() noexcept nogil:
    if load_count(&others_follow):
        return
    members_before_fork()
    settings_before_fork(settings)
    if load_count(&others_follow):
        settings_after_fork(settings, False)
        members_after_fork(False)
    else:
        take_locks()


cdef void resume_parent() noexcept nogil:
    if not load_count(&others_follow):
        fork_resume(False)


cdef void resume_child() noexcept nogil:
    if not load_count(&others_follow):
        fork_resume(True)


cdef void fork_follow(Core *followed, Settings *their_settings) noexcept nogil:
    global core, settings
    core, settings = followed, their_settings
    pthread_mutex_lock(&core.heaps.lock)
    core.tells = True
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)
    pthread_atfork(prepare, resume_parent, resume_child)


cdef void fork_hand_over() noexcept nogil:
    settings_before_fork(settings)


cdef void fork_handed_over(bint others) noexcept nogil:
    store_count(&others_follow, others)
    settings_after_fork(settings, False)
