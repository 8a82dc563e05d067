from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

from memlimits._base.sync cimport (
    CLOCK_COARSE, add_word, load_acquire, load_count, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_cond_init, pthread_cond_signal, pthread_cond_wait, pthread_mutex_lock,
    pthread_mutex_unlock, store_count, store_release, time_of,
)
from memlimits._device.mlim cimport MLIM_OK, mlim_buffer_discard
from memlimits._device.page cimport mlim_page, mlim_page_of_self
from memlimits._device.shared cimport mlim_shared_wake
from memlimits._engine.books cimport books_check
from memlimits._heap.cache cimport cache_find, cache_free, cache_mapped, cache_serve
from memlimits._heap.checks cimport at_most, same
from memlimits._heap.heap cimport (
    claims_tell, heap_add_spare, heap_begins, heap_close_all, heap_detach, heap_mine, heap_of,
    heap_open_all, heap_put_apart, heap_put_back, heap_try_free_noted, heap_wants_spares,
    heaps_highest, heaps_peak, heaps_set_highest, heaps_takers,
)
from memlimits._heap.heaps cimport (
    Totals, heaps_coalesce, heaps_collect, heaps_keep_least, heaps_lock_all, heaps_lock_all_to_read,
    heaps_next_idle, heaps_note, heaps_resume, heaps_rewind, heaps_share, heaps_stop,
    heaps_total, heaps_unlock_all,
)
from memlimits._heap.misuse cimport misuse_abort
from memlimits._heap.pagemap cimport pagemap_close, pagemap_init, pagemap_remove, pagemap_set
from memlimits._heap.resource cimport (
    OUTSIDE, PART, SPARE, resource_destroy, resource_destroy_all, resource_lends, resource_new,
)
from memlimits._ledger.accounts cimport (
    Account, account_discharge, account_release, account_take_note,
)
from memlimits._ledger.limits cimport (
    limits_add_unfaulted, limits_cache_room, limits_cuts, limits_excess, limits_forget, limits_init,
    limits_is_tight, limits_keep_back, limits_most_footprint, limits_needs_look, limits_note,
    limits_note_evicted, limits_note_process, limits_note_sharers, limits_note_sizes,
    limits_reserve, limits_returned, limits_splits,
)
from memlimits._ledger.pool cimport PoolMember, pool_anyone_waits, pool_next
from memlimits._ledger.share cimport share_reserve, share_settle, share_tell
from memlimits._ledger.told cimport told_in, told_write
from memlimits._residency.plan cimport residency_close, residency_init, residency_release

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
    core.page_size = facts.page_size
    core.purgeable_lingers = facts.purgeable_lingers
    heap_open_all(&core.heaps, &core.pages, facts.page_size)
    core.heaps.splits = facts.resizes
    pthread_cond_init(&core.settled, NULL)
    # What cannot be read later is taken to be as it is now.
    core_note_sizes(core, &facts.sizes)
    core_note_process(core, &facts.process)
    limits_init(&core.limits, facts.resizes)
    core.most_footprint = limits_most_footprint(&core.limits)
    residency_init(&core.residency, device, facts.wired_capacity, set_cap, &core.heaps,
                   &core.limits, &core.pool, &core.resources)
    return 0


cdef void core_note_sizes(Core *core, const mlim_sizes *sizes) noexcept nogil:
    store_count(<int64_t *> &core.max_buffer_length, <int64_t> sizes.max_buffer_length)
    limits_note_sizes(&core.limits, sizes.available, sizes.memory_size,
                      sizes.max_recommended_working_set_size)
    limits_note_sharers(&core.limits, sizes.assured, sizes.sharers, sizes.between)
    core.limits.readings += 1
    store_count(&core.pressure_due, limits_needs_look(&core.limits))


cdef void core_note_process(Core *core, const mlim_process *process) noexcept nogil:
    core.process = process[0]
    # Pages of files give way to others.
    limits_note_process(&core.limits, process.resident - process.files + process.swap)


cdef void core_close(Core *core) noexcept nogil:
    cdef Resource *resource
    residency_close(&core.residency)
    # From now on no thread that ends looks at what is destroyed here.
    heap_close_all(&core.heaps)
    while core.resources != NULL:
        resource = core.resources
        core.resources = resource.below
        resource_destroy(resource)
    pagemap_close(&core.pages)
    pthread_cond_destroy(&core.settled)


# ---- resources coming and going ----

cdef void core_hold(Core *core, Resource *resource) noexcept nogil:
    """Under the lock."""
    resource.above = NULL
    resource.below = core.resources
    if core.resources != NULL:
        core.resources.above = resource
    core.resources = resource
    core.limits.resources += 1


