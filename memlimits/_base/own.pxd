"""What the house keeps for itself, where malloc may be the house.

In a process whose malloc is interposed, malloc calls us. So whoever takes memory of malloc's under
one of our locks, or calls the device or the C library, which may, says so: until `own_end` what
this thread asks malloc for comes from the C library. free knows by the address whose a block is.
"""

from libc.stdint cimport uint64_t

# They nest. While nothing is interposed they do nothing.
cdef extern void own_begin() noexcept nogil
cdef extern void own_end() noexcept nogil
# Memory for the house, of zeros; to be given to `free` of <stdlib.h>. NULL without memory. Lines of
# the processor's cache are not shared with other blocks.
cdef extern void *own_calloc(uint64_t count, uint64_t n) noexcept nogil
cdef extern void *own_lines(uint64_t n) noexcept nogil

# Once, by who interposes.
ctypedef void (*OwnStep)() noexcept nogil
cdef extern void own_interposed(OwnStep begin, OwnStep end) noexcept nogil
