from libc.stdint cimport int64_t


cdef class Governing:
    cdef int64_t *count         # of those that are open, changed atomically
    cdef int64_t counted        # what it adds to that, changed atomically
    cdef void (*closed)() noexcept nogil    # NULL, or called after it is counted no more
    cdef readonly str ungoverned
    cdef bint entered
    cdef bint lost


# One that is open, and counted; `closed` and `ungoverned` are for the caller to fill in.
cdef Governing new_governing(int64_t *count, int64_t counted)
