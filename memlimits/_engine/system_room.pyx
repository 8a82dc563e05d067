from libc.stdint cimport UINT64_MAX, uintptr_t
from libc.stdlib cimport free

from memlimits._base.arithmetic cimport saturating_sub
from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport (
    CLOCK_COARSE, pthread_mutex_lock, pthread_mutex_unlock, time_of,
)
from memlimits._device.mlim cimport (
    MLIM_OK, mlim_device_claim, mlim_device_unclaim, mlim_process, mlim_range, mlim_sizes,
    mlim_status,
)
from memlimits._device.readings cimport device_process, device_sizes, device_touched
from memlimits._engine.core cimport (
    core_detach, core_note_process, core_note_sizes, core_resume, core_return, core_settle,
    core_stop, core_wait,
)
from memlimits._heap.heap cimport heaps_takers
from memlimits._heap.heaps cimport heaps_resume
from memlimits._heap.resource cimport DETACHED, SPARE, Resource
from memlimits._ledger.limits cimport (
    COUNT_PROCESS, COUNT_RESIDENT, CREDIT_PART, NOTHING, POLICY_GUIDELINE, POOL, REFUSE,
    RESERVATION, SYSTEM, WAIT, Limits, Verdict, limits_blocker, limits_bound, limits_default,
    limits_drop_credit, limits_extend_credit, limits_judge, limits_kept_back,
    limits_least_process_over, limits_library, limits_lower_unfaulted, limits_needs_look,
    limits_note_untouched, limits_process_over, limits_process_room, limits_room, limits_unclaimed,
    limits_unreserved,
)

cdef enum:
    # Returned beyond what is lacking: each of the next small steps would else take two readings and
    # a look at every page.
    RETURNED_AHEAD = 1 << 20
    READING_LASTS = 10000000    # ns, or so many times what it took, until half a second
    READING_PAYS = 20
    LONGEST_READING = 500000000
    MOST_TRIES = 16


cdef void room_lower_unfaulted(Core *core) noexcept nogil:
    cdef uint64_t grown_then = core.limits.grown
    cdef uint64_t pending = core.limits.pending
    cdef uint64_t forgotten_then = core.limits.forgotten
    cdef uint64_t held = 0, seen = 0, touched = 0
    cdef size_t count = 0
    cdef mlim_status status
    cdef Resource *resource = core.resources
    cdef mlim_range *ranges = <mlim_range *> own_calloc(
        core.limits.resources + 1, sizeof(mlim_range))
    if ranges == NULL:
        return
    while resource != NULL:
        # What is purgeable promises nothing: using it again is growth. What lingers takes nothing
        # from the system's figure, as if it were untouched; and what the device moves may lie
        # elsewhere by then.
        if resource.use != DETACHED and resource.use != SPARE and not resource.purgeable:
            held += resource.bytes
            if not resource.lingers and not resource.moves:
                ranges[count].start = <uintptr_t> resource.base
                ranges[count].end = <uintptr_t> resource.base + resource.bytes
                count += 1
                seen += resource.bytes
                resource.looked_at = True
        resource = resource.below
    heaps_resume(&core.heaps)
    status = device_touched(core.device, ranges, count, &touched)
    free(ranges)
    core_stop(core)
    if status == MLIM_OK:
        limits_lower_unfaulted(&core.limits, held - touched + pending, grown_then)
        limits_note_untouched(&core.limits, saturating_sub(seen, touched), forgotten_then)


cdef struct Facts:
    mlim_sizes sizes
    mlim_process process
    bint of_process             # whether it is read, too


cdef bint read_facts(Core *core, bint closely, Facts *facts) noexcept nogil:
    """Under no lock. False: not now."""
    return device_sizes(core.device, closely, &facts.sizes, NULL) == MLIM_OK and (
        not facts.of_process or device_process(core.device, &facts.process) == MLIM_OK)


cdef void note_facts(Core *core, const Facts *facts, uint64_t began) noexcept nogil:
    cdef uint64_t now = time_of(CLOCK_COARSE)
    core_note_sizes(core, &facts.sizes)
    core.limits.read_at = now
    core.limits.footprint_read = core.limits.footprint
    core.limits.read_lasts = min(
        max(READING_PAYS * (now - began), <uint64_t> READING_LASTS), <uint64_t> LONGEST_READING)
    if facts.of_process:
        core_note_process(core, &facts.process)


cdef void take(const Core *core, Reading *reading) noexcept nogil:
    reading.available = core.limits.assured
    reading.process = core.limits.process
    reading.current = True


