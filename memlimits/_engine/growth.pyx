from libc.stdint cimport INT64_MAX, UINT64_MAX, int64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC

from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport (
    load_count, pthread_mutex_lock, pthread_mutex_unlock, store_count, time_of,
)
from memlimits._device.mlim cimport (
    MLIM_NO_MEMORY, MLIM_NO_RESOURCES, MLIM_OK, mlim_buffer, mlim_buffer_create,
    mlim_buffer_resize, mlim_buffer_set_purgeable, mlim_status,
)
from memlimits._engine.controls cimport controls_read_sizes
from memlimits._engine.core cimport (
    LONGEST_SPLIT, core_detach, core_give_back, core_hit_fine, core_hit_slow_path, core_hold,
    core_longest, core_note_tight, core_resume, core_return, core_settle, core_stock, core_stop,
    core_take_out, core_tell, core_tell_now,
)
from memlimits._engine.decay cimport decay_step
from memlimits._engine.members cimport members_step
from memlimits._engine.parts cimport parts_cut, parts_make_room
from memlimits._engine.pressure cimport pressure_step
from memlimits._engine.record cimport record_step
from memlimits._engine.refusals cimport refusals_add, refusals_add_waiter
from memlimits._engine.system_room cimport (
    Reading, room_end, room_extend_credit, room_look, room_read, room_read_ahead,
    room_retry,
)
from memlimits._engine.waiting cimport (
    waiter_init, waiter_is_blocked, waiter_leave, waiter_may_go, waiter_waits,
)
from memlimits._heap.bins cimport bins_find
from memlimits._heap.cache cimport (
    LARGEST_SLAB_BLOCK, cache_add, cache_coarse, cache_find_purgeable, cache_growth,
    cache_least_growth, cache_mapped, cache_remove, cache_serve, cache_serve_fresh,
)
from memlimits._heap.heap cimport (
    BOUND, DONE, EMPTY, Heap, Outcome, heap_absorb, heap_alloc_longer, heap_begins, heap_detach,
    heap_find, heap_join, heap_mine, heap_of, heap_serve_fresh, heap_split, heaps_any_ended,
    heaps_are_bounded, heaps_are_full, heaps_highest, heaps_left, heaps_takers,
)
from memlimits._heap.heaps cimport (
    heaps_ahead, heaps_even_up, heaps_growth, heaps_keep_least, heaps_lock_all, heaps_steal,
)
from memlimits._heap.pagemap cimport pagemap_add, pagemap_reach
from memlimits._heap.resource cimport (
    Resource, resource_adopt, resource_destroy, resource_new, resource_split,
)
from memlimits._heap.split cimport cache_split
from memlimits._ledger.limits cimport (
    DEVICE, FORK, LENGTH, LONG_GROWTH, NOTHING, RESOURCES, SYSTEM, Limits, limits_add_unfaulted,
    limits_cancel, limits_confirm, limits_cuts, limits_easy_growth, limits_keep_back,
    limits_longest, limits_reserve, limits_set_aside, limits_splits, limits_unreserved,
    limits_widen,
)
from memlimits._ledger.queue cimport Waiter
from memlimits._ledger.share cimport (
    share_draw, share_take, share_take_ahead, share_take_units,
)
from memlimits._residency.plan cimport residency_update

cdef enum:
    AGED_A_STEP = 64 << 20      # becomes purgeable at one miss, which takes up to 3 ms
    LONGEST_AHEAD = 512 << 10   # of which more is mapped than is asked for

cdef struct Plan:
    Reading reading         # for room_end, once the growth is mapped
    Resource *kept          # purgeable until now, to serve the request when the device has it back
    Resource *detached      # or else: to be given back before the growth
    bint overrun


# ---- what is idle in any heap ----

cdef Resource *find_in(Heap *heap, uint64_t n, uint64_t longest, bint apart) noexcept nogil:
    """While stopped."""
    cdef Resource *found
    if longest:
        return bins_find(&heap.cache.bins, n, longest)
    found = heap_find(heap, n, apart)
    if found == NULL and heap.heaps.splits and heaps_are_full(heap.heaps, n):
        found = cache_split(
            &heap.cache, cache_growth(&heap.cache, n),
            cache_least_growth(heap.cache.page_size, n), UINT64_MAX)
    return found


