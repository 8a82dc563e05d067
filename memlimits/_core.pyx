from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

from memlimits._cache cimport cache_detach, cache_give, cache_mapped, cache_take
from memlimits._device cimport buffer_discard, device_available, device_usable
from memlimits._limits cimport (
    limits_cache_limit, limits_deactivate, limits_excess, limits_init, limits_promise,
    limits_reserve, limits_returned,
)
from memlimits._mlim cimport MLIM_OK
from memlimits._pagemap cimport pagemap_close, pagemap_find, pagemap_init, pagemap_remove
from memlimits._residency cimport (
    residency_close, residency_forget, residency_init, residency_release, residency_set_limit,
)
from memlimits._resource cimport OUTSIDE, resource_destroy
from memlimits._sync cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

cdef enum:
    DISCARD_FROM = 1 << 20      # from this size on, dropping pages is faster than clearing them


cdef int core_open(
    Core *core, mlim_device *device, const mlim_device_facts *facts, uint64_t set_cap
) noexcept nogil:
    memset(core, 0, sizeof(Core))
    if pagemap_init(&core.pages) != 0:
        return -1
    core.device = device
    core.idle_timeout = UINT64_MAX
    core.cache.page_size = facts.page_size
    core.max_buffer_length = facts.max_buffer_length
    core.purgeable_lingers = facts.purgeable_lingers
    pthread_mutex_init(&core.lock, NULL)
    pthread_cond_init(&core.settled, NULL)
    limits_init(&core.limits, <uint64_t> min(
        1.5 * <double> facts.max_recommended_working_set_size, 0.95 * <double> facts.memory_size))
    device_available(device, &core.limits.available)
    residency_init(&core.residency, device, facts.wired_capacity, set_cap, &core.lock,
                   &core.limits, &core.resources, &core.cache.oldest)
    return 0


cdef void core_close(Core *core) noexcept nogil:
    cdef Resource *resource
    residency_close(&core.residency)
    while core.resources != NULL:
        resource = core.resources
        core.resources = resource.below
        resource_destroy(resource)
    pagemap_close(&core.pages)
    pthread_cond_destroy(&core.settled)
    pthread_mutex_destroy(&core.lock)


# ---- resources coming and going ----

cdef void core_hold(Core *core, Resource *resource) noexcept nogil:
    """Under the lock."""
    resource.above = NULL
    resource.below = core.resources
    if core.resources != NULL:
        core.resources.above = resource
    core.resources = resource
    core.limits.resources += 1


cdef void let_go(Core *core, Resource *resource) noexcept nogil:
    """Under the lock."""
    pagemap_remove(&core.pages, resource, cache_mapped(&core.cache, resource.bytes))
    if resource.above != NULL:
        resource.above.below = resource.below
    else:
        core.resources = resource.below
    if resource.below != NULL:
        resource.below.above = resource.above
    core.limits.resources -= 1


cdef void core_give_back(Core *core, Resource *detached, uint64_t growth) noexcept nogil:
    """Destroys detached resources, then settles their bytes, less `growth` reserved with them."""
    cdef Resource *resource = detached
    cdef Resource *next
    cdef uint64_t returned = 0
    cdef bint wired = False
    pthread_mutex_lock(&core.lock)
    while resource != NULL:
        # What is detached and outside is never wired again.
        wired = wired or resource.wiring != OUTSIDE
        resource = resource.next
    pthread_mutex_unlock(&core.lock)
    if wired:
        residency_release(&core.residency, detached)
    # Until now a lowered wired limit could find them here.
    pthread_mutex_lock(&core.lock)
    resource = detached
    while resource != NULL:
        let_go(core, resource)
        resource = resource.next
    pthread_mutex_unlock(&core.lock)
    while detached != NULL:
        next = detached.next
        returned += detached.bytes
        resource_destroy(detached)
        detached = next
    pthread_mutex_lock(&core.lock)
    limits_returned(&core.limits, growth, returned)
    core_settle(core)
    pthread_mutex_unlock(&core.lock)


cdef void core_settle(Core *core) noexcept nogil:
    if core.waiters:
        pthread_cond_broadcast(&core.settled)


cdef void core_wait(Core *core) noexcept nogil:
    core.waiters += 1
    pthread_cond_wait(&core.settled, &core.lock)
    core.waiters -= 1


cdef void core_return(Core *core, Resource *detached) noexcept nogil:
    if detached != NULL:
        core_give_back(core, detached, 0)


cdef Resource *core_detach(Core *core, uint64_t enough) noexcept nogil:
    cdef uint64_t returned
    cdef Resource *detached
    if enough == 0:
        return NULL
    detached = cache_detach(&core.cache, enough, &returned)
    limits_reserve(&core.limits, 0, returned)
    return detached