cdef void read(Core *core, Reading *reading) noexcept nogil:
    """While stopped, which it is not meanwhile."""
    cdef Facts facts
    cdef bint known
    cdef bint claim = (
        reading.takes and reading.looked and not reading.claimed and core.limits.sharers > 1)
    cdef uint64_t began
    reading.epoch = core.limits.epoch
    take(core, reading)
    facts.of_process = core.limits.count == COUNT_PROCESS
    core.claims += claim
    heaps_resume(&core.heaps)
    if claim:
        mlim_device_claim(core.device, &reading.claim)
        reading.claimed = True
    began = time_of(CLOCK_COARSE)
    known = read_facts(core, reading.looked, &facts)
    core_stop(core)
    # What cannot be read now is taken to be as it was.
    if known:
        note_facts(core, &facts, began)
        take(core, reading)


cdef void read_unstopped(Core *core) noexcept nogil:
    """Under the lock, which it drops."""
    cdef Facts facts
    cdef bint known
    cdef uint64_t began = time_of(CLOCK_COARSE)
    facts.of_process = core.limits.count == COUNT_PROCESS
    pthread_mutex_unlock(&core.heaps.lock)
    known = read_facts(core, False, &facts)
    pthread_mutex_lock(&core.heaps.lock)
    if known:
        note_facts(core, &facts, began)


