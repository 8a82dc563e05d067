"""The queue for memory, under the "wait" policy.

Requests that the limit, or the system, has no room for are served in the order of `_ledger/queue`.
As long as there is one every block that is given back to the cache goes the slow way, and wakes the
next; and nobody else takes what it waits for.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._heap.heap cimport Heap
from memlimits._ledger.limits cimport Blocker
from memlimits._ledger.queue cimport Waiter

# What the caller does around a wait; called without a lock. Each may be NULL.
cdef struct WaitHooks:
    void (*begins)(WaitHooks *hooks) noexcept nogil     # before it queues
    bint (*gives_up)(WaitHooks *hooks) noexcept nogil   # now and then: whether it does
    bint never_waits            # what blocks it is final
    bint timed                  # it waits for `timeout` ns, and not for as long as the policy says
    uint64_t timeout
    bint fine                   # a block in steps of 16 bytes will do
    Heap *heap                  # its thread's, while that takes from the shared one; or NULL
    bint keeps                  # room is kept for what it asks for
    void *state                 # the caller's own, as the next two
    bint handles_signals
    bint runs_python
    bint gave_up                # set by either function: then nothing is refused

# Without `least` bytes it cannot be served. `holds`: its thread is known to hold memory.
cdef extern void waiter_init(Waiter *waiter, uint64_t least, bint holds) noexcept nogil
# While stopped: whether it may take what there is.
cdef extern bint waiter_may_go(Core *core, Waiter *waiter) noexcept nogil
# While stopped, in the step in which its room for growth by n was judged: whether that, or else the
# queue, blocks it. What does is noted with the counters.
cdef extern bint waiter_is_blocked(
    Core *core, Waiter *waiter, uint64_t n, Blocker *blocker) noexcept nogil
# After an attempt that was blocked: waits. False: that is final.
cdef extern bint waiter_waits(
    Core *core, Waiter *waiter, WaitHooks *hooks, Blocker blocker) noexcept nogil
# Leaves the queue, if it is in it. Returns how many ns it has waited.
cdef extern uint64_t waiter_leave(Core *core, Waiter *waiter) noexcept nogil
