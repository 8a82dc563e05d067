"""Who waits for memory, in which order, and what is told of a request that was refused.

Those whose threads hold memory come before those that hold none: what the latter wait for the
former may be about to free. Of the first, those come last whose request cannot fit until another of
the queue goes on. Every function is called under the allocator's lock, Heaps.lock.
"""

from libc.stdint cimport uint32_t, uint64_t

from memlimits._base.sync cimport pthread_cond_t
from memlimits._heap.heap cimport Heap
from memlimits._ledger.accounts cimport LONGEST_NAME
from memlimits._ledger.limits cimport Blocker, Count, Limits, Policy

# Whose request it was, as far as that is told (refusals_tell).
cdef enum Asker:
    ANYONE
    C_CODE          # through memlimits.h or `cimport memlimits`
    NUMPY
    PYTHON          # the interpreter, for its objects
    MALLOC          # code that knows nothing of us

cdef enum:
    MOST_HOLDERS = 3

# Who holds what, by samples.
cdef struct Holder:
    uint32_t call           # in the tree of calls; NO_CALL: nobody
    uint64_t bytes
    uint64_t blocks

# A refused allocation, and the counters at that moment. Sizes in bytes.
cdef struct Refusal:
    uint64_t requested
    uint64_t limit
    uint64_t footprint
    uint64_t active
    uint64_t cache
    uint64_t slack
    uint64_t process        # that the process held, by the last reading; of COUNT_PROCESS only
    # Of the footprint: COUNT_RESIDENT does not count it; COUNT_PROCESS does, besides `process`, and
    # it is 0 where that alone is too much.
    uint64_t untouched
    uint64_t kept_back      # of the limit, from such a request; where that refused it
    uint64_t others         # that other processes used; where the pool refused it
    uint64_t library        # of the limit, what MLX counts
    uint64_t number         # counts its thread's refusals: tells one from the next
    uint64_t serial         # counts the allocator's
    uint64_t waited         # ns
    uint64_t budget_limit   # the budget's that refused
    uint64_t budget_active
    Count count             # what the limit was on
    Blocker blocked_by      # NOTHING: there was no refusal
    Policy policy
    Asker asker
    char budget[LONGEST_NAME + 1]
    Holder holders[MOST_HOLDERS]    # that held most, the first most; where holders are noted

# One request's place, at first in no queue. On its thread's stack.
cdef struct Waiter:
    Waiter *next
    const void *self        # its thread
    Heap *heap              # its thread's, where that is not the one that it takes from
    uint64_t least          # bytes without which it cannot be served
    uint64_t grows          # those of them that are not there yet
    bint holds              # its thread holds memory
    uint64_t held           # bytes that its thread holds, once it was looked at
    bint looked             # whether it was
    bint queued
    bint counted            # it waited in no queue
    bint passes             # it cannot wait for others: ahead of them, or refused
    uint64_t own            # bytes reserved for its request; 0 once it has them
    int stage               # what was tried so far (_engine/waiting)
    uint64_t since          # ns
    uint64_t deadline
    uint64_t seen           # Core.wakes at its last attempt
    # In the pool of processes: its place there; when it first sought room, last looked for who
    # ended, began to ask for idle memory (ns); and of which priority those are who are asked next.
    uint64_t ticket
    uint64_t sought
    uint64_t buried
    uint64_t asked
    uint64_t level
    Refusal blocked         # its last attempt, as far as it was blocked
    pthread_cond_t turn

# The counters as they are, when `blocker` refused growth by n.
cdef extern void refusal_describe(
    Refusal *refusal, const Limits *limits, uint64_t n, Blocker blocker) noexcept nogil

# Puts one that was looked at in its place. What its thread holds may be what another waits for,
# which is to wait behind it then: all take their places anew.
cdef extern void queue_join(Waiter **queue, Waiter *waiter, const Limits *limits) noexcept nogil
cdef extern void queue_leave(Waiter **queue, Waiter *waiter) noexcept nogil
# Whether the first cannot fit until another goes on, of those who wait or the newcomer.
cdef extern bint queue_is_stuck(
    const Waiter *queue, const Waiter *newcomer, const Limits *limits) noexcept nogil