cdef void core_stock(Core *core, Heap *heap) noexcept nogil:
    cdef Resource *resource
    cdef uint64_t _i
    for _i in range(heap_wants_spares(heap)):
        resource = resource_new()
        if resource == NULL:
            break
        resource.use = SPARE
        core_hold(core, resource)
        heap_add_spare(heap, resource)


cdef void let_go(Core *core, Resource *resource) noexcept nogil:
    """Under the lock."""
    pagemap_remove(&core.pages, resource, cache_mapped(core.page_size, resource.bytes))
    if resource.above != NULL:
        resource.above.below = resource.below
    else:
        core.resources = resource.below
    if resource.below != NULL:
        resource.below.above = resource.above
    core.limits.resources -= 1
    if resource.inherited:
        resource.inherited = False
        core.limits.inherited -= min(resource.bytes, core.limits.inherited)


cdef void core_give_back(Core *core, Resource *detached, uint64_t growth) noexcept nogil:
    """Destroys detached resources, then settles their bytes, less `growth` reserved with them."""
    cdef Resource *resource = detached
    cdef uint64_t returned
    pthread_mutex_lock(&core.heaps.lock)
    # What is detached and outside is never wired again.
    while resource != NULL and resource.wiring == OUTSIDE:
        resource = resource.next
    if resource != NULL:
        pthread_mutex_unlock(&core.heaps.lock)
        residency_release(&core.residency, detached)
        pthread_mutex_lock(&core.heaps.lock)
    # Until now a lowered wired limit could find them here.
    resource = detached
    while resource != NULL:
        let_go(core, resource)
        resource = resource.next
    pthread_mutex_unlock(&core.heaps.lock)
    returned = resource_destroy_all(detached)
    pthread_mutex_lock(&core.heaps.lock)
    limits_returned(&core.limits, growth, returned)
    core_settle(core)
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void core_wake(Core *core) noexcept nogil:
    core.wakes += 1
    if core.queue != NULL:
        pthread_cond_signal(&core.queue.turn)


cdef void core_wake_others(Core *core) noexcept nogil:
    cdef uint64_t now = time_of(CLOCK_COARSE)
    cdef PoolMember *next = NULL
    if pool_anyone_waits(&core.pool, now):
        next = pool_next(&core.pool, now)
    if next != NULL and next != core.pool.mine:
        mlim_shared_wake(&next.bell)


cdef void core_count_wait(Core *core) noexcept nogil:
    core.limits.waits += 1
    if core.pool.mine != NULL:
        add_word(&core.pool.mine.waits, 1)
        add_word(&core.pool.header.waits, 1)


cdef void core_count_waited(Core *core, uint64_t ns) noexcept nogil:
    core.limits.waited += ns
    if core.pool.mine != NULL:
        add_word(&core.pool.mine.waited, ns)


cdef void core_tell(Core *core) noexcept nogil:
    cdef mlim_page *page
    if not core.tells:
        return
    page = mlim_page_of_self()
    if page != NULL:
        told_write(told_in(page), &core.limits, heaps_peak(&core.heaps))
        store_release(<void **> &core.heaps.claims.told, &told_in(page).claimed)
        # What was claimed before the page was there was told nowhere.
        claims_tell(&core.heaps.claims, load_count(&core.heaps.claims.sum))


