"""Numbers without a sign, which do not wrap."""

from libc.stdint cimport uint64_t

cdef inline uint64_t saturating_sub(uint64_t a, uint64_t b) noexcept nogil:
    return a - b if a > b else 0