cdef bint spares_beginners(const Core *core, uint64_t n, const Heap *heap) noexcept nogil:
    """Under the lock: threads that begin have what is kept back. It is not for who starts them."""
    return not heap_begins(heap) and (
        core.limits.footprint + n > limits_unreserved(&core.limits, n, 0))


cdef Resource *find_elsewhere(Core *core, uint64_t n, uint64_t longest) noexcept nogil:
    """While stopped: an idle resource of another heap moves to this one; or a slab stays there."""
    cdef Heap *heap = &core.heaps.shared
    cdef Resource *found = NULL
    cdef bint spares = spares_beginners(core, n, core.stopper)
    while heap != NULL and found == NULL:
        if heap != core.stopper:
            found = find_in(
                heap, n, longest,
                core.stopper == &core.heaps.shared or spares and heap_begins(heap))
        if found != NULL and found.block_size == 0:
            cache_remove(&heap.cache, found)
            cache_add(&core.stopper.cache, found)
        heap = heap.next
    core.limits.steals += found != NULL
    return found


cdef bint hit(Core *core, uint64_t n, uint64_t longest, Block *block) noexcept nogil:
    """While stopped: from whatever any heap has; of `longest` bytes at most, if that is not 0."""
    cdef Resource *found = find_in(core.stopper, n, longest, False)
    if found == NULL:
        found = find_elsewhere(core, n, longest)
    if found == NULL:
        return False
    cache_serve(&heap_of(found).cache, found, n, block)
    core.limits.hits += 1
    return True


cdef bint growth_could_hit(Core *core, uint64_t n, bint apart) noexcept nogil:
    cdef Heap *heap = &core.heaps.shared
    while heap != NULL:
        if heap_find(heap, n, apart) != NULL:
            return True
        heap = heap.next
    return False


cdef Resource *find_purgeable(Core *core, uint64_t n) noexcept nogil:
    """While stopped: the device is to be asked for it back."""
    cdef Heap *heap = &core.heaps.shared
    cdef Resource *found = NULL
    while core.purgeable and heap != NULL and found == NULL:
        found = cache_find_purgeable(&heap.cache, n)
        heap = heap.next
    return found


cdef bint take_ended(Core *core, uint64_t n, Block *block) noexcept nogil:
    """From what threads left that have ended, a heap at a time."""
    cdef Heap *mine = heap_mine(&core.heaps)
    while mine != &core.heaps.shared and heaps_any_ended(&core.heaps):
        pthread_mutex_lock(&core.heaps.lock)
        heap_absorb(mine)
        pthread_mutex_unlock(&core.heaps.lock)
        if core_hit_fine(core, n, block):
            return True
    return False


cdef bint steal(
    Core *core, uint64_t n, uint64_t growth, uint64_t longest, Block *block
) noexcept nogil:
    """From one heap after another, where none has to stop for it."""
    cdef Heap *mine = heap_mine(&core.heaps)
    cdef Outcome outcome = EMPTY
    cdef bint full = heaps_are_full(&core.heaps, n)
    cdef uint64_t now, start = time_of(CLOCK_MONOTONIC)
    pthread_mutex_lock(&core.heaps.lock)
    core.limits.begins = heap_begins(mine)
    core_stock(core, mine)
    if core.queue == NULL:
        outcome = heaps_steal(
            mine, n, growth if full else 0, longest, spares_beginners(core, n, mine), block)
    core.limits.hits += outcome == DONE
    core.limits.steals += outcome != EMPTY
    now = time_of(CLOCK_MONOTONIC)
    limits_widen(&core.limits, growth, heaps_takers(&core.heaps), now - start, now)
    pthread_mutex_unlock(&core.heaps.lock)
    if outcome == BOUND and full:
        outcome = heap_split(&core.heaps, n, growth, UINT64_MAX, block)
    return outcome == DONE


# ---- growth ----

cdef bint is_easy(const Core *core, uint64_t growth, uint64_t more) noexcept nogil:
    """Under the lock: whether growth is far from every limit, and needs nothing of other heaps.

    With room for `more` behind it.
    """
    cdef uint64_t footprint = core.limits.footprint + growth + more
    return core.purgeable == 0 and core.queue == NULL and (
        footprint <= limits_easy_growth(
            &core.limits, growth, heaps_takers(&core.heaps), heaps_are_bounded(&core.heaps)))


