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
