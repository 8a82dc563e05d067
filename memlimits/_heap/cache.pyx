from memlimits._base.sync cimport CLOCK_COARSE, load_count, store_release, time_of
from memlimits._heap.bins cimport bin_of, bins_find, bins_largest, bins_step
from memlimits._heap.resource cimport (
    IDLE, PART, TAKEN, link, link_freed, slab_carve, slab_free, slab_is_full,
)

cdef enum:
    SMALLEST_SLAB = 65536
    TIGHT_SLAB = 16384      # where memory is short
    BLOCKS_A_SLAB = 8       # at least
    MOST_DOUBLED = 8        # a page, up to a whole slab


cdef inline uint64_t round_up(uint64_t n, uint64_t multiple) noexcept nogil:
    """`multiple` is a power of two."""
    return (n + multiple - 1) & ~(multiple - 1)


cdef uint32_t class_size(uint32_t size_class) noexcept nogil:
    cdef uint32_t power, eighths
    if size_class <= 8:
        return size_class * 64
    if size_class >= FINE:
        return (size_class - FINE + 1 + (size_class - FINE) // 3) * 16
    power = 8 + (size_class - 1) // 8
    eighths = (size_class - 1) % 8 + 1
    return (<uint32_t> 1 << power) + (eighths << (power - 3))


cdef uint64_t cache_block_size(uint64_t n) noexcept nogil:
    return class_size(class_of(n))


cdef uint64_t slab_size(const Cache *cache, uint32_t block_size) noexcept nogil:
    """The smallest power of two that holds BLOCKS_A_SLAB blocks, at least SMALLEST_SLAB.

    Where memory is short, whole pages that hold the blocks of TIGHT_SLAB.
    """
    cdef uint64_t least = max(<uint64_t> block_size * BLOCKS_A_SLAB, <uint64_t> SMALLEST_SLAB)
    if load_count(cache.tight):
        least = (TIGHT_SLAB + block_size - 1) // block_size * block_size
        return round_up(least, cache.page_size)
    return <uint64_t> 1 << (log2_floor(least - 1) + 1)


cdef uint64_t cache_growth(const Cache *cache, uint64_t n) noexcept nogil:
    if n <= LARGEST_SLAB_BLOCK:
        return slab_size(cache, class_size(class_of(n)))
    # All of one bin serve the same requests.
    return round_up(n, max(cache.page_size, bins_step(n)))


cdef uint64_t cache_least_growth(uint64_t page_size, uint64_t n) noexcept nogil:
    if n <= LARGEST_SLAB_BLOCK:
        n = class_size(class_of(n))
    return round_up(n, page_size)


cdef uint64_t cache_next_slab(const Cache *cache, uint64_t n) noexcept nogil:
    cdef uint32_t carved = cache.carved[class_of(n)]
    return min(cache_growth(cache, n),
               cache_least_growth(cache.page_size, n) << min(carved, <uint32_t> MOST_DOUBLED))


cdef uint64_t cache_mapped(uint64_t page_size, uint64_t n) noexcept nogil:
    return n if n <= max_fit(LARGEST_SLAB) else page_size


cdef void note_time(const Cache *cache, Resource *resource) noexcept nogil:
    if cache.timed:
        resource.idle_since = time_of(CLOCK_COARSE)


cdef void add_idle(Cache *cache, Resource *resource) noexcept nogil:
    queue_newest(cache, resource)
    note_time(cache, resource)
    bin_idle(cache, resource)


cdef void remove_idle(Cache *cache, Resource *resource) noexcept nogil:
    unbin_idle(cache, resource)
    if resource.purgeable:
        cache.purgeable -= resource.bytes
    unqueue(cache, resource)


cdef Resource *cache_find(const Cache *cache, uint64_t n) noexcept nogil:
    cdef Resource *slab = cache.slabs[class_of(n)] if n <= LARGEST_SLAB_BLOCK else NULL
    return slab if slab != NULL else find_serving(cache, &cache.bins, n)


cdef Resource *cache_find_idle(const Cache *cache, uint64_t n) noexcept nogil:
    return find_serving(cache, &cache.bins, n)


cdef Resource *find_serving(const Cache *cache, const Bins *bins, uint64_t n) noexcept nogil:
    """An idle resource that could serve n bytes, as a slab where they are few; NULL without one."""
    cdef Resource *resource
    cdef uint64_t growth = cache_growth(cache, n)
    cdef uint64_t least, shorter
    if n > LARGEST_SLAB_BLOCK:
        # Its own pages serve it, even where they are more than an eighth longer.
        return bins_find(bins, n, max(max_fit(n), growth))
    resource = bins_find(bins, growth, max_fit(growth))
    least = shorter = cache_least_growth(cache.page_size, n)
    while 2 * shorter < SMALLEST_SLAB:
        shorter *= 2
    # One that was made when a whole slab did not fit, or was not needed.
    while resource == NULL and shorter >= least:
        resource = bins_find(bins, shorter, max_fit(shorter))
        shorter //= 2
    return resource


cdef void count_joined(Cache *cache, int64_t n) noexcept nogil:
    cache.withheld += n
    cache.cached += n


cdef void cache_list(Cache *cache, Resource *resource) noexcept nogil:
    store_release(&resource.home, cache)
    resource.held_before = NULL
    resource.held_after = cache.held
    if cache.held != NULL:
        cache.held.held_before = resource
    cache.held = resource
    cache.resources += 1


cdef void cache_unlist(Cache *cache, Resource *resource) noexcept nogil:
    cache.resources -= 1
    if resource.held_before != NULL:
        resource.held_before.held_after = resource.held_after
    else:
        cache.held = resource.held_after
    if resource.held_after != NULL:
        resource.held_after.held_before = resource.held_before


cdef void cache_add(Cache *cache, Resource *resource) noexcept nogil:
    cache_list(cache, resource)
    count_joined(cache, resource.bytes)
    add_idle(cache, resource)


cdef void cache_remove(Cache *cache, Resource *resource) noexcept nogil:
    remove_idle(cache, resource)
    cache_unlist(cache, resource)
    count_joined(cache, -<int64_t> resource.bytes)


cdef uint64_t cache_capacity(const Resource *resource, uint64_t n) noexcept nogil:
    if resource.block_size:
        return resource.block_size
    return class_size(class_of(n)) if n <= LARGEST_SLAB_BLOCK else resource.bytes


cdef void hand_out_whole(Resource *resource, Block *block) noexcept nogil:
    block.resource = resource
    block.start = resource.base
    block.capacity = resource.bytes
    block.zeros = resource.zeros


cdef void hand_out_piece(Cache *cache, Resource *slab, Block *block) noexcept nogil:
    block.resource = slab
    block.capacity = slab.block_size
    block.zeros = slab.free_blocks == NULL and slab.zeros
    block.start = cache_alloc(cache, slab)


cdef void carve(Cache *cache, Resource *resource, uint64_t n) noexcept nogil:
    """For blocks of n bytes; it is queued no more, or not yet."""
    cdef uint32_t size_class = class_of(n)
    slab_carve(resource, class_size(size_class), size_class)
    cache.carved[size_class] += 1
    link(&cache.slabs[size_class], resource)


cdef void cache_serve(Cache *cache, Resource *resource, uint64_t n, Block *block) noexcept nogil:
    if resource.block_size == 0:
        remove_idle(cache, resource)
        if n > LARGEST_SLAB_BLOCK:
            hand_out_whole(resource, block)
            count_whole(cache, -<int64_t> resource.bytes)
            return
        carve(cache, resource, n)
    hand_out_piece(cache, resource, block)


cdef void cache_serve_fresh(
    Cache *cache, Resource *resource, uint64_t n, Block *block
) noexcept nogil:
    cache_list(cache, resource)
    resource.use = TAKEN
    count_joined(cache, resource.bytes)
    if n > LARGEST_SLAB_BLOCK:
        resource.bin = bin_of(resource.bytes)
        hand_out_whole(resource, block)
        count_whole(cache, -<int64_t> resource.bytes)
        return
    carve(cache, resource, n)
    hand_out_piece(cache, resource, block)


cdef void cache_serve_part(
    Cache *cache, Resource *resource, uint64_t given, Block *block
) noexcept nogil:
    remove_idle(cache, resource)
    hand_out_whole(resource, block)
    resource.use = PART
    resource.given = 0
    cache.cached -= resource.bytes
    cache.parts += resource.bytes
    cache_give_more(cache, resource, given)
    block.capacity = given


cdef void cache_give_more(Cache *cache, Resource *resource, uint64_t given) noexcept nogil:
    cdef int64_t more = given - resource.given
    resource.given = given
    cache.headroom -= more
    cache.parts -= more


cdef void cache_free(Cache *cache, Resource *resource, void *start) noexcept nogil:
    cdef uint32_t size_class = resource.size_class
    cdef Resource *retained
    cdef bint was_full
    if resource.block_size:
        cache.headroom += resource.block_size
        was_full = slab_is_full(resource)
        slab_free(resource, start)
        if was_full:
            link_freed(&cache.slabs[size_class], resource)
        if resource.live:
            return
        resource.pinned = 0
        note_time(cache, resource)
        cache.cached += resource.bytes
        # One a class stays as it is: it is likely to be needed again at once.
        retained = cache.retained[size_class]
        if retained == NULL or retained.live:
            cache.retained[size_class] = resource
            cache.retained_classes |= <uint64_t> 1 << size_class
        elif retained != resource:
            make_plain(cache, resource)
        return
    resource.pinned = 0
    if resource.use == PART:
        cache_give_more(cache, resource, resource.bytes)    # all of it comes back
        resource.grew = True
    cache_free_whole(cache, resource)
    note_time(cache, resource)


cdef void make_plain(Cache *cache, Resource *slab) noexcept nogil:
    """A slab without a live block becomes an idle resource again."""
    cdef uint64_t since = slab.idle_since   # its last block came back then
    unlink(&cache.slabs[slab.size_class], slab)
    slab.block_size = 0
    slab.bound = 0
    slab.zeros = False
    cache.carved[slab.size_class] -= 1
    add_idle(cache, slab)
    if cache.timed:
        slab.idle_since = since


cdef uint64_t cache_largest_idle(const Cache *cache) noexcept nogil:
    cdef uint64_t largest = max(bins_largest(&cache.bins), bins_largest(&cache.purgeable_bins))
    cdef uint64_t classes = cache.retained_classes
    cdef const Resource *retained
    while classes:
        retained = cache.retained[log2_floor(classes)]
        classes ^= <uint64_t> 1 << log2_floor(classes)
        if retained.live == 0:
            largest = max(largest, retained.bytes)
    return largest


cdef void cache_retire(Cache *cache) noexcept nogil:
    cdef uint32_t size_class
    while cache.retained_classes:
        size_class = log2_floor(cache.retained_classes)
        cache.retained_classes ^= <uint64_t> 1 << size_class
        if cache.retained[size_class].live == 0:
            make_plain(cache, cache.retained[size_class])
        cache.retained[size_class] = NULL


cdef void move_slab(Cache *into, Cache *other, Resource *slab) noexcept nogil:
    cdef uint64_t free = slab.bytes - <uint64_t> slab.live * slab.block_size
    cdef uint32_t size_class = slab.size_class
    other.withheld -= free
    into.withheld += free
    other.carved[size_class] -= 1
    into.carved[size_class] += 1
    if not slab_is_full(slab):
        unlink(&other.slabs[size_class], slab)
        link(&into.slabs[size_class], slab)


cdef void cache_merge(Cache *into, Cache *other) noexcept nogil:
    cdef Resource *resource
    cdef void *home
    cache_retire(other)
    while other.oldest != NULL:
        resource = other.oldest
        cache_remove(other, resource)
        cache_put_back(into, resource)
    while other.held != NULL:
        resource = other.held
        home = resource.home
        cache_unlist(other, resource)
        cache_list(into, resource)
        if resource.block_size:
            move_slab(into, other, resource)
        elif resource.taker != NULL:
            resource.taker = into
            store_release(&resource.home, home)
    while other.spare != NULL:
        resource = other.spare
        other.spare = resource.next
        cache_spare(into, resource)
    other.spares = 0
    # What is idle behind parts.
    into.parts += other.parts
    into.withheld += other.headroom + other.withheld
    other.parts = other.headroom = other.withheld = 0


cdef void cache_set_timed(Cache *cache, bint timed, uint64_t now) noexcept nogil:
    # Those that have noted a time are all older.
    cdef Resource *resource = cache.newest if timed else NULL
    cache.timed = timed
    while resource != NULL and resource.idle_since == 0:
        resource.idle_since = now
        resource = resource.older


cdef void cache_put_back(Cache *cache, Resource *resource) noexcept nogil:
    if not resource.purgeable:
        cache_add(cache, resource)
        return
    cache_list(cache, resource)
    resource.use = IDLE
    count_joined(cache, resource.bytes)
    cache.purgeable += resource.bytes
    bins_add(&cache.purgeable_bins, resource)
    resource.older = NULL
    resource.newer = cache.oldest
    if cache.oldest != NULL:
        cache.oldest.older = resource
    else:
        cache.newest = resource
    cache.oldest = resource


cdef Resource *cache_find_purgeable(const Cache *cache, uint64_t n) noexcept nogil:
    return NULL if cache.purgeable == 0 else find_serving(cache, &cache.purgeable_bins, n)
