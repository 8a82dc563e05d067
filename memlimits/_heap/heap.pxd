"""One thread's idle blocks, and all heaps of one allocator.

A thread takes blocks from its own heap and gives blocks to the heap that they came from, under that
heap's lock alone, which nobody else wants then: no line of memory is shared with other threads.
What keeps every limit, and the peak, right meanwhile is two bounds:

- `headroom`: so much a heap may take before it claims more: from what its group has for it, else of
  the one sum that all share, of what is active and all headroom. The peak is the most that this sum
  was. A claim is for a part of what is left up to the peak; at the peak, for just what is to be
  taken.
- `most_cached`: giving a block that would bring `cached` above it could pass the cache limit, or is
  to be returned at once. The sum over all heaps is within the cache limit.

A step that would cross one goes the slow way. `Heaps.lock` is taken first, heaps' locks inside it,
in the order of the list; who holds none but one heap's lock takes no other. Where all are held,
nothing moves: that is what "stopped" means.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from memlimits._base.sync cimport (
    add_atomically, load_acquire, load_count, pthread_mutex_t, store_count, store_release,
)
from memlimits._heap.cache cimport Cache, cache_find, cache_find_idle, cache_remove
from memlimits._heap.lock cimport owned_lock
from memlimits._heap.pagemap cimport PageMap
from memlimits._heap.resource cimport DETACHED, Block, Resource

cdef enum:
    LEAST_KEPT = 32768          # of most_kept, while there is a thread
    KEPT_PART = 100             # of the peak, may be headroom of all heaps; likewise of all groups
    GROUPS = 8                  # which the heaps belong to in turn
    FIRST_HITS = 256            # of a thread that begins
    TOLD_FROM = 16384           # bytes by which what is claimed differs from what was told of it

cdef struct Heap:
    Cache cache                 # the first field: Resource.home points at it
    owned_lock lock             # its thread's; guards the cache and the bounds
    int64_t most_cached_fast        # most_cached; or -1: what is to be cached needs another look
    int64_t most_headroom       # above it some is given back; 0 until it claims
    int64_t most_kept           # which that may be, or what is fair; 0: nothing
    int64_t most_cached
    int times_given             # that it gave headroom back since most_kept was as it is
    uint64_t hits
    uint64_t hits_before        # those before its thread came
    uint64_t steals             # of idle resources, without Heaps.lock
    Heap *asked                 # for such, the last time
    Heaps *heaps                # NULL once they are closed
    Group *group
    Heap *next                  # of the same allocator; or spare
    Heap *next_mine             # of the same thread; or ended
    bint ended                  # its thread is gone
    # For samples of who takes blocks (_engine/samples): bytes until the next, and chance. Its own
    # thread's; atomic where several use the shared one.
    int64_t until_sample
    int64_t chance
    Resource *cursor            # for heaps_next_idle

# What all heaps write, atomically, each under its own lock alone.
cdef struct Claims:
    int64_t sum                 # what is active, and all headroom
    int64_t peak                # the most that it was since the start, or the last reset
    int64_t highest             # likewise, for Limits.highest
    int64_t takers              # heaps that threads take from
    int64_t unclaimable         # every step that takes is to be seen, while all are stopped
    int64_t uneven              # some heap may keep more than is fair
    int64_t *told               # `sum`, about, where others see it
    int64_t untold              # where nobody does

cdef struct Group:
    int64_t headroom            # that its heaps may have: atomic
    char _apart[120]

# The line that others see is written seldom: who does that has it from all other threads.
cdef inline void claims_tell(Claims *claims, int64_t sum) noexcept nogil:
    cdef int64_t *told = <int64_t *> load_acquire(<void **> &claims.told)
    cdef int64_t more = sum - load_count(told)
    if more > TOLD_FROM or more < -TOLD_FROM:
        store_count(told, sum)

ctypedef void *(*SlowMalloc)(uint64_t n) noexcept nogil

cdef struct Heaps:
    char _apart[64]
    Claims claims
    char _apart_too[120]
    Group groups[GROUPS]
    pthread_mutex_t lock        # guards what all heaps share, and the list
    Heap shared                 # for when no other can be had; the first of the list
    Heap *ended                 # for the next new threads, or for who needs what lies there
    Heap *spare                 # nobody's, and empty: never freed, as somebody may look at its lock
    uint64_t time               # counts the steps after which ages can be told apart
    # For heap_malloc and heap_free.
    SlowMalloc malloc_slow_path
    void (*free_slow_path)(void *start) noexcept nogil
    # Atomic: a limit is near to what was active at most, and idle resources may be split; and for
    # growth by so many bytes and more there was no room, or idle memory would have to go for it.
    int64_t tight
    int64_t full_from
    bint splits                 # idle resources may be split and coalesced; set while stopped
    # In a forked child whose device did not survive: contents are not there to be touched, so
    # nothing is served (EMPTY), and what comes back is for the slow way (BOUND).
    bint lost

# With the heap's lock.
cdef inline void set_most_cached(Heap *heap, int64_t most) noexcept nogil:
    heap.most_cached = most
    heap.most_cached_fast = -1 if heap.cache.timed else most

cdef enum Outcome:
    DONE
    EMPTY       # nothing fits
    BOUND       # it would cross a bound; nothing was done

cdef extern void heap_open_all(
    Heaps *heaps, PageMap *pages, uint64_t page_size) noexcept nogil
cdef extern void heap_close_all(Heaps *heaps) noexcept nogil

# This thread's heap; the shared one where there is no memory for one.
cdef extern Heap *heap_mine(Heaps *heaps) noexcept nogil
# For a thread's first step, if it is to take no blocks: it gets no heap, which all would look at.
cdef extern void heap_do_without(Heaps *heaps) noexcept nogil
cdef inline Heap *heap_of(const Resource *resource) noexcept nogil:
    return <Heap *> load_acquire(<void **> &resource.home)

# Whether its thread has hardly begun. Nobody has its errors then: who started it may wait until it
# says that it runs.
cdef inline bint heap_begins(const Heap *heap) noexcept nogil:
    return heap != &heap.heaps.shared and heap.hits - heap.hits_before < FIRST_HITS

# From now on this thread takes from another heap. Returns the one before.
cdef extern Heap *heap_swap_mine(Heaps *heaps, Heap *heap) noexcept nogil

# The fast path, under one heap's lock: from this thread's heap, and back to the block's.
cdef extern Outcome heap_try_alloc(Heaps *heaps, uint64_t n, Block *block) noexcept nogil
# The same in steps of 16 bytes, as malloc's, and not as fast.
cdef extern Outcome heap_try_alloc_fine(Heaps *heaps, uint64_t n, Block *block) noexcept nogil
# Where nothing fits: a whole resource of n to `longest` bytes.
cdef extern Outcome heap_alloc_longer(
    Heaps *heaps, uint64_t n, uint64_t longest, Block *block) noexcept nogil
# Or from the first `growth` bytes of an idle resource here, split off; where memory is short also
# of what was not made to be split, and is no longer than `longest`, and from less than `growth`.
cdef extern Outcome heap_split(
    Heaps *heaps, uint64_t n, uint64_t growth, uint64_t longest, Block *block) noexcept nogil
# The first `given` bytes of an idle resource that has `least` or more, for what grows step by step;
# with the heap's lock, one that serves that, or NULL; and `given` bytes of one that is a PART for
# its caller, EMPTY where it has less.
cdef extern Outcome heap_take_part(
    Heaps *heaps, uint64_t given, uint64_t least, Block *block) noexcept nogil
cdef extern Resource *heap_find_part(
    const Heap *heap, uint64_t given, uint64_t least) noexcept nogil
cdef extern Outcome heap_extend(Resource *resource, uint64_t given) noexcept nogil
cdef extern Outcome heap_try_free(Resource *resource, void *start) noexcept nogil
# One that was on its slab's list, and is not any more.
cdef extern Outcome heap_try_free_noted(Resource *resource, void *start) noexcept nogil
# Under Heaps.lock, by who holds all of a resource: it comes back as BOUND, until it is put back.
cdef inline void heap_put_apart(Heaps *heaps, Resource *resource) noexcept nogil:
    if resource.taker == NULL:
        resource.taker = resource.home
        store_release(&resource.home, &heaps.shared)


cdef inline void heap_put_back(Resource *resource) noexcept nogil:
    if resource.taker != NULL:
        store_release(&resource.home, resource.taker)
        resource.taker = NULL

# While stopped: an idle resource leaves the cache, for a device call. Its heap may end meanwhile.
cdef inline void heap_detach(Heaps *heaps, Resource *resource) noexcept nogil:
    cache_remove(<Cache *> resource.home, resource)
    store_release(&resource.home, &heaps.shared)
    resource.use = DETACHED

# What serves n bytes. A block that is `apart`, to come back the slow way, is no piece of a slab of
# a thread's heap: its owner's frees look at nothing else.
cdef inline Resource *heap_find(const Heap *heap, uint64_t n, bint apart) noexcept nogil:
    if apart and heap != &heap.heaps.shared:
        return cache_find_idle(&heap.cache, n)
    return cache_find(&heap.cache, n)

# Whether n bytes that this thread is about to take may be a sample: always from `every` on, else
# once as many are taken as are left until the next.
cdef extern bint heap_draws(Heaps *heaps, uint64_t n, uint64_t every) noexcept nogil

# The same for who needs an address only; what takes another look goes on to the functions that the
# heaps have for it.
cdef extern void *heap_malloc(uint64_t n, Heaps *heaps) noexcept nogil
# With a slow path of the caller's; and in steps of 16 bytes, as malloc's.
cdef extern void *heap_malloc_else(
    uint64_t n, Heaps *heaps, SlowMalloc slow_path) noexcept nogil
cdef extern void *heap_malloc_fine(
    uint64_t n, Heaps *heaps, SlowMalloc slow_path) noexcept nogil
cdef extern void heap_free(void *start, Resource *resource) noexcept nogil

# Under Heaps.lock alone: a resource that is in no heap joins, its bytes not pending any more, and
# serves n. False: that would cross the bound, and nothing was done.
cdef extern bint heap_serve_fresh(
    Heap *heap, Resource *resource, uint64_t n, Block *block) noexcept nogil
# Likewise: it joins, and is idle.
cdef extern void heap_join(Heap *heap, Resource *resource) noexcept nogil
# Both; BOUND: it has joined only, and whoever takes from the heap next may have it.
cdef extern Outcome heap_gain(
    Heap *heap, Resource *resource, uint64_t n, Block *block) noexcept nogil
# Whether n bytes are cut from whatever is idle.
cdef inline bint heaps_are_full(const Heaps *heaps, uint64_t n) noexcept nogil:
    return n >= <uint64_t> load_count(&heaps.full_from)

# Under Heaps.lock: whether there is a bound to what each may cache.
cdef inline bint heaps_are_bounded(const Heaps *heaps) noexcept nogil:
    return heaps.shared.most_cached != INT64_MAX
# A descriptor that is SPARE, for what it splits off; and how many it wants.
cdef extern void heap_add_spare(Heap *heap, Resource *resource) noexcept nogil
cdef extern uint64_t heap_wants_spares(Heap *heap) noexcept nogil

# With the heap's lock: headroom of n bytes at least. False: all heaps have to stop for it.
cdef extern bint heap_claim(Heap *heap, int64_t n) noexcept nogil
# So much is active no more, or headroom.
cdef inline void heap_unclaim(Heaps *heaps, int64_t n) noexcept nogil:
    claims_tell(&heaps.claims, add_atomically(&heaps.claims.sum, -n) - n)

cdef inline int64_t heaps_takers(const Heaps *heaps) noexcept nogil:
    return load_count(&heaps.claims.takers)

cdef inline uint64_t heaps_left(const Heaps *heaps) noexcept nogil:
    """How much may be claimed until it is more than ever."""
    cdef int64_t left = load_count(&heaps.claims.highest) - load_count(&heaps.claims.sum)
    return max(left, <int64_t> 0)

cdef inline int64_t heaps_peak(const Heaps *heaps) noexcept nogil:
    return load_count(&heaps.claims.peak)

cdef inline int64_t heaps_highest(const Heaps *heaps) noexcept nogil:
    return load_count(&heaps.claims.highest)

# While stopped.
cdef inline void heaps_reset_peak(Heaps *heaps) noexcept nogil:
    store_count(&heaps.claims.peak, 0)

cdef inline void heaps_set_highest(Heaps *heaps, int64_t highest) noexcept nogil:
    store_count(&heaps.claims.highest, highest)

# Whether the C library asks malloc for memory when a thread's first heap is noted: malloc must not
# need a heap then.
cdef extern bint heap_noting_needs_malloc() noexcept nogil

# Under Heaps.lock, with the heap's: its thread is gone.
cdef extern void heap_end(Heap *heap) noexcept nogil
# Whether there is a heap that has ended. Under Heaps.lock: all that one has is this heap's from now
# on.
cdef inline bint heaps_any_ended(const Heaps *heaps) noexcept nogil:
    return load_acquire(<void **> &heaps.ended) != NULL
cdef extern void heap_absorb(Heap *heap) noexcept nogil

# What tells this thread from others, as an owner of locks.
cdef extern const void *heap_self() noexcept nogil
# Around a fork: who owns which heap stays as it is.
cdef extern void owners_lock() noexcept nogil
cdef extern void owners_unlock(bint child) noexcept nogil
