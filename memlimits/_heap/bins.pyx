cdef enum:
    PROBES = 8      # resources of a bin that a request looks at


cdef Resource *bins_find(const Bins *bins, uint64_t n, uint64_t longest) noexcept nogil:
    cdef Resource *resource = bins_closest(bins, n, longest)
    cdef int _probe
    if resource != NULL or n > <uint64_t> 1 << LONGEST_POWER:
        return resource
    resource = bins.first[bin_of(n)]
    for _probe in range(PROBES):
        if resource == NULL or n <= resource.bytes <= longest:
            break
        resource = resource.next
    else:
        return NULL
    return resource


cdef int bins_next(const Bins *bins, uint32_t b) noexcept nogil:
    cdef int word = b >> 6
    cdef uint64_t used = bins.used[word] >> (b & 63) << (b & 63)
    while used == 0 and word < BIN_WORDS - 1:
        word += 1
        used = bins.used[word]
    return word * 64 + ctz(used) if used else -1


cdef Resource *bins_longest(
    const Bins *bins, uint64_t least, uint64_t longest
) noexcept nogil:
    # The bins below that of a byte more.
    cdef uint32_t end = bin_of(min(longest, <uint64_t> 1 << LONGEST_POWER) + 1)
    cdef int word = end >> 6
    cdef uint64_t used = bins.used[word] & ((<uint64_t> 1 << (end & 63)) - 1)
    cdef Resource *resource
    while used == 0 and word > 0:
        word -= 1
        used = bins.used[word]
    if used == 0:
        return NULL
    resource = bins.first[word * 64 + log2_floor(used)]
    return resource if resource.bytes >= least else NULL


cdef uint64_t bins_largest(const Bins *bins) noexcept nogil:
    cdef uint64_t largest = 0
    cdef const Resource *resource = NULL
    cdef int word
    for word in range(BIN_WORDS - 1, -1, -1):
        if bins.used[word]:
            resource = bins.first[word * 64 + log2_floor(bins.used[word])]
            break
    while resource != NULL:
        largest = max(largest, resource.bytes)
        resource = resource.next
    return largest
