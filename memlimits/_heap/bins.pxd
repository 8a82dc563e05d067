"""Idle resources by size, so that one that fits is found in constant time.

Thirty-two bins a power of two. A bin has resources from its own size up to that of the next, and a
bit that says whether there are any.
"""

from libc.stdint cimport uint32_t, uint64_t

from memlimits._heap.resource cimport Resource, link, unlink

cdef enum:
    SMALLEST_POWER = 12         # the smallest bin has resources of 4 KiB
    BINS = 1152                 # and the last ones of up to 2**48 bytes
    BIN_WORDS = 19              # 64 bits each, and none after the last bin
    LONGEST_POWER = 46          # of a request that is looked up

cdef extern from *:
    int clz "__builtin_clzll"(unsigned long long number) nogil
    int ctz "__builtin_ctzll"(unsigned long long number) nogil

cdef struct Bins:
    uint64_t used[BIN_WORDS]
    Resource *first[BINS]       # the newest first

cdef inline int log2_floor(uint64_t number) noexcept nogil:
    return 63 - clz(number)


cdef inline uint32_t bin_of(uint64_t n) noexcept nogil:
    cdef int power = log2_floor(n)
    return <uint32_t> ((power - SMALLEST_POWER) * 32 + ((n >> (power - 5)) & 31))


cdef inline uint64_t bins_step(uint64_t n) noexcept nogil:
    """From a bin's size to the next one's, where n bytes are more than that and at most this."""
    return <uint64_t> 1 << (log2_floor(n - 1) - 5)


cdef inline void bins_add_again(Bins *bins, Resource *resource) noexcept nogil:
    """One that was in a bin before, and has the same length."""
    cdef uint32_t b = resource.bin
    link(&bins.first[b], resource)
    bins.used[b >> 6] |= <uint64_t> 1 << (b & 63)


cdef inline void bins_add(Bins *bins, Resource *resource) noexcept nogil:
    resource.bin = bin_of(resource.bytes)
    bins_add_again(bins, resource)


cdef inline void bins_remove(Bins *bins, Resource *resource) noexcept nogil:
    cdef uint32_t b = resource.bin
    unlink(&bins.first[b], resource)
    if bins.first[b] == NULL:
        bins.used[b >> 6] &= ~(<uint64_t> 1 << (b & 63))


# The newest resource of the first bin in which all have at least n bytes, n from 4 KiB on; NULL if
# that has more than `longest`, which is less than four times n.
cdef inline Resource *bins_closest(
    const Bins *bins, uint64_t n, uint64_t longest
) noexcept nogil:
    cdef uint32_t b
    cdef uint64_t used
    cdef Resource *resource
    if n > <uint64_t> 1 << LONGEST_POWER:
        return NULL
    b = bin_of(n - 1) + 1
    used = bins.used[b >> 6] >> (b & 63)
    if used == 0:
        # The next 64 bins reach up to four times n.
        b = (b | 63) + 1
        used = bins.used[b >> 6]
        if used == 0:
            return NULL
    resource = bins.first[b + <uint32_t> ctz(used)]
    return resource if resource.bytes <= longest else NULL

# That, or one of n to `longest` bytes in the bin below.
cdef extern Resource *bins_find(const Bins *bins, uint64_t n, uint64_t longest) noexcept nogil
# The first bin from `b` on that has a resource; -1 without one.
cdef extern int bins_next(const Bins *bins, uint32_t b) noexcept nogil
# The newest of the last bin in which all have up to `longest` bytes; NULL if it has less than
# `least`, which is from 4 KiB on.
cdef extern Resource *bins_longest(
    const Bins *bins, uint64_t least, uint64_t longest) noexcept nogil
# Bytes of the largest resource; 0 without one.
cdef extern uint64_t bins_largest(const Bins *bins) noexcept nogil
