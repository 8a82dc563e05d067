from libc.stdint cimport INT64_MAX, uint8_t
from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport (
    add_atomically, load_acquire, load_count, pthread_key_create, pthread_key_t,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    pthread_once, pthread_once_t, pthread_setspecific, raise_atomically, store_count, store_release,
    take_atomically,
)
from memlimits._heap.bins cimport bins_find, bins_longest
from memlimits._heap.cache cimport (
    LARGEST_SLAB_BLOCK, Cache, cache_add, cache_alloc, cache_alloc_whole, cache_capacity,
    cache_closest, cache_coarse, cache_find, cache_free, cache_free_whole, cache_give_more,
    cache_least_growth, cache_merge, cache_rise, cache_serve, cache_serve_fresh, cache_serve_part,
    cache_spare, class_of,
)
from memlimits._heap.lock cimport (
    owned_lock_enter, owned_lock_give, owned_lock_leave, owned_lock_set_owner, owned_lock_take,
    owned_lock_try,
)
from memlimits._heap.misuse cimport misuse_abort
from memlimits._heap.pagemap cimport PageMap
from memlimits._heap.resource cimport (
    TAKEN, likely, link_freed, resource_lends, slab_free, slab_is_full, slab_lends, unlikely,
)
from memlimits._heap.split cimport cache_split

cdef extern from *:
    """
    /* This thread's heaps, the one used last first. Its address tells the thread from others. A
     * module that is loaded into a running program gets little room for such variables: one
     * pointer. */
    static __thread void *mine __attribute__((tls_model("initial-exec")));

    /* Guards which thread and which allocator a heap belongs to. Taken before Residency.mutex. */
    static pthread_mutex_t owners = PTHREAD_MUTEX_INITIALIZER;

    static pthread_once_t prepared = PTHREAD_ONCE_INIT;
    """
    void *mine
    pthread_mutex_t owners
    pthread_once_t prepared

cdef enum:
    SPARES = 16                 # descriptors, that a heap wants to have
    TIMES_GIVEN_BACK = 1024     # after which a heap keeps twice as much
    FIRST_KEYS = 32     # whose values glibc keeps in the thread itself
    # Idle behind blocks that grow, in a heap: half of what is left for each. It serves nobody else.
    MOST_PARTS = 32 << 20
    # And no more than so many times a block, of what others than such blocks may want again.
    TIMES_GIVEN = 64

# The size class of a block, by its length in units of 64 bytes, and of 16.
cdef uint8_t classes[(LARGEST_SLAB_BLOCK >> 6) + 1]
cdef uint8_t fine_classes[(LARGEST_SLAB_BLOCK >> 4) + 1]


cdef void list_classes() noexcept nogil:
    cdef int units
    for units in range((LARGEST_SLAB_BLOCK >> 6) + 1):
        classes[units] = <uint8_t> class_of(cache_coarse(<uint64_t> units << 6))
    for units in range((LARGEST_SLAB_BLOCK >> 4) + 1):
        fine_classes[units] = <uint8_t> class_of(<uint64_t> units << 4)


cdef pthread_key_t leaving          # its destructor runs when a thread ends


cdef void prepare() noexcept nogil:
    """Once in a process."""
    global slow
    list_classes()
    pthread_key_create(&leaving, end_heaps)
    slow = SlowPaths(
        alloc, alloc_locked, enter_and_alloc, malloc_locked, try_free, try_free_locked,
        enter_and_try_free, free_inside, free_locked, enter_and_free, give_back_and_leave)


cdef void heap_init(
    Heap *heap, Heaps *heaps, PageMap *pages, uint64_t page_size
) noexcept nogil:
    heap.heaps = heaps
    heap.cache.pages = pages
    heap.cache.tight = &heaps.tight
    heap.cache.page_size = page_size


cdef void set_bounds(Heap *heap) noexcept nogil:
    cdef Heaps *heaps = heap.heaps
    heap.cache.timed = heaps.shared.cache.timed
    # No room where there is a bound: its first steps ask for a share.
    set_most_cached(heap, INT64_MAX if heaps.shared.most_cached == INT64_MAX else 0)