cdef uint64_t max_instead(const Core *core, uint64_t n) noexcept nogil:
    """Under the lock: how long what serves n bytes may be instead of growth, or 0."""
    if n <= LARGEST_SLAB_BLOCK:
        return 0
    return limits_longest(&core.limits, n, heaps_takers(&core.heaps))


cdef uint64_t ahead(Core *core, Heap *heap, uint64_t growth) noexcept nogil:
    """Under the lock: how many bytes to map with easy growth, to be split later.

    In a pool they are used from now on.
    """
    cdef uint64_t more
    if (
        growth > LONGEST_AHEAD or not limits_splits(&core.limits) or core.limits.leans
    ):
        return 0
    more = heaps_ahead(heap) // growth * growth     # whole pages
    # With room for as much again, or it would soon be in the way.
    if not is_easy(core, growth, 2 * more) or growth + more > core.limits.credit:
        return 0
    return more if share_take_ahead(&core.limits, &core.pool, growth + more) else 0


cdef bint reserve_easily(
    Core *core, uint64_t n, uint64_t growth, uint64_t *more, uint64_t *longest
) noexcept nogil:
    """Growth for which other heaps need not stop, and `more` ahead; they keep what they have.

    Else `longest`: what may serve instead and makes no peak, 0 for nothing.
    """
    cdef bint easy
    cdef int64_t full_from = INT64_MAX
    cdef uint64_t want
    cdef Heap *mine = heap_mine(&core.heaps)
    more[0] = 0
    pthread_mutex_lock(&core.heaps.lock)
    want = share_draw(&core.limits, &core.pool, growth, 0, False)
    core.limits.highest = heaps_highest(&core.heaps)
    core_note_tight(core)
    easy = is_easy(core, growth, 0) and (
        growth <= core.limits.credit
        or room_extend_credit(core, growth) and is_easy(core, growth, 0))
    if easy and share_take_units(&core.limits, &core.pool, want):
        if n:
            more[0] = ahead(core, mine, growth)
        limits_reserve(&core.limits, growth + more[0], 0)
    else:
        easy = False
    if not easy and limits_cuts(&core.limits):
        if core.limits.footprint + growth > limits_unreserved(&core.limits, growth, 0):
            full_from = 0
        elif not core.limits.leans:
            full_from = LONG_GROWTH
    if load_count(&core.heaps.full_from) != full_from:
        store_count(&core.heaps.full_from, full_from)
    if not easy:
        longest[0] = min(max_instead(core, n), heaps_left(&core.heaps))
    pthread_mutex_unlock(&core.heaps.lock)
    return easy


cdef void plan_init(Plan *plan) noexcept nogil:
    memset(plan, 0, sizeof(Plan))
    plan.reading.takes = True


cdef bint decide(
    Core *core, uint64_t growth, Waiter *waiter, Plan *plan, Blocker *blocker
) noexcept nogil:
    """The last look and the reservation in one step."""
    cdef uint64_t trim, returned
    share_draw(&core.limits, &core.pool, growth, waiter.own, waiter.passes)
    parts_make_room(core, growth, waiter.own)
    if not room_look(core, growth, waiter.own, &plan.reading, &trim, blocker):
        return False
    if blocker[0] == SYSTEM and parts_cut(core):
        return False
    if not waiter_is_blocked(core, waiter, growth, blocker):
        if not share_take(&core.limits, &core.pool, growth, trim, waiter.own):
            room_retry(core, &plan.reading, blocker)
            return waiter_is_blocked(core, waiter, growth, blocker)
        limits_keep_back(&core.limits, growth, &trim)
        plan.detached = core_take_out(core, trim, &returned)
        limits_widen(
            &core.limits, growth, heaps_takers(&core.heaps), returned, time_of(CLOCK_MONOTONIC))
        plan.overrun = limits_reserve(&core.limits, growth, returned) or plan.reading.overruns
        core.limits.reserved -= waiter.own
        waiter.own = 0
    return True


