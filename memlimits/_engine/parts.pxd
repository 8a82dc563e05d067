"""Blocks that realloc makes longer step by step: they get an idle resource that leaves them room.

Of such a resource the caller holds the first bytes. What is behind them stays idle, slack, until
the block grows into it: without a copy, a call of the device, or a new page. Where a limit is in
the way of others, that goes back among what is idle, as a resource of its own.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._heap.resource cimport Block, Resource

# n bytes for what realloc makes longer, of an idle resource of this thread's that has `least` or
# more. False: there is none, or who waits for memory goes first.
cdef extern bint parts_take(
    Core *core, uint64_t n, uint64_t least, Block *block) noexcept nogil
# By who holds a block of a resource: now n bytes of it. False: it stays as it was.
cdef extern bint parts_extend(Core *core, Resource *resource, uint64_t n) noexcept nogil
# While stopped: makes what is idle behind blocks resources of their own, in the cache. Whether
# there was any, and memory for that.
cdef extern bint parts_cut(Core *core) noexcept nogil
# While stopped: the same where growth, with `own` bytes reserved for it, is within the limit then
# and would not be else; and where more has to go for it than is in the cache.
cdef extern void parts_make_room(Core *core, uint64_t growth, uint64_t own) noexcept nogil
