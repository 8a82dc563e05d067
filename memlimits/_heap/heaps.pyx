from libc.stdint cimport INT64_MAX, UINT64_MAX
from libc.string cimport memset

from memlimits._base.sync cimport (
    CLOCK_COARSE, load_acquire, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    raise_atomically, store_count, time_of,
)
from memlimits._heap.bins cimport bins_find
from memlimits._heap.cache cimport (
    SIZE_CLASSES, cache_add, cache_find, cache_find_idle, cache_growth, cache_idle,
    cache_largest_idle, cache_next_slab, cache_remove, cache_retire, cache_serve, cache_set_timed,
    max_fit,
)
from memlimits._heap.checks cimport heaps_check
from memlimits._heap.heap cimport (
    BOUND, DONE, EMPTY, GROUPS, LEAST_KEPT, claims_tell, heap_begins, heap_claim, heap_end,
    heap_gain, heap_self, heap_unclaim, heaps_takers, owners_lock, owners_unlock, set_most_cached,
)
from memlimits._heap.lock cimport (
    all_threads_barrier, owned_lock_end_bias, owned_lock_enter, owned_lock_give, owned_lock_leave,
    owned_lock_set_owner, owned_lock_take, owned_lock_take_at_once, owned_lock_wait,
)
from memlimits._heap.resource cimport resources_after_fork
from memlimits._heap.split cimport cache_coalesce, cache_find_longer, cache_split

cdef extern from *:
    """
    /* Its thread may change it meanwhile: what is read is a hint. */
    __attribute__((no_sanitize("thread"))) static int64_t read_loosely(const int64_t *word)
    {
        return *(const volatile int64_t *)word;
    }
    """
    int64_t read_loosely(const int64_t *word) nogil

cdef enum:
    # A slab has its whole length from the first on where it is no more than this part of what a
    # thread's heap may have, since it may want one of many lengths; else it doubles what is there.
    SLAB_PART = 64
    AHEAD = 16 << 10            # of growth, for each resource that a heap holds, from
    AHEAD_FROM = 32             # of them on
    MOST_AHEAD = 3 << 20
    MOST_ASKED = 64             # heaps, for some of what is idle there


cdef void heaps_stop(Heaps *heaps) noexcept nogil:
    pthread_mutex_lock(&heaps.lock)
    heaps_lock_all(heaps)


cdef void heaps_resume(Heaps *heaps) noexcept nogil:
    heaps_unlock_all(heaps)
    pthread_mutex_unlock(&heaps.lock)


cdef void heaps_lock_all_to_read(Heaps *heaps) noexcept nogil:
    cdef const void *self = heap_self()
    cdef Heap *heap = &heaps.shared
    cdef bint biased = False
    while heap != NULL:
        owned_lock_take(&heap.lock)
        # What only this thread ever takes without the lock is at rest.
        if heap.lock.owner != self:
            biased |= owned_lock_end_bias(&heap.lock)
        heap = heap.next
    if biased:
        all_threads_barrier()
    heap = &heaps.shared
    while heap != NULL:
        owned_lock_wait(&heap.lock)
        heap = heap.next


