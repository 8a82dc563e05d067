"""malloc and what belongs to it, from the process's default allocator.

memlimits.h has the same for C, and says what differs from C's own. This file names nothing else of
memlimits', so that whoever cimports it needs no header.
"""

# What a refusal's handler is told.
ctypedef struct Refused:
    size_t requested            # bytes
    const char *blocked_by
    unsigned int attempt

ctypedef struct RefusalHandler:
    int (*refused)(void *state, const Refused *refusal) noexcept nogil
    void *state

cdef void *malloc(size_t n) noexcept nogil
cdef void *calloc(size_t count, size_t n) noexcept nogil
cdef void *realloc(void *start, size_t n) noexcept nogil
cdef void free(void *start) noexcept nogil
cdef void *aligned_alloc(size_t alignment, size_t n) noexcept nogil
cdef size_t usable_size(const void *start) noexcept nogil
cdef void *rezalloc(void *start, size_t n) noexcept nogil
cdef const RefusalHandler *set_refusal_handler(const RefusalHandler *handler) noexcept nogil
# `free` for who has looked up which Resource the block lies in.
cdef void free_found(void *resource, void *start) noexcept nogil
