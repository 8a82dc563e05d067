from memlimits._base.arithmetic cimport saturating_sub
from memlimits._ledger.limits cimport Limits, limits_admit, limits_library_with


cdef uint64_t adds(const Ticket *first, const Ticket *ticket) noexcept nogil:
    """What it adds to all others that are open."""
    cdef uint64_t largest = 0
    while ticket.group != NULL and first != NULL:
        if first.group == ticket.group and first != ticket:
            largest = max(largest, first.nbytes)
        first = first.next
    return saturating_sub(ticket.nbytes, largest)


cdef uint64_t tickets_cost(
    const Ticket *first, const Ticket *ticket, const Limits *limits
) noexcept nogil:
    return limits_library_with(limits, adds(first, ticket)) - limits.library


cdef void tickets_open(Ticket **first, Ticket *ticket, Limits *limits) noexcept nogil:
    limits_admit(limits, limits.admitted + adds(first[0], ticket))
    ticket.next = first[0]
    first[0] = ticket


cdef void tickets_close(Ticket **first, Ticket *ticket, Limits *limits) noexcept nogil:
    cdef Ticket **link = first
    while link[0] != NULL and link[0] != ticket:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = ticket.next
        limits_admit(limits, limits.admitted - adds(first[0], ticket))


cdef bint tickets_held_by(const Ticket *first, const void *taker) noexcept nogil:
    while first != NULL and first.taker != taker:
        first = first.next
    return first != NULL