cdef void heaps_lock_all(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    heaps_lock_all_to_read(heaps)
    heaps.time += 1
    while heap != NULL:
        heap.cache.time = heaps.time
        cache_retire(&heap.cache)
        heap = heap.next
    heaps_check(heaps)


cdef void heaps_unlock_all(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    heaps_check(heaps)
    while heap != NULL:
        owned_lock_give(&heap.lock)
        heap = heap.next


cdef inline bint in_use(const Heap *heap) noexcept nogil:
    """Whether a thread takes from it: not the shared one, unless memory for heaps ran out."""
    return heap != &heap.heaps.shared and not heap.ended


cdef void heaps_total(const Heaps *heaps, Totals *totals) noexcept nogil:
    cdef const Heap *heap = &heaps.shared
    memset(totals, 0, sizeof(Totals))
    while heap != NULL:
        totals.idle += cache_idle(&heap.cache)
        totals.cached += heap.cache.cached
        totals.purgeable += heap.cache.purgeable
        totals.hits += heap.hits
        totals.steals += heap.steals
        totals.spares += heap.cache.spares
        heap = heap.next


cdef void heaps_survey(const Heaps *heaps, Survey *survey) noexcept nogil:
    cdef const Heap *heap = &heaps.shared
    cdef int size_class
    memset(survey, 0, sizeof(Survey))
    while heap != NULL:
        for size_class in range(SIZE_CLASSES):
            survey.slabs += heap.cache.carved[size_class]
        survey.largest_idle = max(survey.largest_idle, cache_largest_idle(&heap.cache))
        heap = heap.next


cdef void heaps_read_totals(Heaps *heaps, Totals *totals) noexcept nogil:
    heaps_lock_all_to_read(heaps)
    heaps_total(heaps, totals)
    heaps_unlock_all(heaps)


cdef void heaps_collect(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    cdef int64_t claimed = 0
    cdef int i
    for i in range(GROUPS):
        claimed += heaps.groups[i].headroom
        heaps.groups[i].headroom = 0
    while heap != NULL:
        claimed += heap.cache.headroom
        heap.cache.withheld += heap.cache.headroom
        heap.cache.headroom = heap.most_headroom = 0
        heap = heap.next
    heap_unclaim(heaps, claimed)


cdef void heaps_note(Heaps *heaps, int64_t active, bint taken) noexcept nogil:
    store_count(&heaps.claims.sum, active)
    claims_tell(&heaps.claims, active)
    if taken:
        raise_atomically(&heaps.claims.peak, active)
        raise_atomically(&heaps.claims.highest, active)


cdef void heaps_share(
    Heaps *heaps, Heap *favoured, int64_t room, bint unclaimable
) noexcept nogil:
    # Half to the favoured one, and of the other an equal part to each in use.
    cdef int64_t takers = heaps_takers(heaps)
    cdef int64_t place = 0 if room == INT64_MAX else room // 2 // max(takers, <int64_t> 1)
    cdef Heap *heap = &heaps.shared
    store_count(&heaps.claims.unclaimable, unclaimable)
    while heap != NULL:
        set_most_cached(
            heap, room if room == INT64_MAX else heap.cache.cached + place * in_use(heap))
        heap = heap.next
    if room != INT64_MAX:
        set_most_cached(favoured, favoured.most_cached + room - place * takers)


cdef void heaps_keep_least(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    while heap != NULL:
        heap.most_kept = LEAST_KEPT * in_use(heap)
        heap = heap.next
    store_count(&heaps.claims.uneven, False)


cdef uint64_t heaps_growth(Heap *heap, uint64_t n, uint64_t most) noexcept nogil:
    cdef uint64_t growth = cache_growth(&heap.cache, n)
    cdef int within
    if growth <= most // SLAB_PART // <uint64_t> max(heaps_takers(heap.heaps), <int64_t> 1):
        return growth
    within = owned_lock_enter(&heap.lock, heap_self())
    growth = cache_next_slab(&heap.cache, n)
    owned_lock_leave(&heap.lock, within)
    return growth


cdef uint64_t heaps_ahead(Heap *heap) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, heap_self())
    cdef uint64_t most = min(heap.cache.resources * AHEAD, <uint64_t> MOST_AHEAD)
    if (
        heap.cache.resources < AHEAD_FROM or heap.most_cached != INT64_MAX
        or heap.cache.cached > <int64_t> most
    ):
        most = 0
    else:
        most -= heap.cache.cached
    owned_lock_leave(&heap.lock, within)
    return most


cdef void heaps_coalesce(Heaps *heaps, uint64_t longest) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    while heap != NULL:
        cache_coalesce(&heap.cache, longest)
        heap = heap.next


cdef Heap *after(Heap *heap) noexcept nogil:
    return heap.next if heap.next != NULL else &heap.heaps.shared


cdef void leave_with_bound(Heap *other, Resource *resource) noexcept nogil:
    cache_remove(&other.cache, resource)
    if other.most_cached != INT64_MAX:
        set_most_cached(other, other.most_cached - <int64_t> resource.bytes)


cdef void join_with_bound(Heap *heap, Resource *resource) noexcept nogil:
    """With its lock."""
    cache_add(&heap.cache, resource)
    if heap.most_cached != INT64_MAX:
        set_most_cached(heap, heap.most_cached + <int64_t> resource.bytes)


cdef Resource *take_whole(
    Heap *other, uint64_t n, uint64_t growth, uint64_t longest, bint spares, bint *pieces
) noexcept nogil:
    """An idle resource leaves a heap, and the bound with it; or NULL: are there `pieces`?

    Where it `spares` them, there are none in the heap of a thread that begins.
    """
    cdef int within = owned_lock_enter(&other.lock, heap_self())
    cdef Resource *found = cache_find_idle(&other.cache, n)
    if found == NULL and longest:
        found = bins_find(&other.cache.bins, n, longest)
    if found == NULL and growth and other.heaps.splits:
        found = cache_find_longer(&other.cache, growth, UINT64_MAX)
    if found == NULL:
        pieces[0] = not (spares and heap_begins(other)) and cache_find(&other.cache, n) != NULL
    else:
        leave_with_bound(other, found)
    owned_lock_leave(&other.lock, within)
    return found


cdef Outcome take_piece(Heap *other, uint64_t n, Block *block) noexcept nogil:
    """Its slab stays, for the sake of the blocks that its thread has of it."""
    cdef int within = owned_lock_enter(&other.lock, heap_self())
    cdef Resource *found = cache_find(&other.cache, n)
    cdef Outcome outcome = EMPTY
    if found != NULL and found.block_size and heap_claim(other, found.block_size):
        outcome = DONE
        cache_serve(&other.cache, found, n, block)
    owned_lock_leave(&other.lock, within)
    return outcome


cdef Outcome heaps_steal(
    Heap *heap, uint64_t n, uint64_t growth, uint64_t longest, bint spares, Block *block
) noexcept nogil:
    cdef Heap *other = after(heap)
    cdef Heap *with_pieces = NULL
    cdef Resource *found
    # The shared heap takes for accounts only.
    cdef bint apart = heap == &heap.heaps.shared
    cdef bint pieces
    cdef int within
    while other != heap:
        pieces = False
        found = take_whole(other, n, growth, longest, spares, &pieces)
        if found != NULL and growth and found.bytes > max(max_fit(growth), longest):
            within = owned_lock_enter(&heap.lock, heap_self())
            join_with_bound(heap, found)
            owned_lock_leave(&heap.lock, within)
            return BOUND
        if found != NULL:
            return heap_gain(heap, found, n, block)
        if pieces and not apart:
            with_pieces = other
        other = after(other)
    return EMPTY if with_pieces == NULL else take_piece(with_pieces, n, block)


cdef bint take_share(Heap *heap, Heap *other, uint64_t growth) noexcept nogil:
    """With both locks: so much moves that both have the same, in one long piece if there is one."""
    cdef int64_t bytes = (other.cache.cached - heap.cache.cached) // 2
    cdef Resource *found = NULL
    bytes -= bytes % <int64_t> heap.cache.page_size
    if bytes >= <int64_t> growth:
        found = cache_split(&other.cache, bytes, growth, UINT64_MAX)
    if found == NULL:
        return False
    leave_with_bound(other, found)
    join_with_bound(heap, found)
    heap.steals += 1
    return True


cdef bint heaps_even_up(Heap *heap, uint64_t growth) noexcept nogil:
    cdef Heap *other
    cdef bint took = False
    cdef int _i
    # The shared heap takes for accounts only.
    if heap == &heap.heaps.shared:
        return False
    # As a lock, though its owner need not: so who wants both of two never waits for the other.
    owned_lock_take(&heap.lock)
    other = heap.asked if heap.asked != NULL else heap
    for _i in range(MOST_ASKED if heap.heaps.splits else 0):
        other = <Heap *> load_acquire(<void **> &other.next)
        if other == NULL:
            other = &heap.heaps.shared
        if other == heap or read_loosely(&other.cache.cached) < (
            heap.cache.cached + 2 * <int64_t> growth
        ) or not owned_lock_take_at_once(&other.lock):
            continue
        if owned_lock_end_bias(&other.lock):
            all_threads_barrier()
        owned_lock_wait(&other.lock)
        took = take_share(heap, other, growth)
        owned_lock_give(&other.lock)
        if took:
            break
    heap.asked = other
    owned_lock_give(&heap.lock)
    return took


cdef void heaps_rewind(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    while heap != NULL:
        cache_retire(&heap.cache)     # a step may have warmed some since the stop
        heap.cursor = heap.cache.oldest
        heap = heap.next


cdef inline bint is_older(const Resource *one, const Resource *other) noexcept nogil:
    if one.idle_at == other.idle_at:
        return one.idle_since < other.idle_since
    return one.idle_at < other.idle_at


cdef void heaps_set_timed(Heaps *heaps, bint timed) noexcept nogil:
    cdef uint64_t now = time_of(CLOCK_COARSE)
    cdef Heap *heap = &heaps.shared
    while heap != NULL:
        cache_set_timed(&heap.cache, timed, now)
        heap = heap.next


cdef Resource *heaps_next_idle(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    cdef Heap *at = NULL
    cdef Resource *oldest
    while heap != NULL:
        if heap.cursor != NULL and (
            at == NULL or is_older(heap.cursor, at.cursor)
        ):
            at = heap
        heap = heap.next
    if at == NULL:
        return NULL
    oldest = at.cursor
    at.cursor = oldest.newer
    return oldest


cdef void heaps_before_fork() noexcept nogil:
    owners_lock()


cdef void heaps_after_fork(Heaps *heaps, bint child) noexcept nogil:
    cdef Heap *heap = heaps.shared.next
    if child:
        resources_after_fork()
        pthread_mutex_init(&heaps.lock, NULL)
        while heap != NULL:
            if in_use(heap) and heap.lock.owner != heap_self() and not heaps.lost:
                heap_end(heap)
            heap = heap.next
        heaps_unlock_all(heaps)
        # Somebody may have looked at one's lock just then.
        heap = heaps.spare
        while heap != NULL:
            owned_lock_give(&heap.lock)
            heap = heap.next
    else:
        heaps_resume(heaps)
    owners_unlock(child)


cdef void heaps_lose(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = &heaps.shared
    heaps.lost = True
    while heap != NULL:
        owned_lock_set_owner(&heap.lock, NULL)
        heap = heap.next
