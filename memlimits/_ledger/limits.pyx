from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, UINT64_MAX

from memlimits._base.arithmetic cimport saturating_add, saturating_sub

# Growth allowed between two readings of the system's room, and CREDIT_PART of it at most.
cdef enum:
    READING_INTERVAL = 16 << 20
# How far the footprint may grow above the highest active before idle memory is returned: a part of
# that, and for each heap, since some of every size is idle in each. Growth by LONG_GROWTH and more
# begins with LEAST_SPREAD a heap, since idle memory can be cut to its length; and any growth with
# less while lean. It goes further by a byte for so many ns that keeping to it takes, beyond a part
# of the time that passes: for a returned byte about one, since it is mapped and touched again.
cdef enum:
    SPREAD_PART = 4
    SPREAD = 16 << 20
    FEW_PART = 2
    LEAST_SPREAD = 4 << 20
    LEAN_PART = 32
    LEAN_SPREAD = 2 << 20
    WIDENING_PART = 32
    CHEAP_PART = 20
    # Little of one that is as long may ever be touched: once it is returned, others are not to be
    # idle in its stead.
    LEAN_LONG = 32 << 20
# Left to the program itself, for what it does beside its blocks and when it is refused, and to the
# kernel for page tables: a part of all that there is.
cdef enum:
    MARGIN_PART = 64
    LEAST_MARGIN = 2 << 20
    MOST_MARGIN = 32 << 20
# One that is lower than the memory limit by no more than this is the same limit, in whole units.
cdef enum:
    SMALL = 1 << 16
# Of the memory limit this part is kept back for what follows a refusal, at most. Of that this part
# is for short growth before there is one: who asks for so little may not look at NULL.
cdef enum:
    KEPT_BACK_PART = 4
    KEPT_BACK_OF_SHARE = 8      # where processes share the limit
    SHORT_PART = 4
    LONGEST_SHORT = 512 << 10

cdef void limits_init(Limits *limits, bint resizes) noexcept nogil:
    limits.resizes = resizes
    limits.memory_follows = True
    limits.memory_limit = limits_default(limits)
    limits.share = limits.pool_limit = limits.fair_share = UINT64_MAX
    limits.trim_limit = UINT64_MAX
    limits.cache_follows = True
    limits.wait_timeout = <uint64_t> DEFAULT_TIMEOUT * 1000000000
    # Growth leaves the system that much: so a program does not lose what it is about to use.
    limits.available_follows = True
    limits.most_stall = INFINITY


