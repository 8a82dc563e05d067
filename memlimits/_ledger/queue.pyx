from memlimits._ledger.limits cimport (
    COUNT_PROCESS, LIMIT, POOL, RESERVATION, limits_kept_back, limits_least_process_over,
    limits_library, limits_most_footprint, limits_slack,
)


cdef void refusal_describe(
    Refusal *refusal, const Limits *limits, uint64_t n, Blocker blocker
) noexcept nogil:
    refusal.blocked_by = blocker
    refusal.limit = limits.pool_limit if blocker == POOL else limits.memory_limit
    refusal.footprint = limits.footprint
    refusal.active = limits.active
    refusal.cache = limits.cache
    refusal.slack = limits_slack(limits)
    refusal.policy = limits.policy
    refusal.count = limits.count
    refusal.process = limits.process
    if limits.count != COUNT_PROCESS:
        refusal.untouched = limits.untouched
    elif (
        limits_least_process_over(limits, n, limits.process) <= limits.cache + limits.pending
    ):
        refusal.untouched = limits.unfaulted    # else nobody looked, since it decides nothing
    refusal.kept_back = 0
    if blocker in (LIMIT, RESERVATION, POOL):
        refusal.kept_back = limits_kept_back(limits, n)
    refusal.others = limits.others_used if blocker == POOL else 0
    refusal.library = limits_library(limits)


cdef uint64_t held_by_all(const Waiter *queue, const Waiter *newcomer) noexcept nogil:
    """With what is reserved for them."""
    cdef uint64_t held = newcomer.held + newcomer.own
    while queue != NULL:
        held += queue.held + queue.own
        queue = queue.next
    return held


cdef bint is_stuck(const Waiter *waiter, uint64_t held, const Limits *limits) noexcept nogil:
    """Whether its request cannot fit until another goes on of those who wait.

    They hold so many bytes, its own thread's among them, and `own` of its request.
    """
    cdef uint64_t most = limits_most_footprint(limits)
    if limits.available < most:     # else the sum may be beyond all numbers
        most = min(most, limits.footprint + limits.available)
    return held + waiter.least - waiter.own > most


cdef bint queue_is_stuck(
    const Waiter *queue, const Waiter *newcomer, const Limits *limits
) noexcept nogil:
    return is_stuck(queue, held_by_all(queue, newcomer), limits)


cdef int rank(const Waiter *waiter, uint64_t held, const Limits *limits) noexcept nogil:
    return 2 if not waiter.holds else 1 if is_stuck(waiter, held, limits) else 0


cdef void put_in_line(
    Waiter **queue, Waiter *waiter, uint64_t held, const Limits *limits
) noexcept nogil:
    """Behind those of its rank."""
    while queue[0] != NULL and rank(queue[0], held, limits) <= rank(waiter, held, limits):
        queue = &queue[0].next
    waiter.next = queue[0]
    queue[0] = waiter


cdef void queue_join(Waiter **queue, Waiter *waiter, const Limits *limits) noexcept nogil:
    cdef uint64_t held = held_by_all(queue[0], waiter)
    cdef Waiter *left = queue[0]
    cdef Waiter *next
    queue[0] = NULL
    while left != NULL:
        next = left.next
        put_in_line(queue, left, held, limits)
        left = next
    put_in_line(queue, waiter, held, limits)


cdef void queue_leave(Waiter **queue, Waiter *waiter) noexcept nogil:
    while queue[0] != waiter:
        queue = &queue[0].next
    queue[0] = waiter.next
