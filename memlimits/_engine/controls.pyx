from libc.stdint cimport UINT64_MAX, int64_t

from memlimits._base.sync cimport (
    load_count, pthread_cond_signal, pthread_mutex_lock, pthread_mutex_unlock,
)
from memlimits._device.mlim cimport MLIM_OK, mlim_process, mlim_sizes, mlim_status
from memlimits._device.readings cimport device_process, device_sizes
from memlimits._engine.books cimport books_check
from memlimits._engine.core cimport (
    core_detach, core_detach_excess, core_note_process, core_note_sizes, core_resume, core_return,
    core_stop, core_tell, core_tell_now, core_wake,
)
from memlimits._engine.parts cimport parts_cut
from memlimits._heap.checks cimport CHECKING
from memlimits._heap.heap cimport heaps_peak, heaps_reset_peak, heaps_set_highest, heaps_takers
from memlimits._heap.heaps cimport (
    Totals, heaps_lock_all_to_read, heaps_read_totals, heaps_resume, heaps_survey, heaps_total,
)
from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport (
    COUNT_PROCESS, POLICY_WAIT, limits_cache_limit, limits_default, limits_drop_credit,
    limits_is_outdated, limits_keep_back, limits_note,
)
from memlimits._ledger.queue cimport Waiter
from memlimits._residency.pins cimport pins_survey
from memlimits._residency.plan cimport residency_set_limit


cdef void go_on_within_limit(Core *core) noexcept nogil:
    """While stopped, which ends."""
    cdef Resource *detached = core_detach_excess(core)
    core_wake(core)
    core_resume(core, False)
    core_return(core, detached)


cdef void controls_set_memory_limit(Core *core, uint64_t limit, bint follows) noexcept nogil:
    core_stop(core)
    parts_cut(core)
    core.limits.memory_follows = follows
    core.limits.memory_limit = limits_default(&core.limits) if follows else limit
    go_on_within_limit(core)


cdef void controls_keep_back(Core *core, uint64_t n) noexcept nogil:
    cdef uint64_t _trim = 0
    core_stop(core)
    core.limits.wanted_back = n
    core.limits.kept_back = min(core.limits.kept_back, n)
    limits_keep_back(&core.limits, 0, &_trim)
    go_on_within_limit(core)


cdef void controls_be_lean(Core *core, int64_t more) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    core.limits.leans += more
    pthread_mutex_unlock(&core.heaps.lock)


cdef void controls_follow_sizes(Core *core) noexcept nogil:
    core_stop(core)
    if core.limits.memory_follows:
        core.limits.memory_limit = limits_default(&core.limits)
    go_on_within_limit(core)


cdef void controls_read_sizes(Core *core) noexcept nogil:
    cdef mlim_sizes sizes
    cdef bint due
    # What cannot be read now is taken to be as it was.
    if device_sizes(core.device, False, &sizes, NULL) != MLIM_OK:
        return
    pthread_mutex_lock(&core.heaps.lock)
    core_note_sizes(core, &sizes)
    due = limits_is_outdated(&core.limits)
    pthread_mutex_unlock(&core.heaps.lock)
    if due:
        controls_follow_sizes(core)


cdef mlim_process controls_read_process(Core *core) noexcept nogil:
    cdef mlim_process process
    cdef mlim_status status = device_process(core.device, &process)
    pthread_mutex_lock(&core.heaps.lock)
    if status == MLIM_OK:
        core_note_process(core, &process)
    else:
        process = core.process
    pthread_mutex_unlock(&core.heaps.lock)
    return process


cdef uint64_t controls_default_limit(Core *core) noexcept nogil:
    cdef uint64_t limit
    pthread_mutex_lock(&core.heaps.lock)
    limit = limits_default(&core.limits)
    pthread_mutex_unlock(&core.heaps.lock)
    return limit


cdef void controls_set_cache_limit(Core *core, uint64_t limit, bint follows) noexcept nogil:
    cdef Resource *detached
    core_stop(core)
    parts_cut(core)
    core.limits.cache_limit = limit
    core.limits.cache_follows = follows
    detached = core_detach_excess(core)
    core_resume(core, False)
    core_return(core, detached)


cdef void controls_set_wired_limit(Core *core, uint64_t limit) noexcept nogil:
    # Only what is in use is wired: who takes what was idle before would have it not registered.
    if limit and load_count(&core.residency.registers) and (
        controls_read(core, &core.limits.wired_limit) == 0
    ):
        controls_clear_cache(core)
    residency_set_limit(&core.residency, limit)
    core_tell_now(core)


