from libc.stdint cimport uint64_t

from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._heap.heap cimport heap_put_apart
from memlimits._heap.heaps cimport heaps_resume, heaps_stop
from memlimits._heap.resource cimport INSIDE, OUTSIDE, Resource, is_taken
from memlimits._ledger.pool cimport pool_wirable
from memlimits._residency.plan cimport residency_update


cdef inline bint is_used(const Resource *resource) noexcept nogil:
    return is_taken(resource) and (resource.block_size == 0 or resource.live > 0)


cdef Resource *pins_find(const Residency *residency, const char *address) noexcept nogil:
    cdef Resource *resource = residency.resources[0]
    while resource != NULL and not (
        resource.base <= address < resource.base + resource.bytes and is_used(resource)
    ):
        resource = resource.below
    return resource


cdef Pinning change(Heaps *heaps, Resource *resource, bint wired) noexcept nogil:
    """While stopped."""
    if resource == NULL:
        return FOREIGN
    if not wired:
        if resource.pinned == 0:
            return NOT_PINNED
        resource.pinned -= 1
        return PINNED
    resource.pinned += 1
    if resource.block_size == 0:
        heap_put_apart(heaps, resource)
    return PINNED


cdef Pinning pins_change(Residency *residency, const char *address, bint wired) noexcept nogil:
    cdef Resource *resource
    cdef Pinning asked
    cdef bint update
    heaps_stop(residency.heaps)
    resource = pins_find(residency, address)
    asked = change(residency.heaps, resource, wired)
    update = asked == PINNED and residency.limits.wired_limit > 0
    heaps_resume(residency.heaps)
    if update:
        residency_update(residency, resource)
    return asked


cdef uint64_t wired_in_use(const Residency *residency, bint pinned) noexcept nogil:
    cdef uint64_t total = 0
    cdef const Resource *resource = residency.resources[0]
    while resource != NULL:
        if resource.wiring != OUTSIDE and is_used(resource) and (
            resource.pinned > 0
        ) == pinned:
            total += resource.bytes
        resource = resource.below
    return total


cdef void count_unwired(
    const Residency *residency, Limits *limits, bint pinned, uint64_t *claimed
) noexcept nogil:
    """`claimed`: what goes before these, wired or to be wired with the next operation."""
    cdef uint64_t claim
    cdef uint64_t wirable = min(limits.wired_limit, pool_wirable(residency.pool))
    cdef const Resource *resource = residency.resources[0]
    claimed[0] += wired_in_use(residency, pinned)
    while resource != NULL:
        if is_used(resource) and (resource.pinned > 0) == pinned:
            limits.wired_requested += resource.bytes if pinned else 0
            if resource.wiring == OUTSIDE:
                claim = claimed[0] + resource.bytes
                limits.unwired_requested += resource.bytes if pinned else 0
                if claim > wirable:
                    limits.unwired_by_limit += resource.bytes
                elif claim > residency.allowed:
                    limits.unwired_by_capacity += resource.bytes
                else:
                    claimed[0] = claim
        resource = resource.below


cdef void pins_survey(const Residency *residency, Limits *limits) noexcept nogil:
    cdef uint64_t claimed = 0
    count_unwired(residency, limits, True, &claimed)
    if limits.wired_limit:
        count_unwired(residency, limits, False, &claimed)


cdef bint pins_is_wired(Residency *residency, const Resource *resource) noexcept nogil:
    cdef bint inside
    pthread_mutex_lock(&residency.heaps.lock)
    inside = resource.wiring == INSIDE
    pthread_mutex_unlock(&residency.heaps.lock)
    return inside


cdef bint pins_is_registered(Residency *residency, const Resource *resource) noexcept nogil:
    cdef bint registered
    pthread_mutex_lock(&residency.heaps.lock)
    registered = resource.registered
    pthread_mutex_unlock(&residency.heaps.lock)
    return registered
