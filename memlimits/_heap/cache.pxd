"""Idle blocks: size classes, slabs, whole resources by size, oldest out.

Called under the lock of the heap that the cache belongs to.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from memlimits._heap.bins cimport (
    Bins, bins_add, bins_add_again, bins_closest, bins_remove, log2_floor,
)
from memlimits._heap.pagemap cimport PageMap
from memlimits._heap.resource cimport (
    IDLE, TAKEN, Block, Resource, slab_alloc, slab_is_full, unlikely, unlink,
)

cdef enum:
    # 1 to 8: multiples of 64 up to 512; then eight a power of two; from FINE on what lies between
    # multiples of 64 up to 128, in steps of 16.
    SIZE_CLASSES = 63
    FINE = 57
    LARGEST_SLAB_BLOCK = 32768  # a longer block is a resource of its own
    LARGEST_SLAB = 262144

cdef struct Cache:
    # Bytes that are in no caller's hands, in two parts: so many may be taken without a look
    # elsewhere, and the others. Where more may be taken than there is, the latter is below 0.
    int64_t headroom
    int64_t withheld
    int64_t cached                  # idle bytes in resources without a live block
    Resource *slabs[SIZE_CLASSES]   # slabs with a free block
    # The slab that lost its last live block most lately: it stays carved, should it be needed.
    # It may have live blocks again.
    Resource *retained[SIZE_CLASSES]
    uint64_t retained_classes       # a bit for each class that has one
    Bins bins                       # idle resources
    Bins purgeable_bins             # those whose pages the system may take
    Resource *oldest                # every idle resource, by the time it became idle
    Resource *newest
    Resource *spare                 # descriptors for what is split off, linked through `next`
    uint64_t spares                 # how many those are
    PageMap *pages
    const int64_t *tight            # Heaps.tight
    bint coalesced                  # nothing became idle since all was that could be, of up to
    uint64_t coalesced_longest      # so many bytes
    Resource *held                  # every resource whose home it is
    uint64_t resources              # how many those are
    uint32_t carved[SIZE_CLASSES]   # how many slabs there are
    uint64_t parts                  # bytes idle behind what callers hold a part of
    uint64_t purgeable              # bytes of those that the system may take
    uint64_t time                   # of the last step that told ages apart: a clock
    uint64_t page_size
    bint timed                      # what becomes idle notes when that was

cdef inline int64_t cache_idle(const Cache *cache) noexcept nogil:
    return cache.headroom + cache.withheld

# Whoever promises blocks that start at multiples of 64 asks for as many bytes; 16 is what malloc
# promises, and what all functions here keep to.
cdef inline uint64_t cache_coarse(uint64_t n) noexcept nogil:
    return n if n > 128 else max((n + 63) & ~<uint64_t> 63, <uint64_t> 64)


cdef inline uint32_t class_of(uint64_t n) noexcept nogil:
    """The smallest size class that holds n bytes; n from 0 to LARGEST_SLAB_BLOCK."""
    cdef uint64_t last = n - (n > 0)            # of the bytes, counted from 0
    if last < 128 and last & 48 != 48:
        return FINE + <uint32_t> ((last >> 4) - (last >> 6))
    cdef int power = log2_floor(last | 512)     # up to 512 the steps are those from 512 on
    return <uint32_t> ((power - 9) * 8 + (last >> (power - 3)) + 1)

# The length of the piece of a slab that serves n bytes, up to LARGEST_SLAB_BLOCK.
cdef extern uint64_t cache_block_size(uint64_t n) noexcept nogil
# Bytes to ask the device for, to serve n: comfortably, and at the very least.
cdef extern uint64_t cache_growth(const Cache *cache, uint64_t n) noexcept nogil
cdef extern uint64_t cache_least_growth(uint64_t page_size, uint64_t n) noexcept nogil
# The former, up to LARGEST_SLAB_BLOCK, for no more than is in slabs of the class already.
cdef extern uint64_t cache_next_slab(const Cache *cache, uint64_t n) noexcept nogil
# How much of a resource the page map must know: all of what can be a slab, else its first page.
cdef extern uint64_t cache_mapped(uint64_t page_size, uint64_t n) noexcept nogil

# What could serve n bytes: a slab with a free block, or an idle resource. NULL where nothing fits.
cdef extern Resource *cache_find(const Cache *cache, uint64_t n) noexcept nogil
# The same, but no slab.
cdef extern Resource *cache_find_idle(const Cache *cache, uint64_t n) noexcept nogil

# A resource that nobody holds a block of joins, fresh from the device or from another cache.
cdef extern void cache_add(Cache *cache, Resource *resource) noexcept nogil
# The capacity that a block of n bytes has there, and handing it out, which takes as much headroom;
# the latter also from one that joins with that, and that nobody holds a block of.
cdef extern uint64_t cache_capacity(const Resource *resource, uint64_t n) noexcept nogil
cdef extern void cache_serve(
    Cache *cache, Resource *resource, uint64_t n, Block *block) noexcept nogil
cdef extern void cache_serve_fresh(
    Cache *cache, Resource *resource, uint64_t n, Block *block) noexcept nogil

# Hands out an idle resource's first `given` bytes: the others stay idle, and are not cached. And
# what is given of one is so much from now on.
cdef extern void cache_serve_part(
    Cache *cache, Resource *resource, uint64_t given, Block *block) noexcept nogil
cdef extern void cache_give_more(Cache *cache, Resource *resource, uint64_t given) noexcept nogil

# Hands out a slab's block.
cdef inline char *cache_alloc(Cache *cache, Resource *slab) noexcept nogil:
    cdef char *start
    cache.headroom -= slab.block_size
    if unlikely(slab.live == 0):
        cache.cached -= slab.bytes
    start = slab_alloc(slab)
    if unlikely(slab_is_full(slab)):
        unlink(&cache.slabs[slab.size_class], slab)
    return start

# ---- idle resources: by size, and by the time they became idle ----

cdef inline uint64_t max_fit(uint64_t n) noexcept nogil:
    """A request may take a block up to one eighth longer: sizes that grow step by step then hit."""
    return n + n // 8


cdef inline void count_whole(Cache *cache, int64_t n) noexcept nogil:
    """A caller's, until now; or, below 0, from now on."""
    cache.headroom += n
    cache.cached += n


