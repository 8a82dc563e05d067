"""Tickets: what a library was admitted to hold that has its memory from elsewhere, as MLX has.

Every ticket adds up, but of a group the largest alone counts. What the library says that it holds
is covered by them: the larger of the two counts (`Limits.library`). Every function is called under
the allocator's lock, Heaps.lock.
"""

from libc.stdint cimport uint64_t

from memlimits._ledger.limits cimport Limits

# Its holder's, which keeps it where it is while it is open.
cdef struct Ticket:
    Ticket *next            # of those that are open
    uint64_t nbytes
    const void *group       # whose largest counts, by its address; NULL: of none
    const void *taker       # the thread that opened it

# How much more counts if it is opened.
cdef extern uint64_t tickets_cost(
    const Ticket *first, const Ticket *ticket, const Limits *limits) noexcept nogil
cdef extern void tickets_open(Ticket **first, Ticket *ticket, Limits *limits) noexcept nogil
# Nothing, where it is not open, as in a forked child.
cdef extern void tickets_close(Ticket **first, Ticket *ticket, Limits *limits) noexcept nogil
# Whether a thread has opened any that is open.
cdef extern bint tickets_held_by(const Ticket *first, const void *taker) noexcept nogil
