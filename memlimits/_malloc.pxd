"""malloc, calloc, realloc and free, from the process's default allocator.

memlimits.h has the same for C, and says what differs from C's own. This file names nothing else of
memlimits', so that whoever cimports it needs no header.
"""

cdef void *malloc(size_t n) noexcept nogil
cdef void *calloc(size_t count, size_t n) noexcept nogil
cdef void *realloc(void *start, size_t n) noexcept nogil
cdef void free(void *start) noexcept nogil
# `free` for who has looked up which Resource the block lies in.
cdef void free_found(void *resource, void *start) noexcept nogil