cdef Blocker reserve(
    Core *core, uint64_t n, uint64_t growth, Waiter *waiter, Plan *plan, Block *block
) noexcept nogil:
    """While stopped, with pauses: a hit after all, a purgeable resource, or room to grow.

    What is `kept`, or the growth, is pending then.
    """
    cdef Limits *limits = &core.limits
    cdef Resource *kept
    cdef Blocker blocker
    cdef uint64_t longest, short_by
    cdef bint may_go, keep = True
    while True:
        may_go = waiter_may_go(core, waiter)
        if may_go and hit(core, n, 0, block):
            return NOTHING
        kept = find_purgeable(core, n) if may_go and keep else NULL
        if kept != NULL:
            # The system may have its pages: to it, this is growth.
            if not room_read(core, kept.bytes, &plan.reading, &short_by):
                continue
            keep = short_by == 0 and plan.reading.over == 0
            if keep:
                heap_detach(&core.heaps, kept)
                kept.purgeable = False
                kept.lingers = core.purgeable_lingers
                limits_set_aside(limits, kept.bytes)
                limits_add_unfaulted(limits, kept.bytes)
                limits.hits += 1
                plan.kept = kept
                return NOTHING
        longest = min(max_instead(core, n), limits.highest - limits.active)
        if may_go and longest >= n and hit(core, n, longest, block):
            return NOTHING
        if decide(core, growth, waiter, plan, &blocker):
            return blocker


cdef Blocker reserve_growth(Core *core, uint64_t growth, Waiter *waiter, Plan *plan) noexcept nogil:
    cdef Blocker blocker
    plan_init(plan)
    room_read_ahead(core, growth, &plan.reading)
    core_stop(core)
    while not decide(core, growth, waiter, plan, &blocker):
        pass
    core_resume(core, False)
    return blocker


cdef Blocker growth_reserve(
    Core *core, uint64_t n, uint64_t least, WaitHooks *hooks, uint64_t *growth, bint *overrun,
    Reading *reading
) noexcept nogil:
    cdef Plan plan
    cdef Waiter waiter
    cdef Blocker blocker
    cdef uint64_t waited, _more, _longest
    overrun[0] = False
    memset(reading, 0, sizeof(Reading))
    decay_step(core, AGED_A_STEP)
    members_step(core, growth[0])
    record_step(core)
    if reserve_easily(core, 0, growth[0], &_more, &_longest):
        return NOTHING
    growth[0] = least
    # What is held already stays where it is meanwhile.
    waiter_init(&waiter, cache_least_growth(core.page_size, n), True)
    waiter.grows, waiter.passes = least, hooks.never_waits
    while True:
        blocker = reserve_growth(core, least, &waiter, &plan)
        if blocker != NOTHING:
            room_end(core, &plan.reading)
        if blocker == NOTHING or not waiter_waits(core, &waiter, hooks, blocker):
            break
    waited = waiter_leave(core, &waiter)
    if blocker != NOTHING:
        return refusals_add_waiter(core, n, blocker, &waiter, waited)
    if plan.detached != NULL:
        core_give_back(core, plan.detached, least)
    overrun[0] = plan.overrun
    reading[0] = plan.reading
    return NOTHING


cdef mlim_status make_once(Core *core, uint64_t growth, mlim_buffer **buffer) noexcept nogil:
    cdef mlim_status status
    own_begin()
    status = mlim_buffer_create(core.device, growth, buffer, NULL)
    own_end()
    return status


cdef mlim_status make(Core *core, uint64_t growth, mlim_buffer **buffer) noexcept nogil:
    """Asks the device; when it refuses, returns the whole cache and asks once more."""
    cdef mlim_status status = make_once(core, growth, buffer)
    cdef Resource *detached
    if status == MLIM_OK:
        return status
    core_stop(core)
    detached = core_detach(core, UINT64_MAX)
    core_resume(core, False)
    if detached == NULL:
        return status
    core_return(core, detached)
    return make_once(core, growth, buffer)


