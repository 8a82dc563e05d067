from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._device.mlim cimport (
    MLIM_NO_MEMORY, MLIM_OK, mlim_buffer_contents, mlim_buffer_resize, mlim_status,
)
from memlimits._engine.core cimport (
    core_longest, core_resume, core_settle, core_stop, core_tell, core_tell_now,
)
from memlimits._engine.growth cimport growth_reserve
from memlimits._engine.parts cimport parts_extend, parts_take
from memlimits._engine.system_room cimport Reading, room_end
from memlimits._heap.bins cimport bin_of
from memlimits._heap.cache cimport (
    Cache, cache_give_more, cache_growth, cache_least_growth, cache_mapped,
)
from memlimits._heap.heap cimport heap_unclaim
from memlimits._heap.pagemap cimport pagemap_add, pagemap_remove, pagemap_spare
from memlimits._heap.resource cimport OUTSIDE, PART, RESIZING, TAKEN, resource_given
from memlimits._ledger.limits cimport (
    NOTHING, limits_cancel, limits_confirm, limits_forget, limits_leave, limits_returned,
)
from memlimits._residency.plan cimport residency_update

cdef enum:
    RESIZE_FROM = 512 << 10     # below, copying is faster
    PARTS_FROM = 8 << 10        # below, whole pages would waste too much
    HUGE_PAGE = 2 << 20
    # The pages of what is shorter are small ones: it is copied once, into huge ones.
    HUGE_ABOVE = 4 << 20


cdef bint may_resize(const Core *core, const Resource *resource, uint64_t bytes) noexcept nogil:
    """What its caller knows without the lock."""
    return (
        core.limits.resizes and not core.heaps.lost
        and resource.block_size == 0 and resource.shift == 0
        and RESIZE_FROM <= min(resource_given(resource), bytes) and bytes <= core_longest(core))


cdef bint can_resize(const Resource *resource, uint64_t bytes) noexcept nogil:
    """Under the lock. A part has another way to grow, up to its end, and is not made shorter."""
    return (
        resource.wiring == OUTSIDE and not resource.lingers and not resource.inherited
        and (resource.use != PART or resource.bytes < bytes and resource.taker == NULL)
        and not resource.bytes < HUGE_ABOVE < bytes)


cdef bint begin(Core *core, Resource *resource, uint64_t bytes) noexcept nogil:
    """From now on nobody wires it. False: it has to stay as it is."""
    cdef bint can
    pthread_mutex_lock(&core.heaps.lock)
    can = can_resize(resource, bytes)
    if can:
        resource.given = resource_given(resource)
        resource.use = RESIZING
    pthread_mutex_unlock(&core.heaps.lock)
    return can


cdef void leave_place(Core *core, Resource *resource) noexcept nogil:
    """Under the lock. Its pages may be another's from now on: nobody looks at them."""
    resource.moves = True
    # Who does just now may find something else in its place.
    core.limits.grown += resource.bytes
    limits_forget(&core.limits, resource.bytes)
    resource.looked_at = False


cdef void end(Core *core, Resource *resource) noexcept nogil:
    cdef bint wire
    pthread_mutex_lock(&core.heaps.lock)
    resource.moves = False
    resource.use = TAKEN if resource.given == resource.bytes else PART
    wire = core.limits.wired_limit > 0
    pthread_mutex_unlock(&core.heaps.lock)
    if wire:
        residency_update(&core.residency, resource)
        core_tell_now(core)


cdef void set_length(Resource *resource, uint64_t bytes) noexcept nogil:
    resource.given = resource.bytes = bytes
    resource.bin = bin_of(bytes)


