from memlimits._base.sync cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from memlimits._heap.checks cimport CHECKING, holds
from memlimits._heap.heaps cimport heaps_next_idle, heaps_resume, heaps_rewind, heaps_stop
from memlimits._heap.resource cimport IDLE, INSIDE, JOINING, LEAVING, OUTSIDE, is_taken
from memlimits._ledger.pool cimport pool_wire
from memlimits._residency.sets cimport (
    NO_SET, Queue, sets_add, sets_add_queue, sets_attach, sets_close, sets_commit, sets_find_queue,
    sets_init, sets_recheck, sets_remove, sets_remove_queue,
)


cdef void residency_init(
    Residency *residency, mlim_device *device, uint64_t capacity, uint64_t cap,
    Heaps *heaps, Limits *limits, Pool *pool, Resource **resources
) noexcept nogil:
    sets_init(&residency.sets, device, cap)
    residency.capacity = capacity
    residency.allowed = capacity
    residency.heaps = heaps
    residency.limits = limits
    residency.pool = pool
    residency.resources = resources
    pthread_mutex_init(&residency.mutex, NULL)


cdef void residency_close(Residency *residency) noexcept nogil:
    sets_close(&residency.sets)
    pthread_mutex_destroy(&residency.mutex)


# ---- who is to be wired: what was asked for, then what else is in use, then what is idle ----

cdef inline bint wants_in(const Resource *resource, bint pinned) noexcept nogil:
    return (
        resource.wiring == OUTSIDE and is_taken(resource)
        and (resource.pinned > 0) == pinned)


cdef inline bint stays(const Resource *resource, bint pinned) noexcept nogil:
    """It is inside and not idle. What is on its way back to the device counts as not asked for."""
    return (
        resource.wiring == INSIDE and resource.use != IDLE
        and (is_taken(resource) and resource.pinned > 0) == pinned)


cdef inline void mark_leaving(Resource **leaving, Resource *resource) noexcept nogil:
    resource.wiring = LEAVING
    resource.next_wiring = leaving[0]
    leaving[0] = resource


cdef uint64_t pick_others(
    Residency *residency, Resource **leaving, bint pinned, uint64_t room
) noexcept nogil:
    """Marks what is inside and does not fit, the oldest first to stay. Returns the room left."""
    cdef Resource *resource = residency.resources[0]
    while resource != NULL and resource.below != NULL:
        resource = resource.below
    while resource != NULL:
        if stays(resource, pinned):
            if resource.bytes <= room:
                room -= resource.bytes
            else:
                mark_leaving(leaving, resource)
        resource = resource.above
    return room


cdef uint64_t room_beside(
    const Residency *residency, const Resource *fresh, bint pinned, uint64_t room
) noexcept nogil:
    """What is left of the room beside those that are to join and fit together, `fresh` first."""
    cdef const Resource *resource = residency.resources[0]
    if fresh != NULL and wants_in(fresh, pinned) and fresh.bytes <= room:
        room -= fresh.bytes
    while resource != NULL:
        if resource != fresh and wants_in(resource, pinned) and resource.bytes <= room:
            room -= resource.bytes
        resource = resource.below
    return room


cdef uint64_t idle_wired(Residency *residency) noexcept nogil:
    cdef uint64_t total = 0
    cdef Resource *resource
    heaps_rewind(residency.heaps)
    resource = heaps_next_idle(residency.heaps)
    while resource != NULL:
        if resource.wiring == INSIDE:
            total += resource.bytes
        resource = heaps_next_idle(residency.heaps)
    return total


cdef void pick_idle(Residency *residency, Resource **leaving, uint64_t room) noexcept nogil:
    """Marks idle wired resources, oldest first, until the others fit."""
    cdef uint64_t left = idle_wired(residency)
    cdef Resource *resource
    heaps_rewind(residency.heaps)
    while left > room:
        resource = heaps_next_idle(residency.heaps)
        if resource.wiring == INSIDE:
            mark_leaving(leaving, resource)
            left -= resource.bytes


