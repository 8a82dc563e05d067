"""What a process has of the pool that it is a member of: how its limits and its slot agree.

What the process counts, what it reserved and keeps back is what its slot says that it uses, and
never more: the slot's use is raised before the footprint, and lowered after it. Every function does
nothing where the process is no member, and is called under `Heaps.lock`.
"""

from libc.stdint cimport uint64_t

from memlimits._ledger.limits cimport Limits
from memlimits._ledger.pool cimport Pool

# What the process may have in the pool, as if there were no others: bytes.
cdef extern uint64_t share_limit(const Pool *pool) noexcept nogil
# Notes what the pool's other members use.
cdef extern void share_look(Limits *limits, const Pool *pool) noexcept nogil
# Units that the process is to hold for growth by n, of which `own` bytes are reserved for it.
cdef extern uint64_t share_wanted(
    const Limits *limits, const Pool *pool, uint64_t n, uint64_t own) noexcept nogil
# Has it hold them, if there are so many and it is its turn, or it `passes` those who wait; and
# notes what it holds. How many these are.
cdef extern uint64_t share_draw(
    Limits *limits, Pool *pool, uint64_t n, uint64_t own, bint passes) noexcept nogil
# Uses them, less what `trim` bytes of the cache have, which go first; in any case, where growth is
# not refused. False: it holds less by now.
cdef extern bint share_take(
    Limits *limits, Pool *pool, uint64_t n, uint64_t trim, uint64_t own) noexcept nogil
# What became reserved again, since a block came back, it uses, if it holds that much: else idle
# memory has to go for it, as near any limit.
cdef extern void share_reserve(Limits *limits, Pool *pool) noexcept nogil
cdef extern bint share_take_units(Limits *limits, Pool *pool, uint64_t want) noexcept nogil
# For growth by n that is not needed yet: only of what it holds, whatever the policy.
cdef extern bint share_take_ahead(const Limits *limits, Pool *pool, uint64_t n) noexcept nogil
# Gives back what the process uses no more. Whether others gain by that.
cdef extern bint share_settle(Limits *limits, Pool *pool) noexcept nogil
# The same with nothing held ahead.
cdef extern bint share_settle_closely(Limits *limits, Pool *pool) noexcept nogil
# While stopped: what others may know of it.
cdef extern void share_tell(const Limits *limits, Pool *pool) noexcept nogil
# No member any more, or not yet.
cdef extern void share_none(Limits *limits, Pool *pool) noexcept nogil