cdef void serve_fresh(Core *core, Resource *fresh, uint64_t n, Block *block) noexcept nogil:
    """Under the lock, which it gives back: a resource whose bytes are not pending any more."""
    cdef Heap *mine = core.stopper
    cdef bint wire = core.limits.wired_limit > 0
    core_settle(core)
    if heap_serve_fresh(mine, fresh, n, block):
        core_tell(core)
        pthread_mutex_unlock(&core.heaps.lock)
    else:
        # Other threads may take from this heap, too, and have not found it.
        heaps_lock_all(&core.heaps)
        heaps_keep_least(&core.heaps)
        cache_serve_fresh(&mine.cache, fresh, n, block)
        core_resume(core, True)
    if wire:
        residency_update(&core.residency, fresh)
        core_tell_now(core)


cdef void lock_for_mine(Core *core) noexcept nogil:
    """The lock, with `stopper` as core_stop sets it."""
    cdef Heap *mine = heap_mine(&core.heaps)
    pthread_mutex_lock(&core.heaps.lock)
    core.stopper = mine


cdef void use_kept(Core *core, uint64_t n, Resource *kept, Block *block) noexcept nogil:
    """Serves n bytes from a purgeable resource, once the device has it back."""
    mlim_buffer_set_purgeable(kept.buffer, False, NULL)
    lock_for_mine(core)
    limits_confirm(&core.limits, kept.bytes, False)
    serve_fresh(core, kept, n, block)


cdef Resource *cut(Core *core, Resource *resource, uint64_t growth) noexcept nogil:
    """What lies behind its first `growth` bytes. NULL: there is nothing, or it went back."""
    cdef Resource *rest
    if resource.bytes == growth:
        return NULL
    rest = resource_new()
    if rest != NULL and resource_split(resource, growth, rest):
        return rest
    resource_destroy(rest)
    mlim_buffer_resize(core.device, resource.buffer, growth, NULL)
    resource.bytes = growth
    return NULL


cdef bint hold(Core *core, Resource *resource) noexcept nogil:
    """Under the lock: it is in the map, and the core's. False without memory."""
    cdef uint64_t mapped = cache_mapped(core.page_size, resource.bytes)
    # What is split off it later is to be mapped without fail.
    if not pagemap_reach(&core.pages, resource.base, resource.bytes) or (
        pagemap_add(&core.pages, resource, mapped, NULL) != 0
    ):
        return False
    core_hold(core, resource)
    return True


cdef bint hold_ahead(Core *core, Resource *resource) noexcept nogil:
    """Under the lock: what was made ahead becomes idle here, unless that is bounded by now."""
    if heaps_are_bounded(&core.heaps) or not hold(core, resource):
        limits_cancel(&core.limits, resource.bytes)
        return False
    limits_confirm(&core.limits, resource.bytes, False)
    resource.mixed = True
    heap_join(core.stopper, resource)
    return True


cdef bint use_idle(Core *core, uint64_t n, uint64_t growth, Block *block) noexcept nogil:
    """Without Heaps.lock: from what is idle here; and elsewhere, once there is no room to grow."""
    cdef bint full = heaps_are_full(&core.heaps, n)
    cdef uint64_t longest = LONGEST_SPLIT if load_count(&core.heaps.tight) else 0
    cdef Outcome outcome = heap_split(
        &core.heaps, n, growth, UINT64_MAX if full else longest, block)
    if outcome == EMPTY and full and heaps_even_up(heap_mine(&core.heaps), growth):
        outcome = heap_split(&core.heaps, n, growth, UINT64_MAX, block)
    return outcome == DONE or outcome == BOUND and core_hit_slow_path(core, n, block)


