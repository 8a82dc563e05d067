"""What the system can still give: reading it, and how far a reading goes."""

from libc.stdint cimport uint64_t

from memlimits._core cimport Core

# One request's: zeros at first.
cdef struct Reading:
    bint current            # `available` was read just now, when the epoch was `epoch`
    bint looked             # at what of ours is touched
    uint64_t available
    uint64_t epoch

# While stopped: how many of n bytes the system lacks. False: the heaps went on meanwhile, for a
# reading or a look at what is touched. Then everything may have changed: look at it again.
cdef bint room_read(
    Core *core, uint64_t n, Reading *reading, uint64_t *short_by) noexcept nogil
# While stopped, which it is not meanwhile: a look at what of ours is touched.
cdef void room_lower_promise(Core *core) noexcept nogil
# Under the lock, which it drops: a new reading. Whether it gives credit for n bytes.
cdef bint room_extend_credit(Core *core, uint64_t n) noexcept nogil
