from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from memlimits._cache cimport (
    cache_detach, cache_give, cache_growth, cache_least_growth, cache_mapped, cache_serve,
    cache_take,
)
from memlimits._device cimport (
    buffer_create, buffer_discard, device_available, device_touched, device_touched_range,
)
from memlimits._limits cimport (
    DEVICE, LENGTH, LIMIT, NOTHING, REFUSE, RESOURCES, SYSTEM, WAIT, Verdict, limits_cache_limit,
    limits_cancel, limits_confirm, limits_excess, limits_extend_credit, limits_init, limits_judge,
    limits_lower_promise, limits_promise, limits_reserve, limits_returned, limits_room,
    limits_slack,
)
from memlimits._mlim cimport (
    MLIM_NO_MEMORY, MLIM_NO_RESOURCES, MLIM_OK, mlim_buffer, mlim_status,
)
from memlimits._pagemap cimport (
    pagemap_add, pagemap_close, pagemap_find, pagemap_init, pagemap_remove,
)
from memlimits._residency cimport (
    residency_close, residency_forget, residency_init, residency_release, residency_set_limit,
    residency_update,
)
from memlimits._resource cimport (
    OUTSIDE, resource_adopt, resource_destroy, resource_disown, resource_new,
)
from memlimits._sync cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

cdef extern from *:
    """
    /* A Refusal, as bytes: Cython cannot declare a thread's own variable. */
    static _Thread_local char this_threads_refusal[64];
    """
    char this_threads_refusal[64]

cdef enum:
    DISCARD_FROM = 1 << 20      # from this size on, dropping pages is faster than clearing them


cdef int core_open(
    Core *core, mlim_device *device, const mlim_device_facts *facts
) noexcept nogil:
    memset(core, 0, sizeof(Core))
    if pagemap_init(&core.pages) != 0:
        return -1
    core.device = device
    core.page_size = facts.page_size
    core.max_buffer_length = facts.max_buffer_length
    pthread_mutex_init(&core.lock, NULL)
    pthread_cond_init(&core.settled, NULL)
    limits_init(&core.limits, <uint64_t> min(
        1.5 * <double> facts.max_recommended_working_set_size, 0.95 * <double> facts.memory_size))
    residency_init(&core.residency, device, facts.wired_capacity, &core.lock, &core.limits,
                   &core.resources, &core.cache.oldest)
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

cdef void hold(Core *core, Resource *resource) noexcept nogil:
    """Under the lock."""
    resource.above = NULL
    resource.below = core.resources
    if core.resources != NULL:
        core.resources.above = resource
    core.resources = resource
    core.limits.resources += 1


cdef Resource *detach(Core *core, uint64_t enough, uint64_t *detached) noexcept nogil:
    """Under the lock: takes the oldest idle resources, `enough` bytes of them, off every list."""
    cdef Resource *first = cache_detach(&core.cache, enough, detached)
    cdef Resource *resource = first
    while resource != NULL:
        if resource.above != NULL:
            resource.above.below = resource.below
        else:
            core.resources = resource.below
        if resource.below != NULL:
            resource.below.above = resource.above
        core.limits.resources -= 1
        resource = resource.next
    return first


cdef void give_back(Core *core, Resource *detached, uint64_t growth) noexcept nogil:
    """Destroys detached resources, then settles their bytes, less `growth` reserved with them."""
    cdef Resource *resource = detached
    cdef Resource *next
    cdef uint64_t returned = 0
    cdef bint wired = False
    while resource != NULL:
        wired = wired or resource.wiring != OUTSIDE
        resource = resource.next
    if wired:
        residency_release(&core.residency, detached)
    while detached != NULL:
        next = detached.next
        returned += detached.bytes
        pagemap_remove(&core.pages, detached, cache_mapped(detached.bytes, core.page_size))
        resource_destroy(detached)
        detached = next
    pthread_mutex_lock(&core.lock)
    limits_returned(&core.limits, growth, returned)
    settle(core)
    pthread_mutex_unlock(&core.lock)


cdef inline void settle(Core *core) noexcept nogil:
    if core.waiters:
        pthread_cond_broadcast(&core.settled)


cdef inline void wait_until_settled(Core *core) noexcept nogil:
    core.waiters += 1
    pthread_cond_wait(&core.settled, &core.lock)
    core.waiters -= 1


cdef void core_return(Core *core, Resource *detached) noexcept nogil:
    if detached != NULL:
        give_back(core, detached, 0)


