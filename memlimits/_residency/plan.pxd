"""Which resources stay wired, within a budget.

One wiring operation runs at a time, under `mutex`; commits, which can take 0.1 s a GiB, happen
under it and never under the allocator's lock, Heaps.lock. So do calls of a GPU's driver: see
residency_register. `mutex` is taken first, that lock inside
it. A resource that is not OUTSIDE leaves through residency_release before it is destroyed.
"""

from libc.stdint cimport int64_t, uint64_t

from memlimits._base.sync cimport pthread_mutex_t
from memlimits._device.mlim cimport mlim_cuda, mlim_device, mlim_error, mlim_queue
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
    uint64_t lockable           # bytes the system lets this process lock
    uint64_t capacity           # and keep resident: any, while a GPU's driver does that
    mlim_cuda *cuda             # owned: what is wired is registered there; NULL for nowhere
    int64_t registers           # whether there is one, read atomically
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

# Has what is wired registered with a GPU's driver, which is taken over if this is ATTACHED. All of
# that leaves its sets first, and joins them again.
#
# The driver is called under the mutex, and under no other lock. Its own locks come after the mutex,
# then: whoever holds one of them, in a call of the driver's, must never wait for the mutex. So this
# is not for a process whose malloc is ours, where the driver's would come here; nor may a function
# that the driver calls (cuLaunchHostFunc) ask for memory of this allocator.
cdef extern Attached residency_register(Residency *residency, mlim_cuda *cuda) noexcept nogil
# Ends that. What it was registered with is the caller's again; NULL for nothing.
cdef extern mlim_cuda *residency_unregister(Residency *residency) noexcept nogil
# Why something was not registered, the last that was not. False: nothing is registered.
cdef extern bint residency_why_not(Residency *residency, mlim_error *out) noexcept nogil
