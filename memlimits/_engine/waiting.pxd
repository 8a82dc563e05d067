"""The queue for memory, under the "wait" policy.

Requests that the limit, or the system, has no room for are served in the order in which they came,
those of threads that hold memory before those of threads that hold none: what the latter wait for
the former may be about to free. As long as there is a queue every block that is given back to the
cache goes the slow way, and wakes the next; and nobody else takes what it waits for.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core, Waiter
from memlimits._heap.heap cimport Heap
from memlimits._ledger.limits cimport Blocker

# What the caller does around a wait; called without a lock. Each may be NULL.
cdef struct WaitHooks:
    void (*begins)(WaitHooks *hooks) noexcept nogil       # before it queues
    bint (*gives_up)(WaitHooks *hooks) noexcept nogil     # now and then: whether it does
    bint never_waits                                    # what blocks it is final
    Heap *heap                                          # its thread's, where it takes from another
    bint keeps                                          # room is kept for what it asks for
    void *state                                         # the caller's own
    bint handles_signals                                # likewise
    bint runs_python                                    # likewise
    bint gave_up                                        # set by either: then nothing is refused

# One request's place, at first in no queue. Without `least` bytes it cannot be served. `holds`: its
# thread is known to hold memory.
cdef extern void waiter_init(Waiter *waiter, uint64_t least, bint holds) noexcept nogil
# While stopped: whether it may take what there is.
cdef extern bint waiter_may_go(Core *core, Waiter *waiter) noexcept nogil
# While stopped, in the step in which its room was judged: whether that, or else the queue, blocks
# it. What does is noted with the counters.
cdef extern bint waiter_is_blocked(Core *core, Waiter *waiter, Blocker *blocker) noexcept nogil
# After an attempt that was blocked: waits. False: that is final.
cdef extern bint waiter_waits(
    Core *core, Waiter *waiter, WaitHooks *hooks, Blocker blocker) noexcept nogil
# Leaves the queue, if it is in it. Returns how many ns it has waited.
cdef extern uint64_t waiter_leave(Core *core, Waiter *waiter) noexcept nogil