cdef void heap_open_all(Heaps *heaps, PageMap *pages, uint64_t page_size) noexcept nogil:
    pthread_once(&prepared, prepare)
    pthread_mutex_init(&heaps.lock, NULL)
    heap_init(&heaps.shared, heaps, pages, page_size)
    set_most_cached(&heaps.shared, INT64_MAX)
    heaps.shared.group = &heaps.groups[0]
    heaps.full_from = INT64_MAX
    heaps.claims.told = &heaps.claims.untold


cdef void heap_close_all(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = heaps.shared.next
    cdef Heap *next
    pthread_mutex_lock(&owners)
    while heap != NULL:
        next = heap.next
        heap.heaps = NULL
        if heap.ended:
            free(heap)      # else its thread frees it
        heap = next
    while heaps.spare != NULL:
        heap = heaps.spare
        heaps.spare = heap.next
        free(heap)
    pthread_mutex_unlock(&owners)
    pthread_mutex_destroy(&heaps.lock)


cdef void heap_end(Heap *heap) noexcept nogil:
    cdef Heaps *heaps = heap.heaps
    heap.ended = True
    heap.most_kept = 0
    give_back(heap)
    add_atomically(&heaps.claims.takers, -1)
    owned_lock_set_owner(&heap.lock, NULL)
    heap.next_mine = heaps.ended
    store_release(<void **> &heaps.ended, heap)


cdef Heap *take_ended(Heaps *heaps) noexcept nogil:
    """Under Heaps.lock: one that ended and is in the list, or NULL."""
    cdef Heap *heap = heaps.ended
    if heap != NULL:
        store_release(<void **> &heaps.ended, heap.next_mine)
    return heap


cdef void heap_absorb(Heap *heap) noexcept nogil:
    cdef Heaps *heaps = heap.heaps
    cdef Heap *ended = take_ended(heaps)
    cdef Heap *before = &heaps.shared
    cdef int within
    if ended == NULL:
        return
    while before.next != ended:
        before = before.next
    store_release(<void **> &before.next, ended.next)
    owned_lock_take(&ended.lock)
    within = owned_lock_enter(&heap.lock, &mine)
    heaps.time += 1
    heap.cache.time = heaps.time
    give_back(ended)
    cache_merge(&heap.cache, &ended.cache)
    heap.hits += ended.hits
    heap.hits_before += ended.hits
    heap.steals += ended.steals
    ended.hits = ended.steals = 0
    if heap.most_cached != INT64_MAX:
        set_most_cached(heap, heap.most_cached + ended.most_cached)
    store_release(<void **> &ended.next, heaps.spare)
    heaps.spare = ended
    owned_lock_leave(&heap.lock, within)
    owned_lock_give(&ended.lock)


cdef void end_heaps(void *_unused) noexcept nogil:
    """At a thread's end: what its heaps have is for others from now on."""
    global mine
    cdef Heap *heap
    cdef Heap *next
    cdef Heaps *heaps
    pthread_mutex_lock(&owners)
    heap = <Heap *> mine
    mine = NULL
    while heap != NULL:
        next = heap.next_mine
        heaps = heap.heaps
        if heaps == NULL:
            free(heap)
        else:
            pthread_mutex_lock(&heaps.lock)
            owned_lock_take(&heap.lock)
            heap_end(heap)
            owned_lock_give(&heap.lock)
            pthread_mutex_unlock(&heaps.lock)
        heap = next
    pthread_mutex_unlock(&owners)


cdef Heap *listed(Heaps *heaps) noexcept nogil:
    """A new heap, in the list; NULL without memory."""
    cdef Heap *heap = heaps.spare
    if heap != NULL:
        heaps.spare = heap.next
    else:
        heap = <Heap *> own_calloc(1, sizeof(Heap))
        if heap != NULL:
            heap_init(heap, heaps, heaps.shared.cache.pages, heaps.shared.cache.page_size)
    if heap != NULL:
        owned_lock_take(&heap.lock)
        set_bounds(heap)
        owned_lock_give(&heap.lock)
        store_release(<void **> &heap.next, heaps.shared.next)
        store_release(<void **> &heaps.shared.next, heap)
    return heap


cdef Heap *adopt(Heaps *heaps) noexcept nogil:
    """Under `owners` and Heaps.lock: a heap for this thread; NULL without memory.

    Without an owner, as it must be when lost, every step asks for the lock.
    """
    cdef Heap *heap = take_ended(heaps)
    cdef bint is_first = heaps.shared.next == NULL
    if heap == NULL:
        heap = listed(heaps)
    if heap == NULL:
        return NULL
    owned_lock_take(&heap.lock)
    heap.ended = False
    heap.most_kept = LEAST_KEPT
    heap.hits_before = heap.hits
    heap.group = &heaps.groups[add_atomically(&heaps.claims.takers, 1) % GROUPS]
    if is_first:
        heap.hits_before -= FIRST_HITS      # the thread that memlimits was imported on
    if not heaps.lost:
        owned_lock_set_owner(&heap.lock, &mine)
    owned_lock_give(&heap.lock)
    return heap


cdef Heap *find_mine(Heaps *heaps) noexcept nogil:
    """The thread's heap of this allocator to the front of its list, or one for it."""
    global mine
    cdef Heap **place = <Heap **> &mine
    cdef Heap *heap
    pthread_mutex_lock(&owners)
    while place[0] != NULL and place[0].heaps != heaps:
        heap = place[0]
        if heap.heaps == NULL:
            place[0] = heap.next_mine
            free(heap)
        else:
            place = &heap.next_mine
    heap = place[0]
    if heap != NULL:
        place[0] = heap.next_mine
    else:
        pthread_setspecific(leaving, &owners)
        pthread_mutex_lock(&heaps.lock)
        heap = adopt(heaps)
        pthread_mutex_unlock(&heaps.lock)
    if heap != NULL:
        heap.next_mine = <Heap *> mine
        mine = heap
    pthread_mutex_unlock(&owners)
    return heap if heap != NULL else &heaps.shared


cdef bint heap_noting_needs_malloc() noexcept nogil:
    return leaving >= FIRST_KEYS


cdef const void *heap_self() noexcept nogil:
    return &mine


cdef void owners_lock() noexcept nogil:
    pthread_mutex_lock(&owners)


cdef void owners_unlock(bint child) noexcept nogil:
    if child:
        pthread_mutex_init(&owners, NULL)
    else:
        pthread_mutex_unlock(&owners)


cdef Heap *heap_mine(Heaps *heaps) noexcept nogil:
    cdef Heap *heap = <Heap *> mine
    return heap if heap != NULL and heap.heaps == heaps else find_mine(heaps)


cdef Heap *heap_swap_mine(Heaps *heaps, Heap *heap) noexcept nogil:
    global mine
    cdef Heap *before = heap_mine(heaps)
    mine = heap
    return before


cdef void heap_do_without(Heaps *heaps) noexcept nogil:
    global mine
    mine = &heaps.shared


# ---- the fast path ----

cdef Outcome serve(
    Heap *heap, Resource *resource, uint64_t n, Block *block, int within
) noexcept nogil:
    """What was found once the heap's lock was entered, or NULL; leaves it."""
    cdef Outcome outcome = DONE
    if resource == NULL or heap.heaps.lost:
        outcome = EMPTY
    elif not heap_claim(heap, cache_capacity(resource, n)):
        outcome = BOUND
    else:
        cache_serve(&heap.cache, resource, n, block)
        heap.hits += 1
    owned_lock_leave(&heap.lock, within)
    return outcome


cdef Outcome alloc(Heap *heap, uint64_t n, Block *block, int within) noexcept nogil:
    n = cache_coarse(n)
    return serve(heap, cache_find(&heap.cache, n), n, block, within)


cdef Outcome heap_try_alloc_fine(Heaps *heaps, uint64_t n, Block *block) noexcept nogil:
    cdef Heap *heap = heap_mine(heaps)
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    return serve(heap, cache_find(&heap.cache, n), n, block, within)


cdef Outcome enter_and_alloc(Heaps *heaps, uint64_t n, Block *block) noexcept nogil:
    return heap_try_alloc_fine(heaps, cache_coarse(n), block)


cdef Outcome heap_alloc_longer(
    Heaps *heaps, uint64_t n, uint64_t longest, Block *block
) noexcept nogil:
    cdef Heap *heap = heap_mine(heaps)
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    return serve(heap, bins_find(&heap.cache.bins, n, longest), n, block, within)


cdef Outcome heap_split(
    Heaps *heaps, uint64_t n, uint64_t growth, uint64_t longest, Block *block
) noexcept nogil:
    cdef Heap *heap = heap_mine(heaps)
    cdef Resource *found = NULL
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    if heaps.splits and heap != &heaps.shared:
        found = cache_split(
            &heap.cache, growth, cache_least_growth(heap.cache.page_size, n), longest)
    return serve(heap, found, n, block, within)


cdef Resource *heap_find_part(const Heap *heap, uint64_t given, uint64_t least) noexcept nogil:
    cdef uint64_t room = MOST_PARTS - min(heap.cache.parts, <uint64_t> MOST_PARTS)
    cdef Resource *resource = bins_longest(&heap.cache.bins, least, given + room // 2)
    if resource == NULL or resource.grew or resource.bytes <= TIMES_GIVEN * given:
        return resource
    return bins_longest(&heap.cache.bins, least, TIMES_GIVEN * given)


cdef Outcome heap_take_part(
    Heaps *heaps, uint64_t given, uint64_t least, Block *block
) noexcept nogil:
    cdef Heap *heap = heap_mine(heaps)
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cdef Resource *resource = heap_find_part(heap, given, least)
    cdef Outcome outcome = EMPTY
    if resource != NULL:
        outcome = BOUND
        if heap_claim(heap, given):
            outcome = DONE
            cache_serve_part(&heap.cache, resource, given, block)
            heap.hits += 1
    owned_lock_leave(&heap.lock, within)
    return outcome


cdef Heap *find_home(Heaps *heaps, const Resource *resource) noexcept nogil:
    """The heap that it lies in. NULL: it is no resource any more."""
    cdef Heap *heap = &heaps.shared
    pthread_mutex_lock(&heaps.lock)
    while heap != NULL and heap != heap_of(resource):
        heap = heap.next
    pthread_mutex_unlock(&heaps.lock)
    return heap


cdef Heap *enter_home(Resource *resource, const void *start, int *within) noexcept nogil:
    """The heap that a resource lies in, once its lock was entered: another may be, until then.

    If the block was freed before, there may be no such resource any more.
    """
    cdef Heap *heap = heap_of(resource)
    cdef Heaps *heaps = heap.heaps
    while True:
        within[0] = owned_lock_enter(&heap.lock, &mine)
        if heap == heap_of(resource):
            return heap
        owned_lock_leave(&heap.lock, within[0])
        # Under Heaps.lock homes change: what was one before that lock may be spare now.
        heap = find_home(heaps, resource)
        if heap == NULL:
            misuse_abort(NULL, b"free", start)


cdef Outcome heap_extend(Resource *resource, uint64_t given) noexcept nogil:
    cdef int within
    cdef Heap *heap = enter_home(resource, resource.base, &within)
    cdef Outcome outcome = EMPTY
    # One that is put apart has another home meanwhile.
    if resource.taker == NULL and given <= resource.bytes:
        outcome = BOUND
        if heap_claim(heap, given - resource.given):
            outcome = DONE
            cache_give_more(&heap.cache, resource, given)
    owned_lock_leave(&heap.lock, within)
    return outcome


cdef Outcome give_back_and_leave(Heap *heap) noexcept nogil:
    give_back(heap)
    owned_lock_leave(&heap.lock, True)
    return DONE


cdef inline bint has_too_much(const Heap *heap) noexcept nogil:
    return heap.cache.headroom > heap.most_headroom


cdef Outcome try_free(Heap *heap, Resource *resource, void *start, int within) noexcept nogil:
    """Any block, once the heap's lock was entered; leaves it."""
    cdef Outcome outcome = DONE
    cdef int64_t rise = cache_rise(resource)
    if not heap.heaps.lost and not resource_lends(resource, start):
        misuse_abort(resource, b"free", start)
    if heap.heaps.lost or resource.shift or (
        rise and heap.cache.cached + rise > heap.most_cached
    ):
        outcome = BOUND
    else:
        cache_free(&heap.cache, resource, start)
        if has_too_much(heap):
            give_back(heap)
    owned_lock_leave(&heap.lock, within)
    return outcome


cdef Outcome enter_and_try_free(Resource *resource, void *start) noexcept nogil:
    cdef Heap *heap = heap_of(resource)
    cdef int within
    # To others the descriptor's other lines would have to be fetched.
    if heap == &heap.heaps.shared and (
        load_acquire(&resource.charge) != NULL or resource.taker != NULL
    ):
        return BOUND
    heap = enter_home(resource, start, &within)
    return try_free(heap, resource, start, within)


cdef Outcome heap_try_free_noted(Resource *resource, void *start) noexcept nogil:
    cdef int within
    cdef Heap *heap = enter_home(resource, start, &within)
    return try_free(heap, resource, start, within)


cdef void enter_and_free(void *start, Resource *resource) noexcept nogil:
    cdef Heaps *heaps = heap_of(resource).heaps
    if enter_and_try_free(resource, start) != DONE:
        heaps.free_slow_path(start)


cdef void free_inside(void *start, Resource *resource, Heap *heap) noexcept nogil:
    if try_free(heap, resource, start, True) != DONE:
        heap.heaps.free_slow_path(start)


# Called through pointers, so that the compiler keeps them apart, and with them the registers that
# they need: what the functions below do themselves is what happens most often.
cdef struct SlowPaths:
    Outcome (*alloc)(Heap *heap, uint64_t n, Block *block, int within) noexcept nogil
    Outcome (*alloc_locked)(Heap *heap, uint64_t n, Block *block) noexcept nogil
    Outcome (*enter_and_alloc)(Heaps *heaps, uint64_t n, Block *block) noexcept nogil
    void *(*malloc_locked)(
        uint64_t n, Heap *heap, bint fine, SlowMalloc slow_path) noexcept nogil
    Outcome (*try_free)(Heap *heap, Resource *resource, void *start, int within) noexcept nogil
    Outcome (*try_free_locked)(Heap *heap, Resource *resource, void *start) noexcept nogil
    Outcome (*enter_and_try_free)(Resource *resource, void *start) noexcept nogil
    void (*free)(void *start, Resource *resource, Heap *heap) noexcept nogil
    void (*free_locked)(void *start, Resource *resource, Heap *heap) noexcept nogil
    void (*enter_and_free)(void *start, Resource *resource) noexcept nogil
    Outcome (*give_back_and_leave)(Heap *heap) noexcept nogil

cdef SlowPaths slow


cdef inline Resource *find_fast(Heap *heap, uint64_t n, bint fine) noexcept nogil:
    """What serves n bytes with no look elsewhere: a slab, or a whole resource; or NULL."""
    cdef Resource *resource
    cdef int64_t bytes
    if likely(n <= LARGEST_SLAB_BLOCK):
        resource = heap.cache.slabs[fine_classes[(n + 15) >> 4] if fine else classes[(n + 63) >> 6]]
        if unlikely(resource == NULL):
            return NULL
        bytes = resource.block_size
    else:
        resource = cache_closest(&heap.cache, n)
        if resource == NULL:
            return NULL
        bytes = resource.bytes
    return resource if likely(heap.cache.headroom >= bytes) else NULL


cdef inline char *alloc_fast(Heap *heap, Resource *resource, uint64_t n) noexcept nogil:
    cdef char *start
    if n <= LARGEST_SLAB_BLOCK:
        start = cache_alloc(&heap.cache, resource)
    else:
        start = cache_alloc_whole(&heap.cache, resource)
    heap.hits += 1
    return start


cdef inline void hand_out_fast(
    Heap *heap, Resource *resource, uint64_t n, Block *block
) noexcept nogil:
    block.resource = resource
    block.capacity = resource.block_size if n <= LARGEST_SLAB_BLOCK else resource.bytes
    block.zeros = (n > LARGEST_SLAB_BLOCK or resource.free_blocks == NULL) and resource.zeros
    block.start = alloc_fast(heap, resource, n)


cdef Outcome alloc_locked(Heap *heap, uint64_t n, Block *block) noexcept nogil:
    """In this thread's heap, with its lock, which others wanted lately."""
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cdef Resource *resource = NULL if heap.heaps.lost else find_fast(heap, n, False)
    if resource == NULL:
        return alloc(heap, n, block, within)
    hand_out_fast(heap, resource, n, block)
    owned_lock_leave(&heap.lock, within)
    return DONE


cdef Outcome heap_try_alloc(Heaps *heaps, uint64_t n, Block *block) noexcept nogil:
    cdef Heap *heap = <Heap *> mine
    cdef Resource *resource
    if unlikely(heap == NULL or heap.heaps != heaps):
        return slow.enter_and_alloc(heaps, n, block)
    if unlikely(not owned_lock_try(&heap.lock)):
        return slow.alloc_locked(heap, n, block)
    resource = find_fast(heap, n, False)
    if unlikely(resource == NULL):
        return slow.alloc(heap, n, block, True)
    hand_out_fast(heap, resource, n, block)
    owned_lock_leave(&heap.lock, True)
    return DONE


cdef void *malloc_locked(
    uint64_t n, Heap *heap, bint fine, SlowMalloc slow_path
) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cdef Resource *resource = NULL if heap.heaps.lost else find_fast(heap, n, fine)
    cdef void *start = NULL if resource == NULL else alloc_fast(heap, resource, n)
    owned_lock_leave(&heap.lock, within)
    return start if start != NULL else slow_path(n)


cdef inline void *malloc_fast(
    uint64_t n, Heaps *heaps, bint fine, SlowMalloc slow_path
) noexcept nogil:
    cdef Heap *heap = <Heap *> mine
    cdef Resource *resource
    cdef void *start
    if unlikely(heap == NULL or heap.heaps != heaps):
        return slow_path(n)
    if unlikely(not owned_lock_try(&heap.lock)):
        return slow.malloc_locked(n, heap, fine, slow_path)
    resource = find_fast(heap, n, fine)
    if unlikely(resource == NULL):
        owned_lock_leave(&heap.lock, True)
        return slow_path(n)
    start = alloc_fast(heap, resource, n)
    owned_lock_leave(&heap.lock, True)
    return start


cdef void *heap_malloc(uint64_t n, Heaps *heaps) noexcept nogil:
    return malloc_fast(n, heaps, False, heaps.malloc_slow_path)


cdef void *heap_malloc_else(uint64_t n, Heaps *heaps, SlowMalloc slow_path) noexcept nogil:
    return malloc_fast(n, heaps, False, slow_path)


cdef void *heap_malloc_fine(uint64_t n, Heaps *heaps, SlowMalloc slow_path) noexcept nogil:
    return malloc_fast(n, heaps, True, slow_path)


cdef bint heap_draws(Heaps *heaps, uint64_t n, uint64_t every) noexcept nogil:
    cdef Heap *heap = <Heap *> mine
    cdef int64_t left
    if n >= every or heap == NULL or heap.heaps != heaps:
        return True
    left = heap.until_sample - <int64_t> n
    if left < 0:
        return True
    heap.until_sample = left
    return False


cdef inline bint free_fast(Heap *heap, Resource *resource, void *start) noexcept nogil:
    """Takes a block back where that is simple, and it surely is one; then says so."""
    cdef Cache *cache = &heap.cache
    cdef int64_t cached
    if likely(slab_lends(resource, start)):
        if unlikely(slab_is_full(resource)):
            if resource.live == 1:
                return False
            link_freed(&cache.slabs[resource.size_class], resource)
        elif unlikely(resource.live <= 1):
            # Its last block: it stays carved where it is the one retained.
            cached = cache.cached + <int64_t> resource.bytes
            if (
                resource.live == 0 or cached > heap.most_cached_fast
                or cache.retained[resource.size_class] != resource
            ):
                return False
            cache.cached = cached
        slab_free(resource, start)
        cache.headroom += resource.block_size
        return True
    if (
        resource.block_size or resource.use != TAKEN or start != resource.base
        or cache.cached + <int64_t> resource.bytes > heap.most_cached_fast
    ):
        return False
    cache_free_whole(cache, resource)
    return True


cdef Outcome try_free_locked(Heap *heap, Resource *resource, void *start) noexcept nogil:
    cdef int within
    # In the shared heap there are blocks that others than heaps have to do with.
    if heap.heaps.lost or heap == &heap.heaps.shared:
        return enter_and_try_free(resource, start)
    within = owned_lock_enter(&heap.lock, &mine)
    if heap != heap_of(resource):
        owned_lock_leave(&heap.lock, within)
        return enter_and_try_free(resource, start)
    if not free_fast(heap, resource, start):
        return try_free(heap, resource, start, within)
    if has_too_much(heap):
        give_back(heap)
    owned_lock_leave(&heap.lock, within)
    return DONE


cdef void free_locked(void *start, Resource *resource, Heap *heap) noexcept nogil:
    if try_free_locked(heap, resource, start) != DONE:
        heap.heaps.free_slow_path(start)


cdef Outcome heap_try_free(Resource *resource, void *start) noexcept nogil:
    cdef Heap *heap = heap_of(resource)
    if unlikely(heap != <Heap *> mine):
        return slow.enter_and_try_free(resource, start)
    if unlikely(not owned_lock_try(&heap.lock)):
        return slow.try_free_locked(heap, resource, start)
    if unlikely(not free_fast(heap, resource, start)):
        return slow.try_free(heap, resource, start, True)
    if unlikely(has_too_much(heap)):
        return slow.give_back_and_leave(heap)
    owned_lock_leave(&heap.lock, True)
    return DONE


cdef void heap_free(void *start, Resource *resource) noexcept nogil:
    cdef Heap *heap = heap_of(resource)
    if unlikely(heap != <Heap *> mine):
        slow.enter_and_free(start, resource)
    elif unlikely(not owned_lock_try(&heap.lock)):
        slow.free_locked(start, resource, heap)
    elif unlikely(not free_fast(heap, resource, start)):
        slow.free(start, resource, heap)
    elif unlikely(has_too_much(heap)):
        slow.give_back_and_leave(heap)
    else:
        owned_lock_leave(&heap.lock, True)


# ---- headroom ----

cdef int64_t fair_part(const Heaps *heaps) noexcept nogil:
    return max(
        heaps_peak(heaps) // (KEPT_PART * max(heaps_takers(heaps), <int64_t> 1)),
        <int64_t> LEAST_KEPT)


cdef int64_t may_keep(const Heap *heap) noexcept nogil:
    return max(heap.most_kept, fair_part(heap.heaps)) if heap.most_kept else 0


cdef int64_t group_may_keep(const Heaps *heaps) noexcept nogil:
    return fair_part(heaps) * max(heaps_takers(heaps) // GROUPS, <int64_t> 1)


cdef void give_to_group(Heap *heap, int64_t n) noexcept nogil:
    """Where that has too much then, half of what it may keep stays."""
    cdef int64_t most = group_may_keep(heap.heaps)
    cdef int64_t has = add_atomically(&heap.group.headroom, n) + n
    if has > most:
        heap_unclaim(heap.heaps, take_atomically(&heap.group.headroom, has - most // 2))


cdef void give_back(Heap *heap) noexcept nogil:
    """Down to half of what it may keep. Where that is too little time and again, it keeps more."""
    cdef bint makes_none = heaps_peak(heap.heaps) == 0
    cdef int64_t more
    heap.most_headroom = 0 if makes_none else may_keep(heap)
    more = heap.cache.headroom - heap.most_headroom // 2
    if more <= 0:
        return
    heap.cache.headroom -= more
    heap.cache.withheld += more
    if makes_none or heap.most_kept == 0:
        heap_unclaim(heap.heaps, more)
        return
    give_to_group(heap, more)
    heap.times_given += 1
    if heap.times_given >= TIMES_GIVEN_BACK:
        heap.times_given = 0
        heap.most_kept = min(2 * may_keep(heap), INT64_MAX // 4)
        store_count(&heap.heaps.claims.uneven, True)


cdef bint claim_from_all(Heap *heap, int64_t missing) noexcept nogil:
    """For its group; and as much as is missing for the heap itself."""
    cdef Heaps *heaps = heap.heaps
    cdef Claims *claims = &heaps.claims
    cdef int64_t left = load_count(&claims.peak) - load_count(&claims.sum)
    cdef int64_t more = missing
    cdef int64_t sum
    if left < missing and load_count(&claims.uneven):
        return False
    if left > missing and heap.most_kept:
        more = max(more, min(left // (2 * GROUPS), group_may_keep(heaps) // 2))
    sum = add_atomically(&claims.sum, more) + more
    raise_atomically(&claims.peak, sum)
    raise_atomically(&claims.highest, sum)
    claims_tell(claims, sum)
    # Others may use, and give back, what the group has: it is claimed by then.
    if more > missing:
        add_atomically(&heap.group.headroom, more - missing)
    return True


cdef bint heap_claim(Heap *heap, int64_t n) noexcept nogil:
    cdef int64_t more = n - heap.cache.headroom
    cdef int64_t got
    if more <= 0:
        return True
    if load_count(&heap.heaps.claims.unclaimable):
        return False
    heap.most_headroom = may_keep(heap)
    got = take_atomically(&heap.group.headroom, more + heap.most_headroom // 2)
    if got < more and not claim_from_all(heap, more - got):
        add_atomically(&heap.group.headroom, got)
        return False
    got = max(got, more)
    heap.cache.headroom += got
    heap.cache.withheld -= got
    return True


cdef bint heap_serve_fresh(
    Heap *heap, Resource *resource, uint64_t n, Block *block
) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cdef bint claimed = heap_claim(heap, cache_capacity(resource, n))
    if claimed:
        heap.heaps.time += 1
        heap.cache.time = heap.heaps.time
        cache_serve_fresh(&heap.cache, resource, n, block)
    owned_lock_leave(&heap.lock, within)
    return claimed


cdef void heap_join(Heap *heap, Resource *resource) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cache_add(&heap.cache, resource)
    owned_lock_leave(&heap.lock, within)


cdef void heap_add_spare(Heap *heap, Resource *resource) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cache_spare(&heap.cache, resource)
    owned_lock_leave(&heap.lock, within)


cdef uint64_t heap_wants_spares(Heap *heap) noexcept nogil:
    cdef int within = owned_lock_enter(&heap.lock, &mine)
    cdef uint64_t spares = heap.cache.spares
    owned_lock_leave(&heap.lock, within)
    return SPARES - min(spares, <uint64_t> SPARES) if heap.heaps.splits else 0


cdef Outcome heap_gain(
    Heap *heap, Resource *resource, uint64_t n, Block *block
) noexcept nogil:
    if heap_serve_fresh(heap, resource, n, block):
        return DONE
    heap_join(heap, resource)
    return BOUND
