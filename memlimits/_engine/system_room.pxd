"""Room for growth: within the limits, and in what the system can still give."""

from libc.stdint cimport uint64_t

from memlimits._device.mlim cimport mlim_claim
from memlimits._engine.core cimport Core
from memlimits._ledger.limits cimport Blocker, Limits

# One request's: zeros at first.
cdef struct Reading:
    bint current            # `available` was read just now, when the epoch was `epoch`
    bint looked             # at what of ours is touched, and of other processes
    bint spared             # the same, for a limit that counts no more of ours than is touched
    bint weighed            # what the process holds was read for that
    bint takes              # what is found is taken: no other process is to look meanwhile
    bint claimed            # which is so until room_end
    mlim_claim claim
    uint64_t available
    uint64_t process
    uint64_t epoch
    uint64_t over           # bytes by which the memory limit is passed that counts the process
    bint overruns           # which a guideline lets pass
    int tries               # in which a pool had not as much as was judged to fit

# After a reading that takes, once what was found is mapped, or is not wanted any more.
cdef extern void room_end(Core *core, Reading *reading) noexcept nogil

# While stopped: a pool has not as much as was judged to fit. It is to be read anew; after some
# tries the pool is what blocks it.
cdef extern void room_retry(Core *core, Reading *reading, Blocker *blocker) noexcept nogil

# Under no lock: the reading that growth by n is about to take, so that the heaps stop once.
cdef extern void room_read_ahead(Core *core, uint64_t n, Reading *reading) noexcept nogil

# While stopped: how many of n bytes the system lacks; and in the reading, by how many they are over
# the memory limit where that counts what the process holds. False: the heaps went on meanwhile, for
# a reading or a look at what is touched. Then everything may have changed: look at it again.
cdef extern bint room_read(
    Core *core, uint64_t n, Reading *reading, uint64_t *short_by) noexcept nogil
# While stopped, which it is not meanwhile: a look at what of ours is touched.
cdef extern void room_lower_unfaulted(Core *core) noexcept nogil
# Under the lock, which it drops: a new reading. Whether it gives credit for n bytes.
cdef extern bint room_extend_credit(Core *core, uint64_t n) noexcept nogil

# While stopped, with pauses: whether so much growth, `own` of it reserved, fits once `trim` bytes
# of the cache went; else what is in the way. False: look again.
cdef extern bint room_look(
    Core *core, uint64_t growth, uint64_t own, Reading *reading, uint64_t *trim,
    Blocker *blocker) noexcept nogil
# Which of the two refuses growth beyond the memory limit: itself, or what is reserved within it.
cdef extern Blocker room_ends_at(const Limits *limits, uint64_t growth) noexcept nogil