cdef void controls_set_policy(Core *core, Policy policy, uint64_t timeout) noexcept nogil:
    cdef Waiter *waiter
    pthread_mutex_lock(&core.heaps.lock)
    core.limits.policy = policy
    if policy == POLICY_WAIT:
        core.limits.wait_timeout = timeout
    core.wakes += 1
    waiter = core.queue
    while waiter != NULL:
        pthread_cond_signal(&waiter.turn)
        waiter = waiter.next
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void controls_set_count(Core *core, Count count) noexcept nogil:
    if count == COUNT_PROCESS:
        controls_read_process(core)     # in place of what it was when the device was opened
    pthread_mutex_lock(&core.heaps.lock)
    core.limits.count = count
    core.limits.untouched = 0
    core.limits.overran = False
    limits_drop_credit(&core.limits)    # it was given by another
    core_wake(core)
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void controls_clear_cache(Core *core) noexcept nogil:
    cdef Resource *detached
    core_stop(core)
    parts_cut(core)
    detached = core_detach(core, UINT64_MAX)
    core.limits.highest = core.limits.active
    core.limits.widened = 0
    heaps_set_highest(&core.heaps, core.limits.active)
    core.clears += 1
    core_resume(core, False)
    core_return(core, detached)


cdef void controls_reset_peak(Core *core) noexcept nogil:
    core_stop(core)
    heaps_reset_peak(&core.heaps)
    core_resume(core, False)


cdef void controls_note_snapshot(Core *core, Snapshot *snapshot) noexcept nogil:
    cdef Totals totals
    heaps_total(&core.heaps, &totals)
    heaps_survey(&core.heaps, &snapshot.survey)
    snapshot.limits = core.limits
    snapshot.limits.peak = heaps_peak(&core.heaps)
    snapshot.limits.begins = False      # whoever asks
    pins_survey(&core.residency, &snapshot.limits)
    limits_note(&snapshot.limits, totals.idle, totals.cached)
    if CHECKING:
        books_check(
            &core.heaps, &snapshot.limits, &core.accounts, &core.pages, core.resources)
    snapshot.limits.hits += totals.hits
    snapshot.limits.steals += totals.steals
    snapshot.limits.resources -= totals.spares
    snapshot.heaps = heaps_takers(&core.heaps)
    snapshot.purgeable = totals.purgeable
    snapshot.idle_timeout = core.idle_timeout


cdef void controls_snapshot(Core *core, bint reset_peak, Snapshot *snapshot) noexcept nogil:
    if reset_peak:
        core_stop(core)
    else:
        pthread_mutex_lock(&core.heaps.lock)
        heaps_lock_all_to_read(&core.heaps)
    controls_note_snapshot(core, snapshot)
    if reset_peak:
        heaps_reset_peak(&core.heaps)
        core_resume(core, False)
    else:
        heaps_resume(&core.heaps)


cdef uint64_t controls_active(Core *core) noexcept nogil:
    cdef Totals totals
    cdef uint64_t active
    pthread_mutex_lock(&core.heaps.lock)
    heaps_read_totals(&core.heaps, &totals)
    active = core.limits.footprint - core.limits.pending - totals.idle
    pthread_mutex_unlock(&core.heaps.lock)
    return active


cdef uint64_t controls_cached(Core *core) noexcept nogil:
    cdef Totals totals
    pthread_mutex_lock(&core.heaps.lock)
    heaps_read_totals(&core.heaps, &totals)
    pthread_mutex_unlock(&core.heaps.lock)
    return totals.cached


cdef uint64_t controls_read(Core *core, const uint64_t *number) noexcept nogil:
    cdef uint64_t value
    pthread_mutex_lock(&core.heaps.lock)
    value = number[0]
    pthread_mutex_unlock(&core.heaps.lock)
    return value


cdef uint64_t controls_cache_limit(Core *core) noexcept nogil:
    cdef uint64_t limit
    pthread_mutex_lock(&core.heaps.lock)
    limit = limits_cache_limit(&core.limits)
    pthread_mutex_unlock(&core.heaps.lock)
    return limit


cdef Limits controls_settings(Core *core) noexcept nogil:
    cdef Limits limits
    pthread_mutex_lock(&core.heaps.lock)
    limits = core.limits
    pthread_mutex_unlock(&core.heaps.lock)
    return limits


cdef Refusal controls_latest_refusal(Core *core) noexcept nogil:
    cdef Refusal refusal
    pthread_mutex_lock(&core.heaps.lock)
    refusal = core.latest
    pthread_mutex_unlock(&core.heaps.lock)
    return refusal
