"""Numbers without a sign, which do not wrap."""

from libc.stdint cimport UINT64_MAX, uint64_t

cdef inline uint64_t saturating_sub(uint64_t a, uint64_t b) noexcept nogil:
    return a - b if a > b else 0


cdef inline uint64_t saturating_add(uint64_t a, uint64_t b) noexcept nogil:
    return a + b if a + b >= a else UINT64_MAX
