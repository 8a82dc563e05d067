from memlimits._base.sync cimport CLOCK_COARSE, time_of
from memlimits._ledger.limits cimport BLOCKERS, limits_cache_limit

cdef extern from *:
    """
    /* Whoever sees it sees what was put before. */
    static inline void put(uint64_t *word, uint64_t value)
    {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    """
    void put(uint64_t *word, uint64_t value) nogil


cdef void told_write(Told *told, const Limits *limits, uint64_t peak) noexcept nogil:
    cdef int i
    # Odd as long as some words are of before and others of after.
    put(&told.changes, told.changes + 1)
    put(&told.at, time_of(CLOCK_COARSE))
    put(&told.memory_limit, limits.memory_limit)
    put(&told.cache_limit, limits_cache_limit(limits))
    put(&told.wired_limit, limits.wired_limit)
    put(&told.policy, limits.policy)
    put(&told.count, limits.count)
    put(&told.pool_limit, limits.pool_limit)
    put(&told.footprint, limits.footprint)
    put(&told.pending, limits.pending)
    put(&told.peak, peak)
    put(&told.wired, limits.wired)
    put(&told.reserved, limits.reserved)
    put(&told.misses, limits.misses)
    put(&told.overruns, limits.overruns)
    put(&told.evictions, limits.evictions)
    put(&told.evicted, limits.evicted)
    put(&told.trims, limits.trims)
    put(&told.pressure_trims, limits.pressure_trims)
    put(&told.decays, limits.decays)
    put(&told.waiting, limits.waiting)
    put(&told.waits, limits.waits)
    put(&told.waited, limits.waited)
    for i in range(BLOCKERS):
        put(&told.refusals[i], limits.refusals[i])
    put(&told.library_active, limits.library_active)
    put(&told.library_cache, limits.library_cache)
    put(&told.library_peak, limits.library_peak)
    put(&told.admitted, limits.admitted)
    put(&told.changes, told.changes + 1)