cdef Blocker grow(
    Core *core, uint64_t n, uint64_t growth, Waiter *waiter, Block *block
) noexcept nogil:
    """Serves n bytes, from a new resource of `growth` bytes where nothing else is found."""
    cdef Plan plan
    cdef Resource *resource
    cdef mlim_buffer *buffer = NULL
    cdef mlim_status status
    cdef Blocker blocker = NOTHING
    cdef uint64_t longest, more = 0
    cdef Resource *rest = NULL
    if use_idle(core, n, growth, block):
        return NOTHING
    if take_ended(core, n, block):
        return NOTHING
    plan_init(&plan)
    if not reserve_easily(core, n, growth, &more, &longest):
        if longest and heap_alloc_longer(&core.heaps, n, longest, block) == DONE:
            return NOTHING
        if heaps_are_full(&core.heaps, n) and use_idle(core, n, growth, block):
            return NOTHING
        if steal(core, n, growth, longest, block):
            return NOTHING
        room_read_ahead(core, growth - min(growth, waiter.own), &plan.reading)
        core_stop(core)
        blocker = reserve(core, n, growth, waiter, &plan, block)
        core_resume(core, block.resource != NULL)
    if blocker == NOTHING and plan.kept != NULL:
        use_kept(core, n, plan.kept, block)
    if blocker != NOTHING or block.resource != NULL:
        room_end(core, &plan.reading)
        return blocker
    if plan.detached != NULL:
        core_give_back(core, plan.detached, growth)
    resource = resource_new()
    status = MLIM_NO_MEMORY
    if resource != NULL and more:
        status = make_once(core, growth + more, &buffer)
    if status == MLIM_OK:
        resource_adopt(resource, buffer, growth + more)
        rest = cut(core, resource, growth)
    elif resource != NULL:
        status = make(core, growth, &buffer)
        if status == MLIM_OK:
            resource_adopt(resource, buffer, growth)
    # What is mapped, other processes see.
    room_end(core, &plan.reading)
    lock_for_mine(core)
    if rest == NULL:
        limits_cancel(&core.limits, more)
    elif hold_ahead(core, rest):
        rest = NULL
    if status == MLIM_OK and hold(core, resource):
        limits_confirm(&core.limits, growth, plan.overrun)
        core.limits.misses += 1
        core_stock(core, core.stopper)
        serve_fresh(core, resource, n, block)
        resource_destroy(rest)
        return NOTHING
    limits_cancel(&core.limits, growth)
    core_settle(core)
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)
    resource_destroy(resource)
    resource_destroy(rest)
    return RESOURCES if status == MLIM_NO_RESOURCES else DEVICE


cdef uint64_t comfortable(Core *core, uint64_t n) noexcept nogil:
    """Bytes to ask the device for, where no limit is in the way."""
    if n > LARGEST_SLAB_BLOCK and load_count(&core.residency.registers):
        # Every byte of it may be pinned.
        return cache_least_growth(core.page_size, n)
    if n > LARGEST_SLAB_BLOCK:
        return cache_growth(&core.heaps.shared.cache, n)
    return heaps_growth(heap_mine(&core.heaps), n, load_count(&core.most_footprint))


cdef Blocker growth_miss(Core *core, uint64_t n, WaitHooks *hooks, Block *block) noexcept nogil:
    cdef uint64_t own = 0
    return growth_miss_with(core, n, &own, hooks, block)


cdef Blocker growth_miss_with(
    Core *core, uint64_t n, uint64_t *own, WaitHooks *hooks, Block *block
) noexcept nogil:
    cdef uint64_t asked = n
    cdef uint64_t growth, least
    cdef Waiter waiter
    cdef Blocker blocker
    cdef uint64_t waited
    block.resource = NULL
    n = n if hooks.fine else cache_coarse(n)
    growth, least = comfortable(core, n), cache_least_growth(core.page_size, n)
    if core.heaps.lost:
        return refusals_add(core, asked, FORK)
    if least > core_longest(core):
        controls_read_sizes(core)
    if least > core_longest(core):
        return refusals_add(core, asked, LENGTH)
    decay_step(core, AGED_A_STEP)
    members_step(core, growth)
    record_step(core)
    growth = growth if growth <= core_longest(core) else least
    waiter_init(&waiter, least, hooks.keeps)
    waiter.own, waiter.heap, waiter.passes = own[0], hooks.heap, hooks.never_waits
    while True:
        blocker = grow(core, n, growth, &waiter, block)
        if blocker != NOTHING and least < growth:
            # Where a whole slab does not fit, a page may.
            blocker = grow(core, n, least, &waiter, block)
        if blocker == NOTHING or not waiter_waits(core, &waiter, hooks, blocker):
            break
    waited = waiter_leave(core, &waiter)
    own[0] = waiter.own
    pressure_step(core)
    if blocker == NOTHING or hooks.gave_up:
        return blocker
    return refusals_add_waiter(core, asked, blocker, &waiter, waited)
