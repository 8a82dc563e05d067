from memlimits._base.sync cimport load_count, store_count


cdef enum:
    TELLING = 10000     # bytes


cdef inline bint is_same(Place one, Place other) noexcept nogil:
    return one.code == other.code and one.lasti == other.lasti


cdef void recount(Traces *traces) noexcept nogil:
    cdef int64_t unclaimed = 0
    cdef int i
    for i in range(TRACES):
        unclaimed += traces.kept[i].unclaimed != 0
    store_count(&traces.unclaimed, unclaimed)


cdef bint traces_any(const Traces *traces) noexcept nogil:
    return load_count(&traces.unclaimed) != 0


cdef uint64_t traces_add(
    Traces *traces, const Refusal *refusal, Place place, uint64_t at
) noexcept nogil:
    cdef Trace *oldest = &traces.kept[0]
    cdef Trace *trace
    cdef int i
    for i in range(TRACES):
        trace = &traces.kept[i]
        if is_same(trace.place, place) and trace.refusal.requested == refusal.requested:
            oldest = trace
            break
        if trace.refusal.serial < oldest.refusal.serial:
            oldest = trace
    else:
        oldest.unclaimed = 0
    traces.count += 1
    oldest.refusal = refusal[0]
    oldest.refusal.serial = traces.count
    oldest.place = place
    oldest.at = at
    oldest.unclaimed += 1
    recount(traces)
    return traces.count


cdef void traces_tell(Traces *traces, uint64_t serial, Asker asker) noexcept nogil:
    cdef int i
    for i in range(TRACES):
        if traces.kept[i].refusal.serial == serial:
            traces.kept[i].refusal.asker = asker


cdef bint is_among(uint64_t size, const uint64_t *sizes, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        if sizes[i] == size:
            return True
    return False


cdef int fit(
    const Trace *trace, Place place, const uint64_t *sizes, int n, uint64_t since
) noexcept nogil:
    """How well it fits; 0 where it does not."""
    cdef bint is_recent = trace.at >= since
    cdef int fits = 0
    if trace.unclaimed == 0:
        return 0
    if trace.place.code == NULL:
        fits = 1 if is_recent else 0
    elif is_same(trace.place, place):
        fits = 4
    # A number of few digits may be of anything.
    if (fits or is_recent and trace.refusal.requested >= TELLING) and is_among(
        trace.refusal.requested, sizes, n
    ):
        fits += 2
    return fits


cdef bint traces_claim(
    Traces *traces, Place place, const uint64_t *sizes, int n, uint64_t since, Refusal *refusal
) noexcept nogil:
    cdef Trace *best = NULL
    cdef Trace *trace
    cdef int i, fits, best_fit = 0
    for i in range(TRACES):
        trace = &traces.kept[i]
        fits = fit(trace, place, sizes, n, since)
        if fits > best_fit or (
            fits == best_fit and best != NULL and trace.refusal.serial > best.refusal.serial
        ):
            best, best_fit = trace, fits
    if best == NULL:
        return False
    best.unclaimed -= 1
    refusal[0] = best.refusal
    recount(traces)
    return True