cdef inline void queue_newest(Cache *cache, Resource *resource) noexcept nogil:
    cache.coalesced = False
    resource.use = IDLE
    resource.holder = 0
    resource.idle_since = 0
    resource.idle_at = cache.time
    resource.newer = NULL
    resource.older = cache.newest
    if cache.newest != NULL:
        cache.newest.newer = resource
    else:
        cache.oldest = resource
    cache.newest = resource


cdef inline void unqueue(Cache *cache, Resource *resource) noexcept nogil:
    resource.use = TAKEN
    if resource.older != NULL:
        resource.older.newer = resource.newer
    else:
        cache.oldest = resource.newer
    if resource.newer != NULL:
        resource.newer.older = resource.older
    else:
        cache.newest = resource.older

# What serves n bytes above LARGEST_SLAB_BLOCK best; NULL where that takes another look.
cdef inline Resource *cache_closest(const Cache *cache, uint64_t n) noexcept nogil:
    return bins_closest(&cache.bins, n, max_fit(n))

# Puts an idle resource into the bins that are for it, and takes it out.
cdef inline void bin_idle(Cache *cache, Resource *resource) noexcept nogil:
    bins_add(&cache.purgeable_bins if resource.purgeable else &cache.bins, resource)


cdef inline void unbin_idle(Cache *cache, Resource *resource) noexcept nogil:
    bins_remove(&cache.purgeable_bins if resource.purgeable else &cache.bins, resource)

# Hands that out, and takes a whole resource back.
cdef inline char *cache_alloc_whole(Cache *cache, Resource *resource) noexcept nogil:
    bins_remove(&cache.bins, resource)
    unqueue(cache, resource)
    count_whole(cache, -<int64_t> resource.bytes)
    return resource.base

cdef inline void cache_free_whole(Cache *cache, Resource *resource) noexcept nogil:
    resource.zeros = False
    queue_newest(cache, resource)
    bins_add_again(&cache.bins, resource)
    count_whole(cache, resource.bytes)

# ---- any resource ----

# By how much `cached` rises when a block of the resource comes back, and taking it back.
cdef inline int64_t cache_rise(const Resource *resource) noexcept nogil:
    return 0 if resource.block_size and resource.live > 1 else resource.bytes
cdef extern void cache_free(Cache *cache, Resource *resource, void *start) noexcept nogil

# All that lies in one lies in the other from now on, the newest of what is idle there. Both locks.
cdef extern void cache_merge(Cache *into, Cache *other) noexcept nogil

# A descriptor for what is split off later.
cdef inline void cache_spare(Cache *cache, Resource *resource) noexcept nogil:
    resource.next = cache.spare
    cache.spare = resource
    cache.spares += 1

# Makes retained slabs plain idle resources, for any class or length.
cdef extern void cache_retire(Cache *cache) noexcept nogil
# Bytes of the largest idle resource.
cdef extern uint64_t cache_largest_idle(const Cache *cache) noexcept nogil
# Takes an idle resource out; it joins another cache, or is DETACHED.
cdef extern void cache_remove(Cache *cache, Resource *resource) noexcept nogil
# Its home is this cache from now on, or no more; what that holds is not counted here.
cdef extern void cache_list(Cache *cache, Resource *resource) noexcept nogil
cdef extern void cache_unlist(Cache *cache, Resource *resource) noexcept nogil

# Idle memory that the system may take back. A plain hit never sees a purgeable resource.
#
# From now on what becomes idle notes when that was, in ns, and what is idle already notes `now`; or
# it ceases to. What the functions above do in a line notes nothing: cache_free and cache_add do.
cdef extern void cache_set_timed(Cache *cache, bint timed, uint64_t now) noexcept nogil
# A resource comes back that had been taken out to become purgeable: as the oldest of all where it
# is that now, else as the newest.
cdef extern void cache_put_back(Cache *cache, Resource *resource) noexcept nogil
# A purgeable resource that could serve n bytes; NULL without one.
cdef extern Resource *cache_find_purgeable(const Cache *cache, uint64_t n) noexcept nogil