cdef void core_tell_now(Core *core) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    core_tell(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void core_settle(Core *core) noexcept nogil:
    core_wake(core)
    if share_settle(&core.limits, &core.pool):
        core_wake_others(core)
    if core.waiters:
        pthread_cond_broadcast(&core.settled)


cdef void core_wait(Core *core) noexcept nogil:
    cdef Heap *stopper = core.stopper
    core.waiters += 1
    note(core, False)
    heaps_unlock_all(&core.heaps)
    pthread_cond_wait(&core.settled, &core.heaps.lock)
    heaps_lock_all(&core.heaps)
    core.waiters -= 1
    core.stopper = stopper
    core_note(core)
    check_books(core)


cdef Resource *core_take_out(Core *core, uint64_t enough, uint64_t *taken) noexcept nogil:
    cdef Resource *first = NULL
    cdef Resource *resource
    taken[0] = 0
    heaps_rewind(&core.heaps)
    while taken[0] < enough:
        resource = heaps_next_idle(&core.heaps)
        if resource == NULL:
            break
        core_set_aside(core, resource, &first)
        taken[0] += resource.bytes
        limits_note_evicted(&core.limits, resource.bytes)
    core.limits.evicted += taken[0]
    heaps_set_highest(&core.heaps, core.limits.highest)
    return first


cdef void core_set_aside(Core *core, Resource *resource, Resource **first) noexcept nogil:
    if resource.looked_at:
        limits_forget(&core.limits, resource.bytes)
        resource.looked_at = False
    heap_detach(&core.heaps, resource)
    resource.next = first[0]
    first[0] = resource


cdef Resource *core_detach(Core *core, uint64_t enough) noexcept nogil:
    cdef uint64_t returned
    cdef Resource *detached
    if enough == 0:
        return NULL
    detached = core_take_out(core, enough, &returned)
    limits_reserve(&core.limits, 0, returned)
    return detached


cdef Resource *core_detach_excess(Core *core) noexcept nogil:
    return core_detach(core, limits_excess(&core.limits))


# ---- stopping ----

cdef void note(Core *core, bint took) noexcept nogil:
    core_note(core)
    heaps_collect(&core.heaps)
    heaps_note(&core.heaps, core.limits.active, took)


cdef void core_note(Core *core) noexcept nogil:
    cdef Totals totals
    heaps_total(&core.heaps, &totals)
    core.limits.highest = heaps_highest(&core.heaps)
    limits_note(&core.limits, totals.idle, totals.cached)
    core.purgeable = totals.purgeable


cdef void check_queue(const Core *core) noexcept nogil:
    cdef const Waiter *waiter = core.queue
    cdef bint holds_none = False
    cdef uint64_t count = 0
    while waiter != NULL:
        same(waiter.queued and waiter.looked, True, b"who waits for memory is in the queue")
        same(waiter.holds and holds_none, False, b"those who hold memory are first in the queue")
        holds_none = not waiter.holds
        count += 1
        waiter = waiter.next
    same(core.limits.waiting, count, b"who waits for memory is counted")
    at_most(0, core.waiters, b"who waits for pending bytes is counted")
    at_most(0, core.claims, b"readings are counted")


cdef void core_check_books(const Core *core) noexcept nogil:
    check_queue(core)
    books_check(&core.heaps, &core.limits, &core.accounts, &core.pages, core.resources)


cdef void core_stop(Core *core) noexcept nogil:
    cdef Heap *mine = heap_mine(&core.heaps)
    heaps_stop(&core.heaps)
    core.stopper = mine
    core.limits.begins = heap_begins(mine)
    if core.pool.mine != NULL:
        core.limits.others_wait = pool_anyone_waits(&core.pool, time_of(CLOCK_COARSE))
    core_note(core)
    check_books(core)
    heaps_collect(&core.heaps)


cdef void core_note_tight(Core *core) noexcept nogil:
    cdef bint tight = limits_cuts(&core.limits) and (
        limits_is_tight(&core.limits, heaps_takers(&core.heaps)))
    if load_count(&core.heaps.tight) != tight:
        store_count(&core.heaps.tight, tight)


cdef void core_resume(Core *core, bint took) noexcept nogil:
    cdef bint was_tight
    note(core, took)
    share_tell(&core.limits, &core.pool)
    if core.limits.pending == 0:
        core_tell(core)     # else whoever waits for the device does, soon
    if core.recorder != NULL:
        core.recorder(core)
    store_count(&core.most_footprint, limits_most_footprint(&core.limits))
    # What is wired stays as it is.
    core.heaps.splits = limits_splits(&core.limits)
    was_tight = load_count(&core.heaps.tight)
    core_note_tight(core)
    if was_tight and not load_count(&core.heaps.tight):
        # Slabs are long from now on.
        heaps_coalesce(&core.heaps, LONGEST_SPLIT)
    heaps_share(
        &core.heaps, core.stopper, limits_cache_room(&core.limits), core.limits.waiting > 0)
    check_books(core)
    heaps_resume(&core.heaps)


# ---- blocks ----

cdef bint core_hit_slow_path(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef Heap *heap
    cdef Resource *resource
    core_stop(core)
    heap = core.stopper
    heaps_keep_least(&core.heaps)
    resource = cache_find(&heap.cache, n)
    # While others wait for memory only a piece of what cannot be returned is no loss to them.
    if resource != NULL and core.queue != NULL and (
        resource.block_size == 0 or resource.live == 0
    ):
        resource = NULL
    if resource != NULL:
        cache_serve(&heap.cache, resource, n, block)
        heap.hits += 1
    core_resume(core, resource != NULL)
    return resource != NULL


cdef bint discharge(Core *core, Resource *resource, void *start) noexcept nogil:
    """Under the lock, before the block goes back. Whether bytes are reserved again."""
    cdef uint64_t n, reserved = 0
    cdef Account *account = account_take_note(resource, start, &n)
    if account != NULL:
        if resource.pinned == 0 and resource.shift == 0:
            heap_put_back(resource)
        reserved = account_discharge(account, n)
        core.limits.reserved += reserved
        if reserved:
            share_reserve(&core.limits, &core.pool)
        account_release(&core.accounts, account)
        # Who waits may wait for this.
        core_wake(core)
    return reserved > 0


cdef bint free_charged(Core *core, Resource *resource, void *start) noexcept nogil:
    """A block that is not noted any more goes back, unless that takes a stop."""
    cdef bint reserved, apart
    pthread_mutex_lock(&core.heaps.lock)
    reserved = discharge(core, resource, start)
    apart = resource.taker != NULL
    pthread_mutex_unlock(&core.heaps.lock)
    return not reserved and not apart and heap_try_free_noted(resource, start) == DONE


cdef bint core_align(Core *core, Block *block, uint64_t alignment) noexcept nogil:
    cdef Resource *resource = block.resource
    cdef uint64_t shift = -<uint64_t> resource.base & (alignment - 1)
    cdef bint found
    if shift == 0:
        return True
    pthread_mutex_lock(&core.heaps.lock)
    found = pagemap_set(&core.pages, resource.base + shift, resource) == 0
    if found:
        resource.shift = shift
        heap_put_apart(&core.heaps, resource)
    pthread_mutex_unlock(&core.heaps.lock)
    block.start = resource.base + resource.shift
    return found


cdef void end_shift(Core *core, Resource *resource) noexcept nogil:
    """While stopped."""
    if resource.shift >= cache_mapped(core.page_size, resource.bytes):
        pagemap_set(&core.pages, resource.base + resource.shift, NULL)
    resource.shift = 0


cdef Resource *set_aside_whole(Core *core, Resource *resource) noexcept nogil:
    """While stopped: one that just became idle."""
    cdef Resource *detached = NULL
    if resource.block_size == 0:
        core_set_aside(core, resource, &detached)
        limits_reserve(&core.limits, 0, resource.bytes)
    return detached


cdef Resource *detach_after_free(Core *core, Resource *first) noexcept nogil:
    """While stopped: what the limits do not allow to stay, behind what is detached already."""
    cdef Resource *detached
    cdef uint64_t trim = 0
    limits_keep_back(&core.limits, 0, &trim)
    detached = core_detach_excess(core)
    if first == NULL:
        return detached
    first.next = detached
    return first


cdef Resource *free_stopped(
    Core *core, Resource *resource, void *start, bint for_good
) noexcept nogil:
    cdef Heap *heap
    cdef Resource *detached = NULL
    core_stop(core)
    if not core.heaps.lost and not resource_lends(resource, start):
        misuse_abort(resource, b"free", start)
    heap_put_back(resource)
    end_shift(core, resource)
    heap = heap_of(resource)
    if core.heaps.lost:
        heap.cache.headroom += resource.block_size or resource.bytes
    else:
        cache_free(&heap.cache, resource, start)
        core_note(core)
        if for_good:
            detached = set_aside_whole(core, resource)
        detached = detach_after_free(core, detached)
    core_wake(core)
    core_resume(core, False)
    return detached


cdef Resource *core_free_slow_path(Core *core, Resource *resource, void *start) noexcept nogil:
    if load_acquire(&resource.charge) != NULL and free_charged(core, resource, start):
        return NULL
    return free_stopped(core, resource, start, False)


cdef Resource *core_free_for_good(Core *core, Resource *resource, void *start) noexcept nogil:
    return free_stopped(core, resource, start, True)


cdef void core_check(Core *core, const char *function, const void *address) noexcept nogil:
    cdef const char *at = <const char *> address
    cdef const Resource *resource
    pthread_mutex_lock(&core.heaps.lock)
    heaps_lock_all_to_read(&core.heaps)
    resource = core.resources
    while resource != NULL and not resource.base <= at < resource.base + resource.bytes:
        resource = resource.below
    if resource == NULL or not resource_lends(resource, address):
        misuse_abort(resource, function, address)
    heaps_resume(&core.heaps)


cdef void core_clear(Core *core, const Block *block, uint64_t n) noexcept nogil:
    if block.zeros:
        return
    # What is idle behind a part may become another's just now.
    if block.resource.block_size == 0 and block.resource.use != PART and n >= DISCARD_FROM:
        if mlim_buffer_discard(block.resource.buffer, NULL) == MLIM_OK:
            pthread_mutex_lock(&core.heaps.lock)
            limits_add_unfaulted(&core.limits, block.resource.bytes)
            pthread_mutex_unlock(&core.heaps.lock)
            return
    memset(block.start, 0, n)
