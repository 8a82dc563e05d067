from libc.stdint cimport uint32_t, uint64_t

from memlimits._heap.bins cimport BIN_WORDS, Bins, bin_of, ctz
from memlimits._heap.cache cimport SIZE_CLASSES, Cache, cache_idle
from memlimits._heap.heap cimport Heap
from memlimits._heap.resource cimport IDLE, Resource, slab_bound, slab_place

cdef enum:
    LOOKED_AT = 16      # free blocks of a slab


cdef int64_t idle_in_list(const Cache *cache, int64_t *purgeable_count) noexcept nogil:
    """The list by age, from the oldest on. Returns how many there are that are not purgeable."""
    cdef const Resource *resource = cache.oldest
    cdef const Resource *older = NULL
    cdef int64_t count = 0
    cdef uint64_t purgeable = 0
    while resource != NULL:
        holds(resource.older == older, b"a resource's older one has it as its newer one",
              <int64_t> resource.older, <int64_t> older)
        same(resource.use, IDLE, b"what is in a list of idle resources is idle")
        holds(resource.home == cache, b"an idle resource lies in its home",
              <int64_t> resource.home, <int64_t> cache)
        same(resource.block_size, 0, b"an idle resource is no slab")
        same(resource.bin, bin_of(resource.bytes), b"an idle resource has the bin of its length")
        same(resource.pinned, 0, b"nobody asks for an idle resource to be wired")
        same(resource.shift, 0, b"an idle resource has no shift")
        holds(resource.taker == NULL and resource.charge == NULL,
              b"an idle resource is nobody's, and charged to nobody",
              <int64_t> resource.taker, <int64_t> resource.charge)
        at_most(resource.idle_at, cache.time, b"nothing is idle since a later stop than the last")
        if cache.timed:
            at_most(1, resource.idle_since, b"with a timeout, what is idle has a time")
        if resource.purgeable:
            purgeable += resource.bytes
            purgeable_count[0] += 1
            same(count, 0, b"what is purgeable is older than what is not")
        else:
            count += 1
            if older != NULL and not older.purgeable:
                at_most(older.idle_at, resource.idle_at, b"idle resources are in the order of age")
        older = resource
        resource = resource.newer
    holds(cache.newest == older, b"the newest idle resource is the last of the list",
          <int64_t> cache.newest, <int64_t> older)
    same(cache.purgeable, purgeable, b"purgeable bytes are those of the resources that are")
    return count


cdef const Resource *in_order(
    const Resource *resource, const Resource *previous
) noexcept nogil:
    holds(resource.previous == previous, b"a resource's previous one has it as its next one",
          <int64_t> resource.previous, <int64_t> previous)
    return resource


cdef int64_t in_bins(const Bins *bins, bint purgeable) noexcept nogil:
    cdef const Resource *resource
    cdef const Resource *previous
    cdef uint64_t used
    cdef int64_t count = 0
    cdef uint32_t b
    cdef int word
    for word in range(BIN_WORDS):
        used = bins.used[word]
        while used:
            b = <uint32_t> (word * 64 + ctz(used))
            used &= used - 1
            resource = bins.first[b]
            previous = NULL
            holds(resource != NULL, b"a bin in use has a resource", b, 0)
            while resource != NULL:
                previous = in_order(resource, previous)
                same(resource.bin, b, b"a resource lies in the bin of its length")
                same(resource.use, IDLE, b"a resource in a bin is idle")
                same(resource.purgeable, purgeable, b"purgeable resources have their own bins")
                count += 1
                resource = resource.next
    return count


cdef void check_free_blocks(const Resource *slab) noexcept nogil:
    """The first of those that came back: each is found in the one before, which others wrote to."""
    cdef const void *start = slab.free_blocks
    cdef int left = slab.fresh - slab.live
    cdef int look = min(left, <int> LOOKED_AT)
    while look > 0:
        holds(start != NULL and slab_place(slab, start) < slab_bound(slab),
              b"a free block is one of its slab: was it written to?",
              <int64_t> start, <int64_t> slab.base)
        start = (<const void **> start)[0]
        look -= 1
        left -= 1
    if left == 0:
        holds(start == NULL, b"the last free block has none after it: was it written to?",
              <int64_t> start, <int64_t> slab.base)


cdef void check_slab(const Cache *cache, const Resource *slab, int size_class) noexcept nogil:
    """One with a free block."""
    same(slab.size_class, size_class, b"a slab is in the list of its class")
    holds(slab.home == cache, b"a slab lies in its home",
          <int64_t> slab.home, <int64_t> cache)
    at_most(1, slab.block_size, b"a slab in a list is carved")
    at_most(slab.live + 1, slab.blocks, b"a slab in a list has a free block")
    holds(slab.bound == slab_bound(slab), b"a slab with a free block has its bound",
          <int64_t> slab.bound, <int64_t> slab_bound(slab))
    check_free_blocks(slab)


cdef void check_retained(const Cache *cache, int size_class) noexcept nogil:
    cdef const Resource *retained = cache.retained[size_class]
    same(cache.retained_classes >> size_class & 1, retained != NULL,
         b"a class says whether it has a retained slab")
    if retained != NULL:
        same(retained.size_class, size_class, b"a retained slab is of its class")
        at_most(1, retained.block_size, b"a retained slab is carved")


cdef int64_t in_slabs(const Cache *cache) noexcept nogil:
    """Slabs with a free block. Returns how many there are."""
    cdef const Resource *slab
    cdef const Resource *previous
    cdef int64_t count = 0
    cdef int size_class
    for size_class in range(SIZE_CLASSES):
        check_retained(cache, size_class)
        slab = cache.slabs[size_class]
        previous = NULL
        while slab != NULL:
            previous = in_order(slab, previous)
            check_slab(cache, slab, size_class)
            holds(slab.live or slab == cache.retained[size_class],
                  b"a slab that nobody holds a block of is its class's retained one",
                  slab.live, size_class)
            count += 1
            slab = slab.next
    return count


cdef void check_bounds(const Heap *heap) noexcept nogil:
    at_most(0, heap.cache.cached, b"a heap's cached bytes are 0 or more")
    at_most(heap.cache.cached, cache_idle(&heap.cache), b"a heap's cached bytes are idle")
    at_most(0, heap.cache.headroom, b"a heap's headroom is 0 or more")
    at_most(0, heap.most_kept, b"a heap keeps 0 bytes of headroom or more")
    same(heap.most_cached_fast, -1 if heap.cache.timed else heap.most_cached,
         b"most_cached_fast is most_cached, or -1 with a timeout")


cdef void heaps_check_bounds(const Heaps *heaps) noexcept nogil:
    cdef const Heap *heap = &heaps.shared
    while heap != NULL and not heaps.lost:
        check_bounds(heap)
        heap = heap.next


cdef void heaps_check_lists(const Heaps *heaps) noexcept nogil:
    cdef const Heap *heap = &heaps.shared
    cdef int64_t plain, purgeable
    while heap != NULL:
        purgeable = 0
        plain = idle_in_list(&heap.cache, &purgeable)
        same(in_bins(&heap.cache.bins, False), plain, b"all that is idle lies in a bin")
        same(in_bins(&heap.cache.purgeable_bins, True), purgeable,
             b"all that is purgeable lies in a bin")
        in_slabs(&heap.cache)
        heap = heap.next