cdef Resource *plan_removals(
    Residency *residency, const Resource *fresh, uint64_t allowed
) noexcept nogil:
    """While stopped: what is too much, and what stands in the way of what goes first."""
    cdef Resource *leaving = NULL
    cdef uint64_t room = allowed
    cdef bint pinned = True
    while True:
        room = pick_others(residency, &leaving, pinned, room)
        room = room_beside(residency, fresh, pinned, room)
        if not pinned:
            break
        pinned = False
    pick_idle(residency, &leaving, room)
    return leaving


cdef inline void join_if_it_fits(
    Residency *residency, Resource **joining, Resource *resource, uint64_t allowed
) noexcept nogil:
    cdef Limits *limits = residency.limits
    if limits.wired + resource.bytes > limits.wired_limit:
        return
    if limits.wired + resource.bytes > allowed:
        count_refusal(limits, resource)
        return
    if residency.pool.mine != NULL and not (
        pool_wire(residency.pool, limits.wired, resource.bytes)
    ):
        return
    limits.wired += resource.bytes
    resource.wiring = JOINING
    resource.next_wiring = joining[0]
    joining[0] = resource


cdef inline void count_refusal(Limits *limits, Resource *resource) noexcept nogil:
    """Once for each resource and wired limit."""
    limits.wire_failures += not resource.wire_refused
    resource.wire_refused = True


cdef Resource *plan_additions(
    Residency *residency, Resource *fresh, uint64_t allowed
) noexcept nogil:
    """While stopped: what joins, its bytes already counted as wired."""
    cdef Resource *joining = NULL
    cdef Resource *resource
    cdef bint pinned = True
    while True:
        if fresh != NULL and wants_in(fresh, pinned):
            join_if_it_fits(residency, &joining, fresh, allowed)
        resource = residency.resources[0]
        while resource != NULL:
            if wants_in(resource, pinned):
                join_if_it_fits(residency, &joining, resource, allowed)
            resource = resource.below
        if not pinned:
            return joining
        pinned = False


cdef inline void tell_others(Residency *residency) noexcept nogil:
    """Under the lock: what is wired in this process is less by now."""
    if residency.pool.mine != NULL:
        pool_wire(residency.pool, residency.limits.wired, 0)


cdef inline void check_wired(const Limits *limits) noexcept nogil:
    if CHECKING:
        holds(limits.wired <= limits.wired_limit, b"wired is within the wired limit",
              limits.wired, limits.wired_limit)


cdef void take_out(Residency *residency, Resource *leaving) noexcept nogil:
    """Removes resources, linked through next_wiring. They are wired until the commit."""
    cdef Resource *resource = leaving
    cdef uint64_t commits
    if leaving == NULL:
        return
    while resource != NULL:
        sets_remove(&residency.sets, resource)
        resource = resource.next_wiring
    sets_commit(&residency.sets, &commits)
    pthread_mutex_lock(&residency.heaps.lock)
    residency.limits.commits += commits
    while leaving != NULL:
        leaving.wiring = OUTSIDE
        residency.limits.wired -= leaving.bytes
        leaving = leaving.next_wiring
    tell_others(residency)
    check_wired(residency.limits)
    pthread_mutex_unlock(&residency.heaps.lock)


cdef bint put_in(Residency *residency, Resource *joining) noexcept nogil:
    """Adds resources, linked through next_wiring. False: some failed, and are counted."""
    cdef Resource *resource = joining
    cdef bint complete = True
    cdef uint64_t commits
    if joining == NULL:
        return True
    while resource != NULL:
        sets_add(&residency.sets, resource)
        complete = complete and resource.residency_set != NO_SET
        resource = resource.next_wiring
    complete = sets_commit(&residency.sets, &commits) and complete
    resource = joining
    while not complete and resource != NULL:
        sets_recheck(&residency.sets, resource)
        resource = resource.next_wiring
    pthread_mutex_lock(&residency.heaps.lock)
    residency.limits.commits += commits
    while joining != NULL:
        if joining.residency_set == NO_SET:
            joining.wiring = OUTSIDE
            residency.limits.wired -= joining.bytes
            count_refusal(residency.limits, joining)
        else:
            residency.limits.wires += 1
            joining.wiring = INSIDE
        joining = joining.next_wiring
    tell_others(residency)
    if not complete:
        # The system gives no more than this. Nothing beyond is tried until the limit is set again.
        residency.allowed = residency.limits.wired
    pthread_mutex_unlock(&residency.heaps.lock)
    return complete


