from memlimits._base.sync cimport load_count, store_count


cdef enum:
    TELLING = 10000     # bytes


cdef inline bint is_same(Place one, Place other) noexcept nogil:
    return one.code == other.code and one.lasti == other.lasti and one.mark == other.mark


cdef bint traces_any(const Traces *traces) noexcept nogil:
    return load_count(&traces.unclaimed) != 0


cdef void set_unclaimed(Traces *traces, Trace *trace, uint64_t n) noexcept nogil:
    """How many such refusals no exception has."""
    cdef int64_t more = <int64_t> (n != 0) - <int64_t> (trace.unclaimed != 0)
    trace.unclaimed = n
    store_count(&traces.unclaimed, traces.unclaimed + more)


cdef Trace *find_trace(Traces *traces, uint64_t requested, Place place) noexcept nogil:
    """The one of as many bytes at the same place; else an empty one, else the oldest, emptied."""
    cdef Trace *oldest = &traces.kept[0]
    cdef Trace *trace
    cdef int i
    for i in range(traces.used):
        trace = &traces.kept[i]
        if trace.refusal.requested == requested and is_same(trace.place, place):
            return trace
        if trace.refusal.serial < oldest.refusal.serial:
            oldest = trace
    if traces.used < TRACES:
        oldest = &traces.kept[traces.used]
        traces.used += 1
    set_unclaimed(traces, oldest, 0)
    return oldest


cdef uint64_t traces_add(
    Traces *traces, const Refusal *refusal, Place place, uint64_t at
) noexcept nogil:
    cdef Trace *trace = find_trace(traces, refusal.requested, place)
    traces.count += 1
    trace.refusal = refusal[0]
    trace.refusal.serial = traces.count
    trace.place = place
    trace.at = at
    set_unclaimed(traces, trace, trace.unclaimed + 1)
    return traces.count


cdef void traces_tell(Traces *traces, uint64_t serial, Asker asker) noexcept nogil:
    cdef int i
    for i in range(traces.used):
        if traces.kept[i].refusal.serial == serial:
            traces.kept[i].refusal.asker = asker


cdef bint names_size(const Clue *clue, uint64_t size) noexcept nogil:
    cdef int i
    for i in range(clue.n):
        if clue.sizes[i] == size:
            return True
    return False


cdef int fit(const Trace *trace, const Clue *clue, uint64_t since) noexcept nogil:
    """How well it fits; 0 where it does not."""
    cdef bint is_recent = trace.at >= since
    cdef bint is_named
    cdef int fits = 0
    if trace.unclaimed == 0:
        return 0
    is_named = names_size(clue, trace.refusal.requested)
    if clue.exact and not is_named:
        return 0
    if trace.place.code == NULL:
        fits = 1 if is_recent else 0
    elif is_same(trace.place, clue.place):
        fits = 4
    # A number of few digits may be of anything.
    if is_named and (fits or is_recent and trace.refusal.requested >= TELLING):
        fits += 2
    return fits


cdef bint traces_claim(
    Traces *traces, const Clue *clue, uint64_t since, Refusal *refusal
) noexcept nogil:
    cdef Trace *best = NULL
    cdef Trace *trace
    cdef int i, fits, best_fit = 0
    for i in range(traces.used):
        trace = &traces.kept[i]
        fits = fit(trace, clue, since)
        if fits > best_fit or (
            fits == best_fit and best != NULL and trace.refusal.serial > best.refusal.serial
        ):
            best, best_fit = trace, fits
    if best == NULL:
        return False
    set_unclaimed(traces, best, best.unclaimed - 1)
    refusal[0] = best.refusal
    return True