cdef void room_read_ahead(Core *core, uint64_t n, Reading *reading) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    if n > core.limits.credit:
        reading.epoch = core.limits.epoch
        read_unstopped(core)
        take(core, reading)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void room_end(Core *core, Reading *reading) noexcept nogil:
    if not reading.claimed:
        return
    mlim_device_unclaim(core.device, &reading.claim)
    reading.claimed = False
    pthread_mutex_lock(&core.heaps.lock)
    core.claims -= 1
    core_settle(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void room_retry(Core *core, Reading *reading, Blocker *blocker) noexcept nogil:
    # Others have it by now; or the process holds more than when this got its credit.
    limits_drop_credit(&core.limits)
    reading.current = False
    reading.tries += 1
    blocker[0] = POOL if reading.tries == MOST_TRIES else NOTHING


cdef bint is_tight(
    const Limits *limits, uint64_t n, uint64_t room, const Reading *reading
) noexcept nogil:
    """Whether it takes a closer look."""
    return n > room and limits.unfaulted or n > limits_unclaimed(limits, room) or (
        # Where the process holds too much by itself no look at what is untouched helps.
        limits.unfaulted and limits_process_over(limits, n, reading.process)
        and limits_least_process_over(limits, n, reading.process)
        <= limits.cache + limits.pending)


cdef uint64_t credited(const Limits *limits, uint64_t available, uint64_t process) noexcept nogil:
    """The room for whatever growth comes next."""
    return min(
        limits_room(limits, UINT64_MAX, available),
        limits_process_room(limits, UINT64_MAX, process))


cdef bint room_read(
    Core *core, uint64_t n, Reading *reading, uint64_t *short_by
) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t room
    short_by[0] = reading.over = 0
    if n <= limits.credit:
        return True
    if not reading.current or reading.epoch != limits.epoch:
        read(core, reading)
        return False
    room = limits_room(limits, n, reading.available)
    reading.over = limits_process_over(limits, n, reading.process)
    if not reading.looked and is_tight(limits, n, room, reading):
        if n > room or reading.over:
            room_lower_unfaulted(core)
        reading.looked = True
        reading.current = False
        return False
    short_by[0] = saturating_sub(n, room)
    limits_extend_credit(limits, credited(limits, reading.available, reading.process))
    return True


cdef bint is_plenty(const Limits *limits, uint64_t n) noexcept nogil:
    """Whether n bytes are a small part of what there was a moment ago, and no other program's.

    What was promised since then is in the room's upper bound of bytes that nobody has touched.
    """
    cdef uint64_t room = limits_room(limits, n, limits.assured)
    return (
        (limits.sharers < 2 or limits.footprint + n <= limits.footprint_read + limits.between)
        and limits.count != COUNT_PROCESS and not limits_needs_look(limits)
        and n <= min(limits_unclaimed(limits, room), room // CREDIT_PART)
        and time_of(CLOCK_COARSE) - limits.read_at < limits.read_lasts)


cdef bint room_extend_credit(Core *core, uint64_t n) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t epoch = limits.epoch
    cdef uint64_t room, most
    # Else blocks that come and go, with nothing in the cache, would each be read for.
    if not is_plenty(limits, n):
        read_unstopped(core)
    if epoch != limits.epoch:
        return n <= limits.credit
    room = limits_room(limits, n, limits.assured)
    most = limits_process_room(limits, n, limits.process)
    limits_extend_credit(limits, credited(limits, limits.assured, limits.process))
    return n <= min(limits_unclaimed(limits, room), most)


cdef Blocker room_ends_at(const Limits *limits, uint64_t growth) noexcept nogil:
    cdef uint64_t kept = limits.footprint - limits.cache
    cdef uint64_t limit = saturating_sub(
        limits_bound(limits), limits_library(limits) + limits_kept_back(limits, growth))
    if saturating_sub(kept + growth, limits.untouched) <= limit:
        return RESERVATION
    return limits_blocker(limits)


cdef Blocker process_ends_at(const Core *core, uint64_t own, const Reading *reading) noexcept nogil:
    """Which of the two, likewise, where the limit counts what the process holds."""
    cdef const Limits *limits = &core.limits
    cdef uint64_t over = reading.over - limits.cache - limits.pending
    if over <= saturating_sub(limits.reserved, own):
        return RESERVATION
    return limits_blocker(limits)


cdef bint lacks(
    Core *core, uint64_t short_by, uint64_t own, Reading *reading, uint64_t *trim,
    Blocker *blocker
) noexcept nogil:
    """While stopped: what the system, or the limit on the process, lacks comes of the cache."""
    cdef Limits *limits = &core.limits
    cdef uint64_t over = reading.over
    cdef uint64_t kept = limits.cache + limits.pending
    reading.overruns = limits.policy == POLICY_GUIDELINE and over > limits.cache
    if reading.overruns:
        over = limits.cache
    if max(short_by, over) > limits.cache:
        if max(short_by, over) > kept:
            blocker[0] = process_ends_at(core, own, reading) if over > kept else SYSTEM
            return True
        core_wait(core)
        reading.current = False
        return False
    if short_by or over:
        short_by = min(max(short_by, over) + RETURNED_AHEAD, limits.cache)
    trim[0] = max(trim[0], short_by)
    return True


cdef void weigh(Core *core, Reading *reading) noexcept nogil:
    """While stopped, which it is not meanwhile: what was touched since a look adds to this."""
    cdef mlim_process process
    cdef mlim_status status
    reading.weighed = True
    heaps_resume(&core.heaps)
    status = device_process(core.device, &process)
    core_stop(core)
    if status == MLIM_OK:
        core_note_process(core, &process)


cdef void look_at_untouched(Core *core, Reading *reading) noexcept nogil:
    """While stopped, which it is not meanwhile: once for a request, before it is refused."""
    cdef Resource *idle
    reading.spared = True
    if reading.takes and core.limits.cache:
        # Returned later it would be looked at again, as much as it holds.
        idle = core_detach(core, UINT64_MAX)
        core_resume(core, False)
        core_return(core, idle)
        core_stop(core)
    weigh(core, reading)
    room_lower_unfaulted(core)


cdef bint room_look(
    Core *core, uint64_t growth, uint64_t own, Reading *reading, uint64_t *trim, Blocker *blocker
) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t short_by = 0
    cdef Verdict verdict
    if limits.memory_follows:
        limits.memory_limit = limits_default(limits)    # by the last reading, whoever took it
        if not reading.current and (
            limits.footprint + growth > limits_unreserved(limits, growth, own)
        ):
            # The system may have more by now.
            read(core, reading)
            return False
    if (
        limits.untouched and not reading.weighed
        and limits.footprint + growth > limits_unreserved(limits, growth, own)
    ):
        weigh(core, reading)
        return False
    verdict = limits_judge(limits, growth, own, heaps_takers(&core.heaps), trim)
    if verdict == REFUSE and limits.count == COUNT_RESIDENT and not reading.spared:
        look_at_untouched(core, reading)
        return False
    blocker[0] = NOTHING
    if verdict == REFUSE:
        blocker[0] = room_ends_at(limits, growth)
        return True
    if verdict == WAIT:
        core_wait(core)
        reading.current = False
        return False
    if not room_read(core, growth - min(growth, own), reading, &short_by):
        return False
    if short_by:
        # What is purgeable counts as available already, and is the first to go.
        short_by += core.purgeable
    return lacks(core, short_by, own, reading, trim, blocker)
