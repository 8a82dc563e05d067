from libc.stdint cimport int64_t


cdef class Governing:
    cdef int64_t *count         # of those that are open, changed atomically
    cdef int64_t counted        # what it adds to that, changed atomically
    cdef readonly str ungoverned
    cdef bint entered
    cdef bint lost


# One that is open, and counted; its `ungoverned` is for the caller to fill in.
cdef Governing new_governing(int64_t *count, int64_t counted)