cdef Resized make_longer(
    Core *core, Resource *resource, uint64_t growth, bint overrun
) noexcept nogil:
    """With the growth reserved. Nobody looks the block up: its caller waits here."""
    cdef uint64_t bytes = resource.bytes + growth
    cdef mlim_status status = MLIM_NO_MEMORY
    cdef void *spare
    pthread_mutex_lock(&core.heaps.lock)
    spare = pagemap_spare(&core.pages)
    leave_place(core, resource)
    pagemap_remove(&core.pages, resource, cache_mapped(core.page_size, resource.bytes))
    pthread_mutex_unlock(&core.heaps.lock)
    if spare != NULL:
        status = mlim_buffer_resize(core.device, resource.buffer, bytes, NULL)
    core_stop(core)
    if status == MLIM_OK:
        resource.base = <char *> mlim_buffer_contents(resource.buffer)
        cache_give_more(<Cache *> resource.home, resource, resource.bytes)
        set_length(resource, bytes)
        limits_confirm(&core.limits, growth, overrun)
    else:
        limits_cancel(&core.limits, growth)
    pagemap_add(&core.pages, resource, cache_mapped(core.page_size, resource.bytes), spare)
    core_settle(core)
    core_resume(core, status == MLIM_OK)
    return RESIZED if status == MLIM_OK else NOT_RESIZED


cdef uint64_t wished_for(const Core *core, uint64_t bytes) noexcept nogil:
    """Whole huge pages, where that wastes little: short steps then seldom reach the device."""
    cdef uint64_t longer = cache_growth(&core.heaps.shared.cache, bytes)
    if bytes >= 8 * HUGE_PAGE:
        longer = (longer + HUGE_PAGE - 1) & ~<uint64_t> (HUGE_PAGE - 1)
    return longer if longer <= core_longest(core) else bytes


cdef Resized grow(
    Core *core, Resource *resource, uint64_t bytes, uint64_t n, WaitHooks *hooks
) noexcept nogil:
    cdef uint64_t growth = wished_for(core, bytes) - resource.bytes
    cdef bint overrun
    cdef Reading reading
    cdef Resized resized
    if growth_reserve(
        core, n, bytes - resource.bytes, hooks, &growth, &overrun, &reading
    ) != NOTHING:
        return REFUSED
    resized = make_longer(core, resource, growth, overrun)
    room_end(core, &reading)
    return resized


cdef Resized shrink(Core *core, Resource *resource, uint64_t bytes) noexcept nogil:
    cdef uint64_t returned = resource.bytes - bytes
    pthread_mutex_lock(&core.heaps.lock)
    leave_place(core, resource)
    set_length(resource, bytes)
    limits_leave(&core.limits, returned)
    heap_unclaim(&core.heaps, returned)
    pthread_mutex_unlock(&core.heaps.lock)
    mlim_buffer_resize(core.device, resource.buffer, bytes, NULL)
    pthread_mutex_lock(&core.heaps.lock)
    limits_returned(&core.limits, 0, returned)
    core_settle(core)
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)
    return RESIZED


cdef bint resize_with_idle(
    Core *core, Resource *resource, void *start, uint64_t n, Block *block
) noexcept nogil:
    cdef uint64_t least = n
    if parts_extend(core, resource, n):
        block.start = <char *> start
        return True
    # What can be resized is copied where more than that is new: a byte of either takes as long.
    if resource.block_size == 0 and resource_given(resource) >= RESIZE_FROM:
        least = max(n, 2 * resource_given(resource))
    return n > PARTS_FROM and parts_take(core, n, least, block)


cdef Resized resize_resource(
    Core *core, Resource *resource, uint64_t n, WaitHooks *hooks, uint64_t *before
) noexcept nogil:
    cdef uint64_t bytes = cache_least_growth(core.page_size, n)
    cdef Resized resized
    if not may_resize(core, resource, bytes) or not begin(core, resource, bytes):
        return NOT_RESIZED
    before[0] = resource.bytes
    if bytes > resource.bytes:
        resized = grow(core, resource, bytes, n, hooks)
    else:
        resized = shrink(core, resource, bytes)
    end(core, resource)
    return resized