cdef Resource *detach_excess(Core *core) noexcept nogil:
    """Under the lock: what the limits no longer allow to stay in the cache."""
    return core_detach(core, limits_excess(&core.limits))


# ---- blocks ----

cdef bint core_hit(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef bint hit
    pthread_mutex_lock(&core.lock)
    hit = not core.lost and cache_take(&core.cache, &core.limits, n, block)
    core.limits.hits += hit
    pthread_mutex_unlock(&core.lock)
    return hit


cdef Resource *core_free(Core *core, Resource *resource, void *start) noexcept nogil:
    cdef Resource *detached = NULL
    pthread_mutex_lock(&core.lock)
    if core.lost:
        limits_deactivate(&core.limits, resource.block_size or resource.bytes)
    else:
        cache_give(&core.cache, &core.limits, resource, start)
        detached = detach_excess(core)
    pthread_mutex_unlock(&core.lock)
    return detached


cdef void core_clear(Core *core, const Block *block, uint64_t n) noexcept nogil:
    if block.zeros:
        return
    if block.resource.block_size == 0 and n >= DISCARD_FROM:
        if buffer_discard(block.resource.buffer) == MLIM_OK:
            pthread_mutex_lock(&core.lock)
            limits_promise(&core.limits, block.resource.bytes)
            pthread_mutex_unlock(&core.lock)
            return
    memset(block.start, 0, n)


cdef Resource *core_find(const Core *core, const void *address) noexcept nogil:
    return pagemap_find(&core.pages, address)


# ---- limits and counters ----

cdef uint64_t core_set_memory_limit(Core *core, uint64_t limit) noexcept nogil:
    cdef uint64_t previous
    cdef Resource *detached
    pthread_mutex_lock(&core.lock)
    previous = core.limits.memory_limit
    core.limits.memory_limit = limit
    detached = detach_excess(core)
    pthread_mutex_unlock(&core.lock)
    core_return(core, detached)
    return previous


cdef uint64_t core_set_cache_limit(Core *core, uint64_t limit, bint follows) noexcept nogil:
    cdef uint64_t previous
    cdef Resource *detached
    pthread_mutex_lock(&core.lock)
    previous = limits_cache_limit(&core.limits)
    core.limits.cache_limit = limit
    core.limits.cache_follows = follows
    detached = detach_excess(core)
    pthread_mutex_unlock(&core.lock)
    core_return(core, detached)
    return previous


cdef uint64_t core_set_wired_limit(Core *core, uint64_t limit) noexcept nogil:
    return residency_set_limit(&core.residency, limit)


cdef Policy core_set_policy(Core *core, Policy policy) noexcept nogil:
    cdef Policy previous
    pthread_mutex_lock(&core.lock)
    previous = core.limits.policy
    core.limits.policy = policy
    pthread_mutex_unlock(&core.lock)
    return previous


cdef void core_clear_cache(Core *core) noexcept nogil:
    cdef Resource *detached
    pthread_mutex_lock(&core.lock)
    detached = core_detach(core, UINT64_MAX)
    core.clears += 1
    pthread_mutex_unlock(&core.lock)
    core_return(core, detached)


cdef void core_reset_peak(Core *core) noexcept nogil:
    pthread_mutex_lock(&core.lock)
    core.limits.peak = 0
    pthread_mutex_unlock(&core.lock)


cdef Limits core_limits(Core *core) noexcept nogil:
    cdef Limits limits
    pthread_mutex_lock(&core.lock)
    limits = core.limits
    pthread_mutex_unlock(&core.lock)
    return limits


cdef Refusal core_latest_refusal(Core *core) noexcept nogil:
    cdef Refusal refusal
    pthread_mutex_lock(&core.lock)
    refusal = core.latest
    pthread_mutex_unlock(&core.lock)
    return refusal


# ---- fork ----

cdef void core_before_fork(Core *core) noexcept nogil:
    while True:
        pthread_mutex_lock(&core.residency.mutex)
        pthread_mutex_lock(&core.lock)
        if core.limits.pending == 0:
            return
        # A pending return may need the mutex to be done.
        pthread_mutex_unlock(&core.residency.mutex)
        core_wait(core)
        pthread_mutex_unlock(&core.lock)


cdef void core_after_fork(Core *core, bint child) noexcept nogil:
    if child:
        # The threads that waited are gone, and so is their claim on these.
        pthread_cond_init(&core.settled, NULL)
        core.waiters = 0
        pthread_mutex_init(&core.lock, NULL)
        residency_forget(&core.residency)
        core.lost = device_usable(core.device) != MLIM_OK
        if core.lost:
            core_clear_cache(core)
        return
    pthread_mutex_unlock(&core.lock)
    pthread_mutex_unlock(&core.residency.mutex)
