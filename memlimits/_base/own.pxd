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

# Around what is made for a program that asks how things stand: at the limit there may be nothing
# left to tell it with. Until the end Python's objects, too, come from where they came from before
# they were governed; of a few KB. Not under a lock.
cdef extern void own_objects_begin() noexcept nogil
cdef extern void own_objects_end() noexcept nogil

# Once, by who interposes, and by who governs Python's objects.
ctypedef void (*OwnStep)() noexcept nogil
cdef extern void own_interposed(OwnStep begin, OwnStep end) noexcept nogil
cdef extern void own_objects_governed(OwnStep begin, OwnStep end) noexcept nogil
