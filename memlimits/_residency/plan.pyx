from libc.stdint cimport UINT64_MAX, uintptr_t

from memlimits._base.arithmetic cimport saturating_sub
from memlimits._base.sync cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    store_count,
)
from memlimits._device.mlim cimport (
    MLIM_OK, mlim_buffer_is_registered, mlim_claim, mlim_cuda_why, mlim_device_claim,
    mlim_device_register_with, mlim_device_unclaim, mlim_range, mlim_sizes,
)
from memlimits._device.readings cimport device_sizes, device_touched
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
    residency.lockable = residency.capacity = residency.allowed = capacity
    residency.cuda = NULL
    residency.registers = 0
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
        if leaving.registered:
            leaving.registered = False
            residency.limits.registered -= leaving.bytes
        leaving = leaving.next_wiring
    tell_others(residency)
    check_wired(residency.limits)
    pthread_mutex_unlock(&residency.heaps.lock)


# ---- registering takes every page at once, and what the system lacks then kills the process ----

cdef inline uint64_t taken_by(uint64_t untouched, uint64_t bytes) noexcept nogil:
    """With what the driver and the kernel note of each page."""
    return untouched + bytes // 128


cdef uint64_t room_now(Residency *residency, bint closely) noexcept nogil:
    """What the system can give at this moment, less what is left to the program. Under no lock."""
    cdef mlim_sizes sizes
    cdef uint64_t margin
    pthread_mutex_lock(&residency.heaps.lock)
    sizes.assured = residency.limits.assured
    margin = residency.limits.margin
    pthread_mutex_unlock(&residency.heaps.lock)
    # What cannot be read now is taken to be as it was.
    device_sizes(residency.sets.device, closely, &sizes, NULL)
    return saturating_sub(sizes.assured, margin)


cdef uint64_t bytes_of(const Resource *joining) noexcept nogil:
    cdef uint64_t bytes = 0
    while joining != NULL:
        bytes += taken_by(joining.bytes, joining.bytes)
        joining = joining.next_wiring
    return bytes


cdef uint64_t untouched(Residency *residency, const Resource *resource) noexcept nogil:
    cdef mlim_range pages
    cdef uint64_t touched = 0
    pages.start = <uintptr_t> resource.base
    pages.end = <uintptr_t> resource.base + resource.bytes
    if device_touched(residency.sets.device, &pages, 1, &touched) != MLIM_OK:
        return resource.bytes
    return saturating_sub(resource.bytes, touched)


cdef void admit_closely(Residency *residency, Resource *joining, mlim_claim *claim) noexcept nogil:
    """What there is no room for has NO_SET. No other process takes what this found, until the end
    of the claim."""
    cdef uint64_t room, needed
    mlim_device_claim(residency.sets.device, claim)
    room = room_now(residency, True)
    while joining != NULL:
        needed = taken_by(untouched(residency, joining), joining.bytes)
        if needed <= room:
            room -= needed
        else:
            joining.residency_set = NO_SET
        joining = joining.next_wiring


cdef bint admit(Residency *residency, Resource *joining, mlim_claim *claim) noexcept nogil:
    """Whether a claim is to be ended afterwards."""
    cdef Resource *resource = joining
    while resource != NULL:
        resource.residency_set = 0
        resource = resource.next_wiring
    if residency.cuda == NULL or bytes_of(joining) <= room_now(residency, False) // 2:
        return False
    admit_closely(residency, joining, claim)
    return True


cdef void count_registration(Residency *residency, Resource *resource) noexcept nogil:
    """Under the lock, of what is inside now."""
    if residency.cuda == NULL:
        return
    resource.registered = mlim_buffer_is_registered(resource.buffer)
    if resource.registered:
        residency.limits.registered += resource.bytes
        residency.limits.registrations += 1
    else:
        residency.limits.registration_failures += 1


cdef bint put_in(Residency *residency, Resource *joining) noexcept nogil:
    """Adds resources, linked through next_wiring. False: some failed, and are counted."""
    cdef Resource *resource = joining
    cdef mlim_claim claim
    cdef bint claims, complete = True
    cdef uint64_t commits
    if joining == NULL:
        return True
    claims = admit(residency, joining, &claim)
    while resource != NULL:
        if resource.residency_set != NO_SET:
            sets_add(&residency.sets, resource)
        complete = complete and resource.residency_set != NO_SET
        resource = resource.next_wiring
    complete = sets_commit(&residency.sets, &commits) and complete
    if claims:
        mlim_device_unclaim(residency.sets.device, &claim)
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
            residency.limits.registration_failures += residency.cuda != NULL
        else:
            residency.limits.wires += 1
            joining.wiring = INSIDE
            count_registration(residency, joining)
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


# ---- a GPU's driver ----

cdef Resource *plan_removal_of_all(Residency *residency) noexcept nogil:
    """While stopped."""
    cdef Resource *leaving = NULL
    cdef Resource *resource = residency.resources[0]
    while resource != NULL:
        if resource.wiring == INSIDE:
            mark_leaving(&leaving, resource)
        resource = resource.below
    return leaving


cdef void set_cuda(Residency *residency, mlim_cuda *cuda) noexcept nogil:
    """While nothing is in a set."""
    residency.cuda = cuda
    mlim_device_register_with(residency.sets.device, cuda)
    store_count(&residency.registers, cuda != NULL)
    # The driver asks no limit on what is locked.
    residency.capacity = residency.lockable if cuda == NULL else UINT64_MAX


cdef void change_cuda(Residency *residency, mlim_cuda *cuda) noexcept nogil:
    """Under the mutex."""
    cdef Resource *leaving
    heaps_stop(residency.heaps)
    leaving = plan_removal_of_all(residency)
    heaps_resume(residency.heaps)
    take_out(residency, leaving)
    set_cuda(residency, cuda)
    forget_refusals(residency)
    bring_in_line(residency, NULL, residency.limits.wired_limit)


cdef Attached residency_register(Residency *residency, mlim_cuda *cuda) noexcept nogil:
    cdef Attached attached = ATTACHED_BEFORE
    pthread_mutex_lock(&residency.mutex)
    if residency.cuda == NULL:
        attached = ATTACHED
        change_cuda(residency, cuda)
    pthread_mutex_unlock(&residency.mutex)
    return attached


cdef mlim_cuda *residency_unregister(Residency *residency) noexcept nogil:
    cdef mlim_cuda *cuda
    pthread_mutex_lock(&residency.mutex)
    cuda = residency.cuda
    if cuda != NULL:
        change_cuda(residency, NULL)
    pthread_mutex_unlock(&residency.mutex)
    return cuda


cdef bint residency_why_not(Residency *residency, mlim_error *out) noexcept nogil:
    cdef bint registers
    pthread_mutex_lock(&residency.mutex)
    registers = residency.cuda != NULL
    if registers:
        mlim_cuda_why(residency.cuda, out)
    pthread_mutex_unlock(&residency.mutex)
    return registers


cdef void residency_forget(Residency *residency) noexcept nogil:
    cdef Resource *resource = residency.resources[0]
    pthread_mutex_init(&residency.mutex, NULL)
    # The driver does not survive a fork: no call of it, and what its handle has stays.
    set_cuda(residency, NULL)
    sets_close(&residency.sets)
    while resource != NULL:
        resource.wiring = OUTSIDE
        resource.registered = False
        resource = resource.below
    residency.limits.wired = 0
    residency.limits.registered = 0
    residency.limits.wired_limit = 0
