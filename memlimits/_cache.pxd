"""Idle blocks: size classes, slabs, whole resources by size, oldest out.

Called under the allocator's lock. Blocks and their counters move together: each function leaves
`Limits` as its identity wants it.
"""

from libc.stdint cimport uint64_t

from memlimits._limits cimport Limits
from memlimits._resource cimport Block, Resource

cdef enum:
    SIZE_CLASSES = 57           # 1 to 8: multiples of 64 up to 512; then eight a power of two
    BINS = 416                  # eight a power of two from 4 KiB
    LARGEST_SLAB_BLOCK = 32768  # a longer block is a resource of its own
    LARGEST_SLAB = 262144

cdef struct Cache:
    Resource *bins[BINS]            # idle resources by size, the newest first
    Resource *purgeable_bins[BINS]  # those whose pages the system may take
    Resource *slabs[SIZE_CLASSES]   # slabs with a free block and a live one
    Resource *oldest                # every idle resource, by the time it became idle
    Resource *newest
    uint64_t purgeable              # bytes of idle resources that are
    uint64_t page_size

# Bytes to ask the device for, to serve n: comfortably, and at the very least.
cdef uint64_t cache_growth(const Cache *cache, uint64_t n) noexcept nogil
cdef uint64_t cache_least_growth(const Cache *cache, uint64_t n) noexcept nogil
# How much of a resource the page map must know: all of what can be a slab, else its first page.
cdef uint64_t cache_mapped(const Cache *cache, uint64_t n) noexcept nogil

# Serves n bytes from what is idle. False where nothing fits.
cdef bint cache_take(Cache *cache, Limits *limits, uint64_t n, Block *block) noexcept nogil
# Serves n bytes from a resource that the device just made.
cdef void cache_serve(
    Cache *cache, Limits *limits, Resource *resource, uint64_t n, Block *block) noexcept nogil
# Takes a block back.
cdef void cache_give(
    Cache *cache, Limits *limits, Resource *resource, void *start) noexcept nogil
# Takes idle resources out, oldest first, until they hold `enough` bytes or none is left; linked
# through `next`. The counters stay: the caller turns `detached` bytes from cache into pending.
cdef Resource *cache_detach(Cache *cache, uint64_t enough, uint64_t *detached) noexcept nogil

# Idle memory that the system may take back. A plain hit never sees a purgeable resource.
#
# Notes the time, in ns, for whatever became idle since the last step. Then takes resources out, as
# cache_detach does, that have been idle since `before` and may become purgeable: not wired ones.
cdef void cache_note_idle(Cache *cache, uint64_t now) noexcept nogil
cdef Resource *cache_age(
    Cache *cache, uint64_t before, uint64_t enough, uint64_t *aged) noexcept nogil
# Puts one back: as the oldest of all where it is purgeable now, else as the newest.
cdef void cache_put_back(Cache *cache, Limits *limits, Resource *resource) noexcept nogil
# A purgeable resource that could serve n bytes, NULL without one; and taking it out of the cache.
cdef Resource *cache_find_purgeable(const Cache *cache, uint64_t n) noexcept nogil
cdef void cache_take_purgeable(Cache *cache, Resource *resource) noexcept nogil