cdef bint try_to_wire(
    Residency *residency, Resource *fresh, uint64_t limit
) noexcept nogil:
    """The limit is lowered after what is too much has left: wired stays below."""
    cdef uint64_t allowed = min(limit, residency.allowed)
    cdef Resource *leaving
    cdef Resource *joining
    heaps_stop(residency.heaps)
    leaving = plan_removals(residency, fresh, allowed)
    heaps_resume(residency.heaps)
    take_out(residency, leaving)
    heaps_stop(residency.heaps)
    residency.limits.wired_limit = limit
    residency.heaps.splits = residency.heaps.splits and limit == 0
    joining = plan_additions(residency, fresh, allowed)
    check_wired(residency.limits)
    heaps_resume(residency.heaps)
    return put_in(residency, joining)


cdef void bring_in_line(
    Residency *residency, Resource *fresh, uint64_t limit
) noexcept nogil:
    """Under the mutex."""
    if not try_to_wire(residency, fresh, limit):
        # The system gives less than was thought. What was asked for goes first in that, too.
        try_to_wire(residency, fresh, limit)
    if limit:
        sets_attach(&residency.sets)


cdef void residency_update(Residency *residency, Resource *fresh) noexcept nogil:
    pthread_mutex_lock(&residency.mutex)
    bring_in_line(residency, fresh, residency.limits.wired_limit)
    pthread_mutex_unlock(&residency.mutex)


cdef void forget_refusals(Residency *residency) noexcept nogil:
    cdef Resource *resource
    pthread_mutex_lock(&residency.heaps.lock)
    residency.allowed = residency.capacity
    resource = residency.resources[0]
    while resource != NULL:
        resource.wire_refused = False
        resource = resource.below
    pthread_mutex_unlock(&residency.heaps.lock)


cdef void residency_set_limit(Residency *residency, uint64_t limit) noexcept nogil:
    pthread_mutex_lock(&residency.mutex)
    forget_refusals(residency)
    bring_in_line(residency, NULL, limit)
    pthread_mutex_unlock(&residency.mutex)


cdef void residency_release(Residency *residency, Resource *detached) noexcept nogil:
    cdef Resource *leaving = NULL
    pthread_mutex_lock(&residency.mutex)
    pthread_mutex_lock(&residency.heaps.lock)
    while detached != NULL:
        if detached.wiring == INSIDE:
            mark_leaving(&leaving, detached)
        detached = detached.next
    pthread_mutex_unlock(&residency.heaps.lock)
    take_out(residency, leaving)
    pthread_mutex_unlock(&residency.mutex)


cdef Attached residency_attach(
    Residency *residency, mlim_queue *handle, uint64_t address
) noexcept nogil:
    cdef Attached attached = ATTACHED
    pthread_mutex_lock(&residency.mutex)
    if sets_find_queue(&residency.sets, address) != NULL:
        attached = ATTACHED_BEFORE
    elif not sets_add_queue(&residency.sets, handle, address):
        attached = NOT_ATTACHED
    elif residency.limits.wired_limit:
        sets_attach(&residency.sets)
    pthread_mutex_unlock(&residency.mutex)
    return attached


cdef void residency_detach(Residency *residency, uint64_t address) noexcept nogil:
    cdef Queue *queue
    pthread_mutex_lock(&residency.mutex)
    queue = sets_find_queue(&residency.sets, address)
    if queue != NULL:
        sets_remove_queue(&residency.sets, queue)
    pthread_mutex_unlock(&residency.mutex)


cdef void residency_forget(Residency *residency) noexcept nogil:
    cdef Resource *resource = residency.resources[0]
    pthread_mutex_init(&residency.mutex, NULL)
    sets_close(&residency.sets)
    while resource != NULL:
        resource.wiring = OUTSIDE
        resource = resource.below
    residency.limits.wired = 0
    residency.limits.wired_limit = 0
