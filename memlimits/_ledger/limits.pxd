"""Limits, counters, and the arithmetic of "does it fit".

Every field is in bytes unless it says otherwise, and is guarded by the lock of the allocator that
owns the struct. `slack` is not stored: it is what remains, so that
`active + cache + slack + pending == footprint` holds after every function below.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum Policy:
    POLICY_GUIDELINE
    POLICY_STRICT
    POLICY_WAIT     # waits for others to free enough, then refuses

cdef enum Count:        # what the memory limit is on
    COUNT_GIVEN     # bytes handed out: the footprint
    COUNT_RESIDENT  # the same, less what a look finds that nobody has touched
    COUNT_PROCESS   # the footprint, and besides all that the process holds, whoever took it

cdef enum:
    LONGEST_AFTER_REFUSAL = 1 << 20     # that it leads to: an arena of Python's
    DEFAULT_TIMEOUT = 60        # seconds, of POLICY_WAIT

cdef enum Verdict:
    FITS        # once `trim` bytes of the cache are returned
    WAIT        # not yet: pending bytes may still fail or be returned
    REFUSE

cdef enum Blocker:
    NOTHING
    LIMIT
    SYSTEM
    DEVICE
    LENGTH
    RESOURCES
    FORK
    BUDGET
    RESERVATION
    QUEUE       # others wait for memory, and come first
    POOL        # all members of the pool together
    TEST        # a test asked for it

cdef enum:
    BLOCKERS = TEST + 1    # how many there are: an array's length for any Cython

cdef enum:
    CREDIT_PART = 4     # the part of the system's room that growth without a reading may take
    LONG_GROWTH = 1 << 20       # leaves less idle at first: it may be cut from whatever is idle

cdef struct Limits:
    uint64_t memory_limit
    bint memory_follows         # it is the default, and follows what the system says
    Count count
    uint64_t cache_limit        # as set; means nothing while cache_follows
    bint cache_follows          # the cache limit is the memory limit
    uint64_t reserved           # of the memory limit, for those who hold reservations
    # What a library counts that has its memory from elsewhere, beside the footprint: what it was
    # admitted to hold, or what it said that it holds, if that is more.
    uint64_t library
    uint64_t admitted
    uint64_t library_active     # as it said last: in use, idle, and in use at most
    uint64_t library_cache
    uint64_t library_peak
    # Likewise, and of the system's room, for what follows a refusal: an error has to be raised and
    # told. What is wanted, and what there is: 0 from a refusal on, until there is room for it. From
    # long growth it is kept then, too; and of short growth some needs no refusal.
    uint64_t wanted_back
    uint64_t kept_back
    bint yields                 # it is for what cannot wait, too, until it is kept back again
    bint begins                 # who stopped the heaps is a thread that starts: not from it
    # What the pool of processes allows, in bytes; UINT64_MAX where there is none: what this one may
    # count; all of them; each, if all had as much. And what a forked child counts for nothing.
    uint64_t share
    uint64_t pool_limit
    uint64_t fair_share
    uint64_t inherited
    uint64_t others_used        # by its other members, when last looked at
    bint others_wait            # of the pool: nothing is to stay idle
    uint64_t wired_limit
    bint resizes                # as in mlim_device_facts: idle memory can be cut to length
    # So much more may be idle than at first, and when that was decided, ns.
    uint64_t widened
    uint64_t widened_at
    uint64_t trim_limit         # growth above it returns idle resources first, and is not refused
    int64_t leans               # how many ask for little idle memory; 0: growth returns less of it
    Policy policy
    uint64_t wait_timeout       # ns, under POLICY_WAIT
    uint64_t waiting            # threads in the queue for memory

    uint64_t footprint          # held from the device, or being asked of it or returned to it
    uint64_t pending            # the part of footprint whose device call is under way
    uint64_t returning          # the part of pending that will leave the footprint
    # As of the last time that all heaps stood still.
    uint64_t active             # blocks in callers' hands, at their capacity
    uint64_t cache              # idle resources

    uint64_t peak               # filled in where it is asked for
    # The highest active, and what might have been, since the start or since the cache was cleared,
    # as it was when last looked at. While lean, less what long resources took with them.
    uint64_t highest
    uint64_t wired              # kept resident, or being made so
    uint64_t registered         # the part of it that a GPU's driver knows of
    uint64_t resources          # how many the device made and has not taken back

    # The system's room. Reading it is slow, so growth draws on a credit between two readings.
    uint64_t available          # what the system said it could give, the last time it said it
    uint64_t memory_size        # what it said then that all programs here share
    uint64_t working_set        # and the part of it that it recommends to use
    uint64_t margin             # what growth leaves to the program itself
    # As it said then, too: the part of `available` that others were not promised; how many programs
    # share it; how far one may grow between two readings, for the sake of the others.
    uint64_t assured
    uint64_t sharers
    uint64_t between
    uint64_t untouched          # COUNT_RESIDENT: so much of the footprint nobody has touched
    uint64_t forgotten          # bytes that were looked at and may be touched or gone: a clock
    bint overran                # the last look found that more was touched than the limit allows
    uint64_t process            # the process held it, less what the system can drop
    uint64_t credit             # growth still allowed before the next reading
    uint64_t unfaulted           # upper bound of our own bytes that nobody has touched yet
    uint64_t grown              # all growth ever asked for: a clock for readings
    uint64_t readings           # how often it was read
    uint64_t read_at            # when it was read last, ns; 0: that is worth nothing
    uint64_t read_lasts         # and for how long that is worth something, ns
    uint64_t footprint_read     # as it was then
    uint64_t epoch              # count of lowered promises: an older reading is worth nothing

    # Memory pressure: idle resources go back while the system has less for us than that, or while
    # programs wait for memory so many percent of the time. 0 and INFINITY for never.
    uint64_t least_available
    bint available_follows      # it is the default: the margin
    double most_stall

    # Counts since the start, and the bytes in them: idle resources returned because somebody asked
    # for it, or because of pressure; and those returned or made purgeable after the idle timeout.
    uint64_t trims
    uint64_t trimmed
    uint64_t pressure_trims
    uint64_t pressure_trimmed
    uint64_t decays
    uint64_t decayed

    # Filled in by pins_survey where they are asked for.
    uint64_t wired_requested        # in resources that are to be wired ahead of others
    uint64_t unwired_requested      # the part of them that is not wired
    uint64_t unwired_by_limit      # in use and not wired, since the wired limit is too low
    uint64_t unwired_by_capacity   # likewise, since the system lets this process wire no more

    # counts since the start
    uint64_t hits
    uint64_t misses
    uint64_t overruns           # growth past the limit under the guideline policy
    uint64_t refusals[BLOCKERS]
    uint64_t wire_failures
    uint64_t waits              # requests that waited for others to free memory
    uint64_t waited             # ns, all of them together
    uint64_t wires              # resources that became resident
    uint64_t registrations      # of them with a GPU's driver; and while there was one, without
    uint64_t registration_failures
    uint64_t commits            # of residency sets
    uint64_t steals             # blocks and idle resources that one heap had from another
    uint64_t evictions          # idle resources returned, for whatever reason
    uint64_t evicted            # their bytes

# Bytes of the cache to return because of pressure, given what the system says that it could give,
# `purgeable` bytes of the cache in it, and how long programs wait.
cdef extern uint64_t limits_pressure(
    const Limits *limits, uint64_t available, double stall, uint64_t purgeable) noexcept nogil

# With the sizes noted, which the limits follow until they are set; and whether the device resizes.
cdef extern void limits_init(Limits *limits, bint resizes) noexcept nogil
# After a reading: what the system says.
cdef extern void limits_note_sizes(
    Limits *limits, uint64_t available, uint64_t memory_size, uint64_t working_set) noexcept nogil
cdef extern void limits_note_sharers(
    Limits *limits, uint64_t assured, uint64_t sharers, uint64_t between) noexcept nogil
# Growth that several who look at the same time may all be given.
cdef extern uint64_t limits_unclaimed(const Limits *limits, uint64_t room) noexcept nogil
# The memory limit where none was set, by the last reading.
cdef extern uint64_t limits_default(const Limits *limits) noexcept nogil
# Whether the memory limit is to follow it.
cdef extern bint limits_is_outdated(const Limits *limits) noexcept nogil
# Whether a reading asks for more than growth being judged by it: the system is short, programs may
# wait for memory, the memory limit is to follow.
cdef extern bint limits_needs_look(const Limits *limits) noexcept nogil
cdef extern uint64_t limits_least_available(const Limits *limits) noexcept nogil
cdef extern uint64_t limits_slack(const Limits *limits) noexcept nogil
cdef extern uint64_t limits_cache_limit(const Limits *limits) noexcept nogil
# Bytes of the cache to return now: above the cache limit, or holding the footprint above the limit.
cdef extern uint64_t limits_excess(const Limits *limits) noexcept nogil

# Whether the footprint may grow by n, of which `own` are reserved for it, and how much of the cache
# must be returned for it. Threads take from so many heaps.
cdef extern Verdict limits_judge(
    const Limits *limits, uint64_t n, uint64_t own, uint64_t heaps, uint64_t *trim) noexcept nogil
# So many idle bytes are in the way of growth by n, limit or not. Threads take from so many heaps.
cdef extern uint64_t limits_over_untrimmed(
    const Limits *limits, uint64_t n, uint64_t heaps) noexcept nogil
# What the memory limit leaves to growth by n (UINT64_MAX: by any), of it `own` reserved for it.
cdef extern uint64_t limits_unreserved(
    const Limits *limits, uint64_t n, uint64_t own) noexcept nogil
# What bounds it now: the memory limit, or what the pool gave.
cdef extern uint64_t limits_bound(const Limits *limits) noexcept nogil
# Which of the two is in the way, where one is.
cdef extern Blocker limits_blocker(const Limits *limits) noexcept nogil
# What the library counts, beside the rest: not what the process holds of it, where that counts.
cdef inline uint64_t limits_library(const Limits *limits) noexcept nogil:
    return limits_unheld(limits) if limits.count == COUNT_PROCESS else limits.library
# What of it the system has not given yet.
cdef inline uint64_t limits_unheld(const Limits *limits) noexcept nogil:
    return limits.library - (limits.library_active + limits.library_cache)
# What it would count if it were admitted to n bytes more; it is admitted to so many; and it says
# that it holds so many.
cdef extern uint64_t limits_library_with(const Limits *limits, uint64_t n) noexcept nogil
cdef extern void limits_admit(Limits *limits, uint64_t admitted) noexcept nogil
cdef extern void limits_note_library(
    Limits *limits, uint64_t active, uint64_t cache, uint64_t peak) noexcept nogil
# What it may count in all, beside what is in use here, with so many bytes in the cache now; as far
# as it is known what others leave.
cdef extern uint64_t limits_library_room(const Limits *limits, uint64_t cached) noexcept nogil
# What counts after growth by n.
cdef extern uint64_t limits_counted(const Limits *limits, uint64_t n) noexcept nogil
# What of it is kept back from growth by n; and what is to be, of whatever growth.
cdef extern uint64_t limits_wanted_back(const Limits *limits) noexcept nogil
cdef extern uint64_t limits_kept_back(const Limits *limits, uint64_t n) noexcept nogil
# While stopped: keeps it back again if there is room for twice as much, after growth by n, once
# `trim` bytes of the cache are returned; more of them, where it takes that.
cdef extern void limits_keep_back(Limits *limits, uint64_t n, uint64_t *trim) noexcept nogil
# How long an idle resource may be to serve n bytes, where growth would return others instead, and
# where it makes no peak: that is for the caller to see. 0 for no longer than a hit may take.
cdef extern uint64_t limits_longest(const Limits *limits, uint64_t n, uint64_t heaps) noexcept nogil
# What the system still has for growth by n, given what it said it could give when `epoch` was
# current.
cdef extern uint64_t limits_room(
    const Limits *limits, uint64_t n, uint64_t available) noexcept nogil
# What the memory limit leaves to it, given what the process held then: nothing less than all where
# it does not count that. By how many bytes growth by n would pass it; and at least, if nothing of
# ours was untouched.
cdef extern uint64_t limits_process_room(
    const Limits *limits, uint64_t n, uint64_t process) noexcept nogil
cdef extern uint64_t limits_process_over(
    const Limits *limits, uint64_t n, uint64_t process) noexcept nogil
cdef extern uint64_t limits_least_process_over(
    const Limits *limits, uint64_t n, uint64_t process) noexcept nogil
# The footprint that the memory limit leaves to all who have blocks here, as far as is known.
cdef extern uint64_t limits_most_footprint(const Limits *limits) noexcept nogil
# After a reading that allows n: how far the next growth may go without another.
cdef extern void limits_extend_credit(Limits *limits, uint64_t room) noexcept nogil
# Whatever comes next takes another reading.
cdef inline void limits_drop_credit(Limits *limits) noexcept nogil:
    limits.credit = limits.read_at = 0
# After a look at every page: `untouched` bytes when the clock stood at `grown_then`.
cdef extern void limits_lower_unfaulted(
    Limits *limits, uint64_t untouched, uint64_t grown_then) noexcept nogil

# After a reading of what the process holds. COUNT_RESIDENT: what is more may be of ours, touched.
cdef extern void limits_note_process(Limits *limits, uint64_t process) noexcept nogil
# COUNT_RESIDENT: after the same look, `untouched` bytes when that other clock stood at
# `forgotten_then`; and n bytes that were looked at are returned, or may be touched.
cdef extern void limits_note_untouched(
    Limits *limits, uint64_t untouched, uint64_t forgotten_then) noexcept nogil
cdef extern void limits_forget(Limits *limits, uint64_t n) noexcept nogil

# n bytes that the system has not given yet, but will when they are touched.
cdef extern void limits_add_unfaulted(Limits *limits, uint64_t n) noexcept nogil

# Growth by n while `returned` bytes of the cache go back: one step, so that nobody else takes the
# room between the two. `returned` is settled first (limits_returned), then the growth is confirmed
# or cancelled. Returns whether this is an overrun, to be counted when the growth is confirmed.
cdef extern bint limits_reserve(Limits *limits, uint64_t n, uint64_t returned) noexcept nogil
cdef extern void limits_returned(Limits *limits, uint64_t n, uint64_t returned) noexcept nogil
cdef extern void limits_confirm(Limits *limits, uint64_t n, bint overrun) noexcept nogil
cdef extern void limits_cancel(Limits *limits, uint64_t n) noexcept nogil
# n active bytes on their way back to the device, settled by limits_returned.
cdef extern void limits_leave(Limits *limits, uint64_t n) noexcept nogil
# n bytes of the cache for a device call, after which limits_confirm says that they are held.
cdef extern void limits_set_aside(Limits *limits, uint64_t n) noexcept nogil

# What all heaps hold, while they stand still: `idle` in all, `cached` of it in idle resources.
cdef extern void limits_note(Limits *limits, uint64_t idle, uint64_t cached) noexcept nogil
# Whether idle memory may be cut at all: what is wired stays whole.
cdef inline bint limits_splits(const Limits *limits) noexcept nogil:
    return limits.resizes and limits.wired_limit == 0
# Whether growth may cut any of it, once there is no room: where more than what is given counts, it
# is to be looked at now and then.
cdef inline bint limits_cuts(const Limits *limits) noexcept nogil:
    return limits_splits(limits) and limits.count == COUNT_GIVEN
# Having idle memory returned for growth by n, or used in its stead, took so many ns. Nothing is
# widened where the memory limit is what asked for it.
cdef extern void limits_widen(
    Limits *limits, uint64_t n, uint64_t heaps, uint64_t took, uint64_t now) noexcept nogil
# While stopped: an idle resource of n bytes is on its way back to the device.
cdef extern void limits_note_evicted(Limits *limits, uint64_t n) noexcept nogil

# What may go on without a look at the limits. Bytes that may become cached: INT64_MAX for no bound.
# Up to which footprint growth by n is paid for without looking for idle memory in other heaps:
# within the cache limit only while bytes that may become cached have no bound.
cdef extern int64_t limits_cache_room(const Limits *limits) noexcept nogil
cdef extern uint64_t limits_easy_growth(
    const Limits *limits, uint64_t n, uint64_t heaps, bint bounded) noexcept nogil
# Whether the memory limit is near to what was active at most: growth meets it first.
cdef extern bint limits_is_tight(const Limits *limits, uint64_t heaps) noexcept nogil
