from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX

from memlimits._base.sync cimport load_count, pthread_mutex_lock, pthread_mutex_unlock, store_count
from memlimits._device.mlim cimport MLIM_OK
from memlimits._device.readings cimport device_stall
from memlimits._engine.controls cimport (
    controls_follow_sizes, controls_read_sizes, controls_settings,
)
from memlimits._engine.core cimport core_detach, core_resume, core_return, core_stop
from memlimits._engine.decay cimport decay_step
from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport (
    Limits, limits_is_outdated, limits_least_available, limits_pressure,
)


cdef double read_stall(Core *core, double most_stall) noexcept nogil:
    """Not read where nothing hangs on it. Unknown is none."""
    cdef double stall = 0
    if most_stall == INFINITY or device_stall(core.device, &stall) != MLIM_OK:
        return 0
    return stall


cdef uint64_t total(const Resource *resource) noexcept nogil:
    cdef uint64_t bytes = 0
    while resource != NULL:
        bytes += resource.bytes
        resource = resource.next
    return bytes


cdef uint64_t relieve(
    Core *core, uint64_t available, double stall, uint64_t target
) noexcept nogil:
    """Returns what pressure asks for, and then what is cached above the target."""
    cdef Limits *limits = &core.limits
    cdef Resource *for_pressure
    cdef Resource *for_target
    cdef uint64_t pressed, over
    core_stop(core)
    for_pressure = core_detach(
        core, limits_pressure(limits, available, stall, core.purgeable))
    pressed = total(for_pressure)
    limits.pressure_trims += pressed > 0
    limits.pressure_trimmed += pressed
    for_target = core_detach(core, limits.cache - target if limits.cache > target else 0)
    over = total(for_target)
    limits.trims += over > 0
    limits.trimmed += over
    core_resume(core, False)
    core_return(core, for_pressure)
    core_return(core, for_target)
    return pressed + over


cdef void pressure_step(Core *core) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef uint64_t available
    cdef double most_stall, stall
    cdef bint due, short, outdated
    if load_count(&core.pressure_due) == 0:
        return
    pthread_mutex_lock(&core.heaps.lock)
    due = core.pressure_due != 0    # else another thread was here first
    store_count(&core.pressure_due, 0)
    available = limits.available
    most_stall = limits.most_stall
    short = available < limits_least_available(limits)
    outdated = limits_is_outdated(limits)
    due = due and (short or most_stall != INFINITY)
    pthread_mutex_unlock(&core.heaps.lock)
    if outdated:
        controls_follow_sizes(core)
    if not due:
        return
    stall = read_stall(core, most_stall)
    if short or stall >= most_stall:
        relieve(core, available, stall, UINT64_MAX)


cdef uint64_t pressure_trim(Core *core, uint64_t target) noexcept nogil:
    cdef uint64_t decayed = decay_step(core, UINT64_MAX)
    cdef Limits limits
    cdef double stall
    controls_read_sizes(core)
    limits = controls_settings(core)
    stall = read_stall(core, limits.most_stall)
    if target == UINT64_MAX and stall < limits.most_stall and (
        limits.available >= limits_least_available(&limits)
    ):
        return decayed
    return decayed + relieve(core, limits.available, stall, target)


cdef Limits pressure_set(Core *core, uint64_t least_available, double most_stall) noexcept nogil:
    cdef Limits before
    pthread_mutex_lock(&core.heaps.lock)
    before = core.limits
    core.limits.least_available = least_available
    core.limits.available_follows = False
    core.limits.most_stall = most_stall
    pthread_mutex_unlock(&core.heaps.lock)
    return before
