"""Idle resources made shorter, and longer: split in two, and coalesced with what lies behind them.

Only where the device resizes. A step looks at one heap, under that heap's lock alone, and asks the
system for nothing but a buffer's handle.
"""

from libc.stdint cimport uint64_t

from memlimits._heap.cache cimport Cache
from memlimits._heap.resource cimport Resource

# Coalesces all that lies side by side, but for what is longer than `longest`.
cdef extern void cache_coalesce(Cache *cache, uint64_t longest) noexcept nogil
# An idle resource that may be split, of n bytes or more: what was split or coalesced before, or
# mapped to be; also what is no longer than `longest`.
cdef extern Resource *cache_find_longer(
    const Cache *cache, uint64_t n, uint64_t longest) noexcept nogil
# From such a one an idle resource of n bytes, page by page; where none has as many, from neighbours
# that are coalesced. Else, unless `longest` is 0, the longest that has `least`. NULL without any.
cdef extern Resource *cache_split(
    Cache *cache, uint64_t n, uint64_t least, uint64_t longest) noexcept nogil
