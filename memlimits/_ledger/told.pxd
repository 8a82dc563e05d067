"""What a process tells of itself in its page, for others to read, as of its last slow step.

Whoever changes a word here counts `MLIM_PAGE_VERSION` up.
"""

from libc.stdint cimport int64_t, uint64_t

from memlimits._device.page cimport mlim_page
from memlimits._ledger.limits cimport Limits

cdef enum:
    MOST_CAUSES = 16

# In bytes, but for counts. Each word is written in one piece; all but `claimed` are of one instant
# where `changes` is even, and the same before and after they are read.
cdef struct Told:
    uint64_t changes
    uint64_t at                 # ns, by CLOCK_MONOTONIC: when it was written last
    int64_t claimed             # Claims.sum, about
    uint64_t memory_limit
    uint64_t cache_limit
    uint64_t wired_limit
    uint64_t policy             # a Policy
    uint64_t count              # a Count
    uint64_t pool_limit
    uint64_t footprint
    uint64_t pending
    uint64_t peak
    uint64_t wired
    uint64_t reserved
    uint64_t misses
    uint64_t overruns
    uint64_t evictions
    uint64_t evicted
    uint64_t trims
    uint64_t pressure_trims
    uint64_t decays
    uint64_t waiting
    uint64_t waits
    uint64_t waited             # ns
    uint64_t refusals[MOST_CAUSES]      # by Blocker
    # Since later: 0 in the page of a process that has an earlier memlimits.
    uint64_t library_active
    uint64_t library_cache
    uint64_t library_peak
    uint64_t admitted

cdef inline Told *told_in(mlim_page *page) noexcept nogil:
    return <Told *> page.words

# Under `Heaps.lock`, with `peak` as the heaps have it.
cdef extern void told_write(Told *told, const Limits *limits, uint64_t peak) noexcept nogil
