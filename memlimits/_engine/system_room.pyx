from libc.stdint cimport uintptr_t
from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._device.mlim cimport (
    MLIM_OK, mlim_device_claim, mlim_device_unclaim, mlim_range, mlim_sizes, mlim_status,
)
from memlimits._device.readings cimport device_sizes, device_touched
from memlimits._engine.core cimport core_note_sizes, core_settle, core_stop, core_wait
from memlimits._heap.heaps cimport heaps_resume
from memlimits._heap.resource cimport DETACHED, RESIZING, Resource
from memlimits._ledger.limits cimport (
    LIMIT, NOTHING, REFUSE, RESERVATION, SYSTEM, WAIT, Limits, Verdict, limits_default,
    limits_extend_credit, limits_judge, limits_lower_unfaulted, limits_room, limits_unclaimed,
    limits_unreserved,
)

cdef enum:
    # Returned beyond what is lacking: each of the next small steps would else take two readings and
    # a look at every page.
    RETURNED_AHEAD = 1 << 20


cdef void room_lower_unfaulted(Core *core) noexcept nogil:
    cdef uint64_t grown_then = core.limits.grown
    cdef uint64_t pending = core.limits.pending
    cdef uint64_t held = 0, touched = 0
    cdef size_t count = 0
    cdef mlim_status status
    cdef Resource *resource = core.resources
    cdef mlim_range *ranges = <mlim_range *> own_calloc(
        core.limits.resources + 1, sizeof(mlim_range))
    if ranges == NULL:
        return
    while resource != NULL:
        # What is purgeable promises nothing: using it again is growth. What lingers takes nothing
        # from the system's figure, as if it were untouched; and what is being resized may lie
        # elsewhere by then.
        if resource.use != DETACHED and not resource.purgeable:
            held += resource.bytes
            if not resource.lingers and resource.use != RESIZING:
                ranges[count].start = <uintptr_t> resource.base
                ranges[count].end = <uintptr_t> resource.base + resource.bytes
                count += 1
        resource = resource.below
    heaps_resume(&core.heaps)
    status = device_touched(core.device, ranges, count, &touched)
    free(ranges)
    core_stop(core)
    if status == MLIM_OK:
        limits_lower_unfaulted(&core.limits, held - touched + pending, grown_then)


cdef void read(Core *core, Reading *reading) noexcept nogil:
    """While stopped, which it is not meanwhile."""
    cdef mlim_sizes sizes
    cdef mlim_status status
    cdef bint claim = (
        reading.takes and reading.looked and not reading.claimed and core.limits.sharers > 1)
    reading.epoch = core.limits.epoch
    reading.available = core.limits.assured
    core.claims += claim
    heaps_resume(&core.heaps)
    if claim:
        reading.claim = mlim_device_claim(core.device)
        reading.claimed = True
    status = device_sizes(core.device, reading.looked, &sizes, NULL)
    core_stop(core)
    # What cannot be read now is taken to be as it was.
    if status == MLIM_OK:
        core_note_sizes(core, &sizes)
        reading.available = sizes.assured
    reading.current = True


cdef void read_unstopped(Core *core) noexcept nogil:
    """Under the lock, which it drops."""
    cdef mlim_sizes sizes
    cdef mlim_status status
    pthread_mutex_unlock(&core.heaps.lock)
    status = device_sizes(core.device, False, &sizes, NULL)
    pthread_mutex_lock(&core.heaps.lock)
    if status == MLIM_OK:
        core_note_sizes(core, &sizes)


cdef void room_read_ahead(Core *core, uint64_t n, Reading *reading) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    if n > core.limits.credit:
        reading.epoch = core.limits.epoch
        read_unstopped(core)
        reading.available = core.limits.assured
        reading.current = True
    pthread_mutex_unlock(&core.heaps.lock)


cdef void room_end(Core *core, Reading *reading) noexcept nogil:
    if not reading.claimed:
        return
    mlim_device_unclaim(core.device, reading.claim)
    reading.claimed = False
    pthread_mutex_lock(&core.heaps.lock)
    core.claims -= 1
    core_settle(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef bint is_tight(const Limits *limits, uint64_t n, uint64_t room) noexcept nogil:
    """Whether it takes a closer look."""
    return n > room and limits.unfaulted or n > limits_unclaimed(limits, room)


cdef bint room_read(
    Core *core, uint64_t n, Reading *reading, uint64_t *short_by
) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t room
    short_by[0] = 0
    if n <= limits.credit:
        return True
    if not reading.current or reading.epoch != limits.epoch:
        read(core, reading)
        return False
    room = limits_room(limits, reading.available)
    if not reading.looked and is_tight(limits, n, room):
        if n > room:
            room_lower_unfaulted(core)
        reading.looked = True
        reading.current = False
        return False
    short_by[0] = n - room if n > room else 0
    limits_extend_credit(limits, room)
    return True


cdef bint room_extend_credit(Core *core, uint64_t n) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t epoch = limits.epoch
    cdef uint64_t room
    read_unstopped(core)
    if epoch != limits.epoch:
        return n <= limits.credit
    room = limits_room(limits, limits.assured)
    limits_extend_credit(limits, room)
    return n <= limits_unclaimed(limits, room)


cdef Blocker room_ends_at(const Limits *limits, uint64_t growth) noexcept nogil:
    cdef uint64_t kept = limits.footprint - limits.cache
    return RESERVATION if kept + growth <= limits.memory_limit else LIMIT


cdef bint room_look(
    Core *core, uint64_t growth, uint64_t own, Reading *reading, uint64_t *trim, Blocker *blocker
) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t short_by = 0
    cdef Verdict verdict
    if limits.memory_follows:
        limits.memory_limit = limits_default(limits)    # by the last reading, whoever took it
        if not reading.current and limits.footprint + growth > limits_unreserved(limits, own):
            # The system may have more by now.
            read(core, reading)
            return False
    verdict = limits_judge(limits, growth, own, core.takers, trim)
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
        if short_by > limits.cache:
            if short_by > limits.cache + limits.pending:
                blocker[0] = SYSTEM
                return True
            core_wait(core)
            reading.current = False
            return False
        short_by = min(short_by + RETURNED_AHEAD, limits.cache)
    trim[0] = max(trim[0], short_by)
    return True
