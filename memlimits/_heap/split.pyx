from libc.stdint cimport UINT64_MAX, int64_t

from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport load_acquire, store_release
from memlimits._device.mlim cimport MLIM_OK, mlim_buffer_join, mlim_status
from memlimits._heap.bins cimport bin_of, bins_longest, bins_next
from memlimits._heap.cache cimport (
    bin_idle, cache_list, cache_mapped, cache_retire, cache_spare, cache_unlist, max_fit,
    unbin_idle, unqueue,
)
from memlimits._heap.pagemap cimport (
    pagemap_find, pagemap_reaches, pagemap_remove, pagemap_write,
)
from memlimits._heap.resource cimport IDLE, OUTSIDE, SPARE, resource_split

cdef enum:
    MOST_LOOKED_AT = 256    # idle resources, to be coalesced
    BINS_LOOKED_AT = 8


cdef inline bint is_plain(const Resource *resource) noexcept nogil:
    """Nobody but its heap has to do with it."""
    return resource.wiring == OUTSIDE and not resource.purgeable


cdef bint may_split(const Resource *resource, uint64_t longest) noexcept nogil:
    """What was made for blocks of one length stays whole, but for up to `longest` bytes."""
    return is_plain(resource) and (resource.mixed or resource.bytes <= longest)


cdef void place(Cache *cache, Resource *resource) noexcept nogil:
    """In the page map, where it lies where there are nodes, and in the bin of its length."""
    pagemap_write(cache.pages, resource, cache_mapped(cache.page_size, resource.bytes))
    bin_idle(cache, resource)


cdef void queue_behind(Cache *cache, Resource *resource, Resource *rest) noexcept nogil:
    """As old as the other."""
    rest.use = IDLE
    rest.idle_at = resource.idle_at
    rest.idle_since = resource.idle_since
    rest.older = resource
    rest.newer = resource.newer
    resource.newer = rest
    if rest.newer != NULL:
        rest.newer.older = rest
    else:
        cache.newest = rest


cdef bint split(Cache *cache, Resource *resource, uint64_t n) noexcept nogil:
    """An idle resource keeps its first n bytes; the others are one of their own."""
    cdef Resource *rest = cache.spare
    if (
        rest == NULL or not is_plain(resource)
        or not pagemap_reaches(cache.pages, resource.base, resource.bytes)
        or not resource_split(resource, n, rest)
    ):
        return False
    cache.spare = rest.next
    cache.spares -= 1
    cache_list(cache, rest)
    queue_behind(cache, resource, rest)
    unbin_idle(cache, resource)
    resource.mixed = rest.mixed = True
    place(cache, resource)
    place(cache, rest)
    return True


cdef bint are_alike(const Resource *one, const Resource *other) noexcept nogil:
    return (
        one.lingers == other.lingers
        and one.looked_at == other.looked_at and one.inherited == other.inherited)


cdef void end_descriptor(Cache *cache, Resource *resource) noexcept nogil:
    store_release(&resource.home, NULL)
    resource.use = SPARE
    resource.buffer = NULL
    resource.bytes = resource.given = resource.cleared = 0
    resource.grew = False
    cache_spare(cache, resource)


cdef bint join_next(Cache *cache, Resource *resource, uint64_t longest) noexcept nogil:
    """What lies behind an idle resource becomes a part of it, if that is idle here, too."""
    cdef Resource *next = pagemap_find(cache.pages, resource.base + resource.bytes)
    cdef mlim_status status
    # Of one that is not at home here no more is known.
    if (
        next == NULL or load_acquire(&next.home) != cache or next.use != IDLE
        or not are_alike(resource, next) or not may_split(next, longest)
        or not pagemap_reaches(cache.pages, resource.base, resource.bytes + next.bytes)
    ):
        return False
    own_begin()
    status = mlim_buffer_join(resource.buffer, next.buffer, NULL)
    own_end()
    if status != MLIM_OK:
        return False
    pagemap_remove(cache.pages, resource, cache_mapped(cache.page_size, resource.bytes))
    pagemap_remove(cache.pages, next, cache_mapped(cache.page_size, next.bytes))
    unbin_idle(cache, next)
    unqueue(cache, next)
    cache_unlist(cache, next)
    unbin_idle(cache, resource)
    resource.bytes += next.bytes
    resource.zeros = resource.zeros and next.zeros
    if cache.timed:
        resource.idle_since = max(resource.idle_since, next.idle_since)
    resource.mixed = True
    place(cache, resource)
    end_descriptor(cache, next)
    return True


cdef Resource *coalesce(
    Cache *cache, uint64_t n, uint64_t longest, uint64_t looks
) noexcept nogil:
    """The first that has n bytes once it has those behind it, of so many idle resources."""
    cdef Resource *resource
    cdef uint64_t _i
    cache_retire(cache)
    if cache.coalesced and longest <= cache.coalesced_longest:
        return NULL
    resource = cache.oldest
    for _i in range(looks):
        if resource == NULL:
            break
        while resource.bytes < n and may_split(resource, longest) and (
            join_next(cache, resource, longest)
        ):
            pass
        if resource.bytes >= n and may_split(resource, longest):
            return resource
        resource = resource.newer
    cache.coalesced = True
    cache.coalesced_longest = longest
    return NULL


cdef void cache_coalesce(Cache *cache, uint64_t longest) noexcept nogil:
    cache.coalesced = False
    coalesce(cache, UINT64_MAX, longest, UINT64_MAX)


cdef Resource *cache_find_longer(
    const Cache *cache, uint64_t n, uint64_t longest
) noexcept nogil:
    cdef int b = bins_next(&cache.bins, bin_of(n - 1) + 1)
    cdef int _i
    for _i in range(BINS_LOOKED_AT):
        if b < 0:
            break
        if may_split(cache.bins.first[b], longest):
            return cache.bins.first[b]
        b = bins_next(&cache.bins, b + 1)
    return NULL


cdef Resource *cache_split(
    Cache *cache, uint64_t n, uint64_t least, uint64_t longest
) noexcept nogil:
    cdef Resource *found = cache_find_longer(cache, n, longest)
    if found == NULL and cache.cached >= <int64_t> n:
        found = coalesce(cache, n, longest, MOST_LOOKED_AT)
    if found == NULL and longest:
        return bins_longest(&cache.bins, least, n)
    return found if found == NULL or found.bytes <= max_fit(n) or split(cache, found, n) else NULL
