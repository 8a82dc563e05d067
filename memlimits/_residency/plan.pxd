"""Which resources stay wired, within a budget.

One wiring operation runs at a time, under `mutex`; commits, which can take 0.1 s a GiB, happen
under it and never under the allocator's lock, Heaps.lock. `mutex` is taken first, that lock inside
it. A resource that is not OUTSIDE leaves through residency_release before it is destroyed.
"""

from libc.stdint cimport uint64_t

from memlimits._base.sync cimport pthread_mutex_t
from memlimits._device.mlim cimport mlim_device, mlim_queue
from memlimits._heap.heap cimport Heaps
from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport Limits
from memlimits._ledger.pool cimport Pool
from memlimits._residency.sets cimport ResidencySets

cdef enum Attached:
    ATTACHED
    ATTACHED_BEFORE
    NOT_ATTACHED                # without memory

cdef struct Residency:
    ResidencySets sets
    uint64_t capacity           # bytes the system lets this process keep resident
    pthread_mutex_t mutex
    # Capacity, or less once the system refused. Changed under the mutex and the lock.
    uint64_t allowed
    # The allocator's.
    Heaps *heaps                # whose lock guards the three below
    Limits *limits
    Pool *pool
    Resource **resources        # the newest of all it holds

cdef extern void residency_init(
    Residency *residency, mlim_device *device, uint64_t capacity, uint64_t cap,
    Heaps *heaps, Limits *limits, Pool *pool, Resource **resources) noexcept nogil
cdef extern void residency_close(Residency *residency) noexcept nogil

# Brings what is wired in line with the wired limit. First out with what is too much, with what is
# idle and stands in the way of what is live, and with what is live and stands in the way of what
# was asked for. Then in with live ones that fit: those asked for, and of these and of the others
# `fresh` first. One within the limit that cannot be wired is counted, nothing else.
cdef extern void residency_update(Residency *residency, Resource *fresh) noexcept nogil
# The same for a new limit.
cdef extern void residency_set_limit(Residency *residency, uint64_t limit) noexcept nogil
# Takes detached resources, linked through `next`, out of the set.
cdef extern void residency_release(Residency *residency, Resource *detached) noexcept nogil
# After a fork, in the child: locks are not inherited, so nothing is wired.
cdef extern void residency_forget(Residency *residency) noexcept nogil

# Attaches the sets to a queue, which it takes over if this is ATTACHED: those there are now, unless
# the wired limit is 0, and those to come with the operation that makes them.
cdef extern Attached residency_attach(
    Residency *residency, mlim_queue *handle, uint64_t address) noexcept nogil
# Ends that. A queue that is not attached stays as it is.
cdef extern void residency_detach(Residency *residency, uint64_t address) noexcept nogil