cdef Resource *detach_excess(Core *core) noexcept nogil:
    """Under the lock: what the limits no longer allow to stay in the cache."""
    cdef uint64_t returned = 0
    cdef uint64_t excess = limits_excess(&core.limits)
    cdef Resource *detached
    if excess == 0:
        return NULL
    detached = detach(core, excess, &returned)
    limits_reserve(&core.limits, 0, returned)
    return detached


# ---- allocation ----

cdef bint core_hit(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef bint hit
    pthread_mutex_lock(&core.lock)
    hit = cache_take(&core.cache, &core.limits, n, block)
    core.limits.hits += hit
    pthread_mutex_unlock(&core.lock)
    return hit


cdef Resource *core_free(Core *core, Resource *resource, void *start) noexcept nogil:
    cdef Resource *detached
    pthread_mutex_lock(&core.lock)
    cache_give(&core.cache, &core.limits, resource, start)
    detached = detach_excess(core)
    pthread_mutex_unlock(&core.lock)
    return detached


cdef void lower_promise(Core *core) noexcept nogil:
    """Under the lock, which it drops: looks which of our pages have been touched.

    Ranges are looked at by address, not through their resources: one that goes meanwhile reads as
    untouched, which errs on the safe side. A page that was only read counts as touched in its
    range, but not in what the process has touched in all, so the smaller of the two is right.
    """
    cdef uint64_t grown_then = core.limits.grown
    cdef uint64_t pending = core.limits.pending
    cdef uint64_t held = 0, touched = 0, in_range, in_all
    cdef size_t i, count = 0, capacity = core.limits.resources
    cdef Resource *resource = core.resources
    cdef uint64_t *ranges = <uint64_t *> malloc((capacity + 1) * 2 * sizeof(uint64_t))
    if ranges == NULL:
        return
    while resource != NULL:
        ranges[2 * count] = <uint64_t> resource.base
        ranges[2 * count + 1] = resource.bytes
        held += resource.bytes
        count += 1
        resource = resource.below
    pthread_mutex_unlock(&core.lock)
    for i in range(count):
        if device_touched_range(
            core.device, <void *> ranges[2 * i], ranges[2 * i + 1], &in_range
        ) != MLIM_OK:
            in_range = ranges[2 * i + 1]
        touched += in_range
    if device_touched(core.device, &in_all) == MLIM_OK and in_all < touched:
        touched = in_all
    free(ranges)
    pthread_mutex_lock(&core.lock)
    limits_lower_promise(&core.limits, held - touched + pending, grown_then)


cdef Blocker reserve(
    Core *core, uint64_t n, uint64_t growth, Resource **detached, Block *block
) noexcept nogil:
    """Under the lock, which it may drop: room for `growth`, or a hit after all.

    On success either `block` is filled, or `growth` is pending and `detached` is to be given back
    first. The last look at the limits and the reservation are one step.
    """
    cdef Limits *limits = &core.limits
    cdef Verdict verdict
    cdef uint64_t trim, room, short_by, returned
    cdef uint64_t available = 0, epoch = 0
    cdef bint read = False, scanned = False
    detached[0] = NULL
    while True:
        if cache_take(&core.cache, limits, n, block):
            limits.hits += 1
            return NOTHING
        verdict = limits_judge(limits, growth, &trim)
        if verdict == REFUSE:
            return LIMIT
        if verdict == WAIT:
            wait_until_settled(core)
            read = False
            continue
        if growth > limits.credit:
            if not read or epoch != limits.epoch:
                epoch = limits.epoch
                pthread_mutex_unlock(&core.lock)
                if device_available(core.device, &available) != MLIM_OK:
                    available = UINT64_MAX
                pthread_mutex_lock(&core.lock)
                read = True
                continue
            room = limits_room(limits, available)
            if growth > room and limits.promised and not scanned:
                lower_promise(core)
                scanned = True
                read = False
                continue
            short_by = growth - room if growth > room else 0
            if short_by > limits.cache:
                if short_by > limits.cache + limits.pending:
                    return SYSTEM
                wait_until_settled(core)
                read = False
                continue
            trim = max(trim, short_by)
            limits_extend_credit(limits, room)
        returned = 0
        detached[0] = detach(core, trim, &returned)
        limits_reserve(limits, growth, returned)
        return NOTHING


cdef mlim_status make(Core *core, uint64_t growth, mlim_buffer **buffer) noexcept nogil:
    """Asks the device; when it refuses, returns the whole cache and asks once more."""
    cdef mlim_status status = buffer_create(core.device, growth, buffer)
    cdef uint64_t returned = 0
    cdef Resource *detached
    if status == MLIM_OK:
        return status
    pthread_mutex_lock(&core.lock)
    detached = detach(core, UINT64_MAX, &returned)
    limits_reserve(&core.limits, 0, returned)
    pthread_mutex_unlock(&core.lock)
    if detached == NULL:
        return status
    give_back(core, detached, 0)
    return buffer_create(core.device, growth, buffer)


cdef Blocker grow(
    Core *core, uint64_t n, uint64_t growth, Resource *resource, Block *block
) noexcept nogil:
    """Serves n bytes from a new resource of `growth` bytes. On success it owns `resource`."""
    cdef Resource *detached
    cdef mlim_buffer *buffer = NULL
    cdef mlim_status status
    cdef Blocker blocker
    cdef bint wire
    pthread_mutex_lock(&core.lock)
    blocker = reserve(core, n, growth, &detached, block)
    pthread_mutex_unlock(&core.lock)
    if blocker != NOTHING:
        return blocker
    if block.resource != NULL:
        resource_destroy(resource)
        return NOTHING
    if detached != NULL:
        give_back(core, detached, growth)
    status = make(core, growth, &buffer)
    if status == MLIM_OK:
        resource_adopt(resource, buffer, growth)
        if pagemap_add(&core.pages, resource, cache_mapped(growth, core.page_size)) != 0:
            resource_disown(resource)
            status = MLIM_NO_MEMORY
    pthread_mutex_lock(&core.lock)
    if status == MLIM_OK:
        limits_confirm(&core.limits, growth)
        core.limits.misses += 1
        hold(core, resource)
        cache_serve(&core.cache, &core.limits, resource, n, block)
    else:
        limits_cancel(&core.limits, growth)
    wire = status == MLIM_OK and core.limits.wired_limit > 0
    settle(core)
    pthread_mutex_unlock(&core.lock)
    if wire:
        residency_update(&core.residency, resource)
    if status == MLIM_OK:
        return NOTHING
    return RESOURCES if status == MLIM_NO_RESOURCES else DEVICE


cdef Blocker core_miss(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef uint64_t growth = cache_growth(n, core.page_size)
    cdef uint64_t least = cache_least_growth(n, core.page_size)
    cdef Resource *resource
    cdef Blocker blocker
    block.resource = NULL
    if least > core.max_buffer_length:
        return refuse(core, n, LENGTH)
    resource = resource_new()
    if resource == NULL:
        return refuse(core, n, DEVICE)
    blocker = grow(core, n, growth, resource, block)
    if blocker != NOTHING and least < growth:
        # Where a whole slab does not fit, a page may.
        blocker = grow(core, n, least, resource, block)
    if blocker != NOTHING:
        resource_destroy(resource)
        return refuse(core, n, blocker)
    return NOTHING


cdef Blocker refuse(Core *core, uint64_t n, Blocker blocker) noexcept nogil:
    cdef Limits *limits = &core.limits
    pthread_mutex_lock(&core.lock)
    limits.refusals[<int> blocker] += 1
    core.latest.requested = n
    core.latest.limit = limits.memory_limit
    core.latest.footprint = limits.footprint
    core.latest.active = limits.active
    core.latest.cache = limits.cache
    core.latest.slack = limits_slack(limits)
    core.latest.blocked_by = blocker
    memcpy(this_threads_refusal, &core.latest, sizeof(Refusal))
    pthread_mutex_unlock(&core.lock)
    return blocker


cdef Refusal last_refusal() noexcept nogil:
    cdef Refusal refusal
    memcpy(&refusal, this_threads_refusal, sizeof(Refusal))
    return refusal


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
    cdef uint64_t returned = 0
    cdef Resource *detached
    pthread_mutex_lock(&core.lock)
    detached = detach(core, UINT64_MAX, &returned)
    limits_reserve(&core.limits, 0, returned)
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
        wait_until_settled(core)
        pthread_mutex_unlock(&core.lock)


cdef void core_after_fork(Core *core, bint child) noexcept nogil:
    if child:
        # The threads that waited are gone, and so is their claim on these.
        pthread_cond_init(&core.settled, NULL)
        core.waiters = 0
        pthread_mutex_init(&core.lock, NULL)
        residency_forget(&core.residency)
        return
    pthread_mutex_unlock(&core.lock)
    pthread_mutex_unlock(&core.residency.mutex)
