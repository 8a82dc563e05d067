from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._heap.bins cimport bins_find
from memlimits._heap.cache cimport cache_add, cache_find_purgeable, cache_remove, cache_serve
from memlimits._heap.heap cimport DONE, EMPTY, Heap, Outcome, heap_find, heap_of, heaps_mine
from memlimits._heap.heaps cimport heaps_steal


cdef inline Resource *find_in(
    const Heap *heap, uint64_t n, uint64_t longest, bint apart
) noexcept nogil:
    return bins_find(&heap.cache.bins, n, longest) if longest else heap_find(heap, n, apart)


cdef Resource *find_elsewhere(Core *core, uint64_t n, uint64_t longest) noexcept nogil:
    """While stopped: an idle resource of another heap moves to this one; or a slab stays there."""
    cdef Heap *heap = &core.heaps.shared
    cdef Resource *found
    while heap != NULL:
        found = find_in(heap, n, longest, core.stopper == &core.heaps.shared)
        if found != NULL:
            if found.block_size == 0:
                cache_remove(&heap.cache, found)
                cache_add(&core.stopper.cache, found)
            core.limits.steals += heap != core.stopper
            return found
        heap = heap.next
    return NULL


cdef bint idle_hit(Core *core, uint64_t n, uint64_t longest, Block *block) noexcept nogil:
    cdef Resource *found = find_in(core.stopper, n, longest, False)
    if found == NULL:
        found = find_elsewhere(core, n, longest)
    if found == NULL:
        return False
    cache_serve(&heap_of(found).cache, found, n, block)
    core.limits.hits += 1
    return True


cdef bint idle_serves(Core *core, uint64_t n, bint apart) noexcept nogil:
    cdef Heap *heap = &core.heaps.shared
    while heap != NULL:
        if heap_find(heap, n, apart) != NULL:
            return True
        heap = heap.next
    return False


cdef Resource *idle_find_purgeable(Core *core, uint64_t n) noexcept nogil:
    cdef Heap *heap = &core.heaps.shared
    cdef Resource *found = NULL
    while core.purgeable and heap != NULL and found == NULL:
        found = cache_find_purgeable(&heap.cache, n)
        heap = heap.next
    return found


cdef bint idle_steal(Core *core, uint64_t n, uint64_t longest, Block *block) noexcept nogil:
    cdef Heap *mine = heaps_mine(&core.heaps)
    cdef Outcome outcome
    pthread_mutex_lock(&core.heaps.lock)
    outcome = heaps_steal(mine, n, longest, block) if core.queue == NULL else EMPTY
    core.limits.hits += outcome == DONE
    core.limits.steals += outcome != EMPTY
    pthread_mutex_unlock(&core.heaps.lock)
    return outcome == DONE