cdef void limits_note_sizes(
    Limits *limits, uint64_t available, uint64_t memory_size, uint64_t working_set
) noexcept nogil:
    limits.available = available
    limits.memory_size = memory_size
    limits.working_set = working_set
    limits.margin = min(
        max(memory_size // MARGIN_PART, <uint64_t> LEAST_MARGIN), <uint64_t> MOST_MARGIN)


cdef void limits_note_sharers(
    Limits *limits, uint64_t assured, uint64_t sharers, uint64_t between
) noexcept nogil:
    limits.assured = assured
    limits.sharers = sharers
    limits.between = between


cdef uint64_t limits_unclaimed(const Limits *limits, uint64_t room) noexcept nogil:
    return room if limits.sharers < 2 else room // (CREDIT_PART * limits.sharers)


cdef uint64_t limits_default(const Limits *limits) noexcept nogil:
    return <uint64_t> min(1.5 * <double> limits.working_set, 0.95 * <double> limits.memory_size)


cdef bint limits_is_outdated(const Limits *limits) noexcept nogil:
    return limits.memory_follows and limits.memory_limit != limits_default(limits)


cdef bint limits_needs_look(const Limits *limits) noexcept nogil:
    return (
        limits.available < limits_least_available(limits) or limits.most_stall != INFINITY
        or limits_is_outdated(limits))


cdef uint64_t limits_least_available(const Limits *limits) noexcept nogil:
    return limits.margin if limits.available_follows else limits.least_available


cdef uint64_t limits_slack(const Limits *limits) noexcept nogil:
    return limits.footprint - limits.pending - limits.active - limits.cache


cdef uint64_t limits_cache_limit(const Limits *limits) noexcept nogil:
    return limits.memory_limit if limits.cache_follows else limits.cache_limit


cdef uint64_t limits_unreserved(const Limits *limits, uint64_t n, uint64_t own) noexcept nogil:
    cdef uint64_t others = saturating_sub(limits.reserved, own) + limits_library(limits)
    return saturating_sub(limits_bound(limits), others + limits_kept_back(limits, n))


cdef uint64_t limits_library_with(const Limits *limits, uint64_t n) noexcept nogil:
    return max(limits.admitted + n, limits.library_active + limits.library_cache)


cdef void limits_admit(Limits *limits, uint64_t admitted) noexcept nogil:
    limits.admitted = admitted
    limits.library = limits_library_with(limits, 0)


cdef void limits_note_library(
    Limits *limits, uint64_t active, uint64_t cache, uint64_t peak
) noexcept nogil:
    limits.library_active, limits.library_cache, limits.library_peak = active, cache, peak
    limits.library = limits_library_with(limits, 0)
    # What the system and the process were read to have was so before that.
    limits_drop_credit(limits)


cdef uint64_t limits_library_room(const Limits *limits, uint64_t cached) noexcept nogil:
    cdef uint64_t share = saturating_sub(limits.pool_limit, limits.others_used)
    cdef uint64_t used = limits.footprint - cached
    if limits.count == COUNT_PROCESS:
        used = saturating_sub(
            limits.process + limits.unfaulted, limits.library_active + limits.library_cache)
    return saturating_sub(
        min(limits.memory_limit, max(share, limits.share)),
        used + limits.reserved + limits_wanted_back(limits))


cdef uint64_t limits_bound(const Limits *limits) noexcept nogil:
    return min(limits.memory_limit, limits.share)


cdef Blocker limits_blocker(const Limits *limits) noexcept nogil:
    cdef bint is_tighter = saturating_add(limits.pool_limit, SMALL) < limits.memory_limit
    cdef bint is_shared = limits.share < limits.memory_limit and limits.others_used > 0
    return POOL if is_tighter or is_shared else LIMIT


cdef uint64_t limits_counted(const Limits *limits, uint64_t n) noexcept nogil:
    if limits.count == COUNT_PROCESS:
        return limits.process + limits.unfaulted + n
    return saturating_sub(limits.footprint + n, limits.untouched)


cdef uint64_t part_of(const Limits *limits, uint64_t kept) noexcept nogil:
    cdef uint64_t most = min(
        limits.memory_limit // KEPT_BACK_PART, limits.fair_share // KEPT_BACK_OF_SHARE)
    return min(kept, most)


cdef uint64_t limits_wanted_back(const Limits *limits) noexcept nogil:
    return part_of(limits, limits.wanted_back)


cdef uint64_t limits_kept_back(const Limits *limits, uint64_t n) noexcept nogil:
    cdef uint64_t kept = part_of(limits, limits.kept_back)
    if limits.yields and n <= limits.wanted_back:
        return 0
    if n > LONGEST_AFTER_REFUSAL:
        return part_of(limits, limits.wanted_back)
    if limits.begins:
        return 0
    return kept if n > LONGEST_SHORT else kept - kept // SHORT_PART


cdef bint is_owed(const Limits *limits) noexcept nogil:
    """Whether it is to be kept back again."""
    return limits.kept_back < limits.wanted_back


cdef void limits_keep_back(Limits *limits, uint64_t n, uint64_t *trim) noexcept nogil:
    cdef uint64_t wanted = part_of(limits, limits.wanted_back)
    cdef uint64_t limit = saturating_sub(
        min(limits_most_footprint(limits), saturating_add(limits.share, limits.untouched)),
        limits.reserved + limits_library(limits))
    cdef uint64_t most = min(
        limit, saturating_add(limits.footprint, limits_room(limits, 0, limits.assured)))
    cdef uint64_t counted = limits.footprint + n + wanted
    # With room for twice as much: what was refused for it alone is given meanwhile.
    if is_owed(limits) and saturating_sub(counted + wanted, limits.cache) <= most:
        limits.kept_back = limits.wanted_back
        limits.yields = False
        trim[0] = max(trim[0], saturating_sub(counted, most))


cdef uint64_t most_kept(const Limits *limits) noexcept nogil:
    """The footprint that nothing idle has to go for: with what nobody has touched besides.

    Short blocks may have some of what is kept back, and what they leave stays: else a slab that
    comes and goes would each time.
    """
    return saturating_add(limits_unreserved(limits, 0, 0), limits.untouched)


cdef uint64_t limits_excess(const Limits *limits) noexcept nogil:
    cdef uint64_t over_cache = saturating_sub(limits.cache, limits_cache_limit(limits))
    cdef uint64_t stays = limits.footprint - limits.returning
    cdef uint64_t over_memory = saturating_sub(stays, most_kept(limits))
    if limits.others_wait:
        return limits.cache
    return max(over_cache, min(over_memory, limits.cache))


cdef inline uint64_t most_idle(uint64_t highest, uint64_t heaps) noexcept nogil:
    return highest // SPREAD_PART + SPREAD * heaps


cdef uint64_t untrimmed(
    const Limits *limits, uint64_t n, uint64_t highest, uint64_t heaps
) noexcept nogil:
    """Up to which footprint nothing idle is in n bytes' way, with `highest` active at once."""
    cdef uint64_t most = most_idle(highest, heaps)
    cdef uint64_t least = min(most, highest // SPREAD_PART + highest // FEW_PART + SPREAD)
    if limits.leans:
        least = highest // LEAN_PART + LEAN_SPREAD * max(heaps, <uint64_t> 1)
    elif n >= LONG_GROWTH and limits_cuts(limits):
        least = LEAST_SPREAD * heaps
    return min(limits.trim_limit, highest + min(least + limits.widened, most))


cdef uint64_t limits_over_untrimmed(
    const Limits *limits, uint64_t n, uint64_t heaps
) noexcept nogil:
    cdef uint64_t stays = limits.footprint - limits.returning
    # What is pending and stays is about to be active.
    cdef uint64_t used = limits.active + limits.pending - limits.returning + n
    return saturating_sub(stays + n, untrimmed(limits, n, max(limits.highest, used), heaps))


cdef Verdict limits_judge(
    const Limits *limits, uint64_t n, uint64_t own, uint64_t heaps, uint64_t *trim
) noexcept nogil:
    cdef uint64_t limit = limits_unreserved(limits, n, own)
    cdef uint64_t kept = limits.footprint - limits.cache
    trim[0] = min(limits_over_untrimmed(limits, n, heaps), limits.cache)
    if n <= saturating_sub(limit, limits.footprint):
        return FITS
    if n <= saturating_sub(limit, kept):
        trim[0] = max(trim[0], n + limits.footprint - limit)
        return FITS
    if saturating_sub(limits.footprint + n, limits.untouched) <= limit:
        return FITS
    if n <= saturating_sub(limit, kept - limits.pending):
        return WAIT
    if limits.policy != POLICY_GUIDELINE:
        return REFUSE
    trim[0] = limits.cache
    return FITS


cdef uint64_t limits_longest(const Limits *limits, uint64_t n, uint64_t heaps) noexcept nogil:
    # What is too long counts as active: near the memory limit it could make a refusal or overrun.
    if (
        limits.policy != POLICY_GUIDELINE
        or n > saturating_sub(limits_unreserved(limits, n, 0), limits.footprint)
        or limits_over_untrimmed(limits, n, heaps) == 0
    ):
        return 0
    return 3 * n


cdef uint64_t limits_room(const Limits *limits, uint64_t n, uint64_t available) noexcept nogil:
    cdef uint64_t room = saturating_sub(available, limits.unfaulted)
    return saturating_sub(
        room,
        limits.reserved + limits_unheld(limits) + limits_kept_back(limits, n) + limits.margin)


cdef uint64_t limits_process_room(
    const Limits *limits, uint64_t n, uint64_t process
) noexcept nogil:
    if limits.count != COUNT_PROCESS:
        return UINT64_MAX
    return saturating_sub(limits_unreserved(limits, n, 0), process + limits.unfaulted)


cdef uint64_t limits_process_over(
    const Limits *limits, uint64_t n, uint64_t process
) noexcept nogil:
    return limits_least_process_over(limits, n, process + limits.unfaulted)


cdef uint64_t limits_least_process_over(
    const Limits *limits, uint64_t n, uint64_t process
) noexcept nogil:
    if limits.count != COUNT_PROCESS:
        return 0
    return saturating_sub(process + n, limits_unreserved(limits, n, 0))


cdef uint64_t limits_most_footprint(const Limits *limits) noexcept nogil:
    cdef uint64_t limit = min(limits.memory_limit, limits.pool_limit)
    if limits.count != COUNT_PROCESS:
        return saturating_add(limit, limits.untouched)
    # What is not of the footprint is others'.
    return saturating_sub(
        limit,
        saturating_sub(limits.process + limits.unfaulted, limits.footprint))


cdef void limits_extend_credit(Limits *limits, uint64_t room) noexcept nogil:
    # Near the end what the program takes beside its blocks counts: it is read more often.
    limits.credit = min(min(room // CREDIT_PART, <uint64_t> READING_INTERVAL), limits.between)


cdef void limits_lower_unfaulted(
    Limits *limits, uint64_t untouched, uint64_t grown_then
) noexcept nogil:
    limits.unfaulted = min(limits.unfaulted, untouched + (limits.grown - grown_then))
    limits.epoch += 1


cdef void limits_note_process(Limits *limits, uint64_t process) noexcept nogil:
    limits_forget(limits, saturating_sub(process, limits.process))
    limits.process = process


cdef void limits_note_untouched(
    Limits *limits, uint64_t untouched, uint64_t forgotten_then
) noexcept nogil:
    cdef uint64_t touched
    if limits.count != COUNT_RESIDENT:
        return
    limits.untouched = saturating_sub(untouched, limits.forgotten - forgotten_then)
    touched = saturating_sub(limits.footprint - limits.pending, limits.untouched)
    if touched > limits.memory_limit and not limits.overran:
        limits.overruns += 1
    limits.overran = touched > limits.memory_limit


cdef void limits_forget(Limits *limits, uint64_t n) noexcept nogil:
    limits.untouched = saturating_sub(limits.untouched, n)
    limits.forgotten += n


cdef uint64_t limits_pressure(
    const Limits *limits, uint64_t available, double stall, uint64_t purgeable
) noexcept nogil:
    if stall >= limits.most_stall:
        return limits.cache
    # What is purgeable counts as available already, and is the first to go.
    if available < limits_least_available(limits):
        return min(limits_least_available(limits) - available + purgeable, limits.cache)
    return 0


cdef bint limits_reserve(Limits *limits, uint64_t n, uint64_t returned) noexcept nogil:
    cdef uint64_t counted = limits_library(limits) + saturating_sub(
        limits.footprint - returned + n, limits.untouched)
    limits.cache -= returned
    limits.pending += max(n, returned)
    limits.returning += saturating_sub(returned, n)
    limits.footprint += saturating_sub(n, returned)
    limits_add_unfaulted(limits, n)
    return counted > limits.memory_limit


cdef void limits_add_unfaulted(Limits *limits, uint64_t n) noexcept nogil:
    limits.credit = saturating_sub(limits.credit, n)
    limits.unfaulted += n
    limits.grown += n


cdef void lower_footprint(Limits *limits, uint64_t n) noexcept nogil:
    limits.footprint -= n
    # There is no more that could be untouched. To an older reading it is the same: what it took to
    # be so and was touched since is still in the footprint, or is the system's again.
    limits.unfaulted = min(limits.unfaulted, limits.footprint)


cdef void limits_returned(Limits *limits, uint64_t n, uint64_t returned) noexcept nogil:
    limits.pending -= saturating_sub(returned, n)
    limits.returning -= saturating_sub(returned, n)
    lower_footprint(limits, saturating_sub(returned, n))


cdef void limits_confirm(Limits *limits, uint64_t n, bint overrun) noexcept nogil:
    limits.pending -= n
    limits.overruns += overrun


cdef void limits_cancel(Limits *limits, uint64_t n) noexcept nogil:
    limits.pending -= n
    lower_footprint(limits, n)


cdef void limits_leave(Limits *limits, uint64_t n) noexcept nogil:
    limits.pending += n
    limits.returning += n


cdef void limits_set_aside(Limits *limits, uint64_t n) noexcept nogil:
    limits.cache -= n
    limits.pending += n


cdef void limits_note(Limits *limits, uint64_t idle, uint64_t cached) noexcept nogil:
    limits.active = limits.footprint - limits.pending - idle
    limits.cache = cached
    limits.highest = max(limits.highest, limits.active)


cdef void limits_widen(
    Limits *limits, uint64_t n, uint64_t heaps, uint64_t took, uint64_t now
) noexcept nogil:
    cdef uint64_t cheap = (now - limits.widened_at) // CHEAP_PART
    if reachable(limits) >= untrimmed(limits, n, limits.highest, heaps):
        limits.widened += saturating_sub(took, cheap) // WIDENING_PART
        limits.widened_at = now


cdef void limits_note_evicted(Limits *limits, uint64_t n) noexcept nogil:
    limits.evictions += 1
    if limits.leans and n >= LEAN_LONG:
        limits.highest = max(saturating_sub(limits.highest, n), limits.active)


cdef int64_t limits_cache_room(const Limits *limits) noexcept nogil:
    cdef uint64_t limit = most_kept(limits)
    if limits.waiting or limits.others_wait or is_owed(limits):
        return 0
    if limits.footprint <= min(limit, limits_cache_limit(limits)):
        return INT64_MAX
    if limits.footprint - limits.returning > limit:
        return 0
    return min(saturating_sub(limits_cache_limit(limits), limits.cache), <uint64_t> INT64_MAX)


cdef uint64_t reachable(const Limits *limits) noexcept nogil:
    """Up to which footprint no limit is in the way, with what of the pool nobody has taken yet."""
    cdef uint64_t share = saturating_sub(limits.pool_limit, limits.others_used)
    return saturating_sub(
        min(limits.memory_limit, max(share, limits.share)),
        limits.reserved + limits_library(limits) + limits_kept_back(limits, UINT64_MAX))


cdef uint64_t limits_easy_growth(
    const Limits *limits, uint64_t n, uint64_t heaps, bint bounded
) noexcept nogil:
    if is_owed(limits):
        return 0
    return min(min(reachable(limits), UINT64_MAX if bounded else limits_cache_limit(limits)),
               untrimmed(limits, n, limits.highest, heaps))


cdef bint limits_is_tight(const Limits *limits, uint64_t heaps) noexcept nogil:
    # All the threads may come to have, however little that is at first.
    if limits.leans:
        return reachable(limits) < untrimmed(limits, 0, limits.highest, heaps)
    return reachable(limits) < min(
        limits.trim_limit, limits.highest + most_idle(limits.highest, heaps))
