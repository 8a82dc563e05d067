from libc.string cimport memset

from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._engine.controls cimport core_read_sizes
from memlimits._engine.core cimport (
    core_detach, core_longest, core_resume, core_return, core_stop, core_wake,
)
from memlimits._engine.growth cimport core_could_hit
from memlimits._engine.refusals cimport core_refuse_waiter
from memlimits._engine.system_room cimport Reading, room_ends_at, room_look
from memlimits._engine.waiting cimport (
    Waiter, waiter_init, waiter_is_blocked, waiter_leave, waiter_may_go, waiter_waits,
)
from memlimits._heap.cache cimport cache_least_growth
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport account_floor_costs, account_keeps, account_set_floor
from memlimits._ledger.limits cimport FORK, LENGTH, NOTHING, QUEUE, Limits, limits_unreserved


cdef Blocker core_would_fit(
    Core *core, uint64_t n, uint64_t own, const Account *account
) noexcept nogil:
    cdef uint64_t growth = cache_least_growth(core.page_size, n)
    cdef Reading reading
    cdef Waiter waiter
    cdef Blocker blocker
    cdef uint64_t _trim
    if core.heaps.lost:
        return FORK
    if growth > core_longest(core):
        core_read_sizes(core)
    if growth > core_longest(core):
        return LENGTH
    memset(&reading, 0, sizeof(reading))
    core_stop(core)
    waiter_init(&waiter, growth, account_keeps(account))
    waiter.own = own
    while True:
        blocker = NOTHING
        if core_could_hit(core, n, account != NULL) or (
            room_look(core, growth, own, &reading, &_trim, &blocker)
        ):
            break
    if blocker == NOTHING and not waiter_may_go(core, &waiter):
        blocker = QUEUE
    core_resume(core, False)
    return blocker


cdef bint reserve_floor(
    Core *core, Account *account, uint64_t floor, Waiter *waiter, Reading *reading,
    Resource **detached, Blocker *blocker
) noexcept nogil:
    """While stopped, with pauses. False: look again."""
    cdef Limits *limits = &core.limits
    cdef uint64_t n = account_floor_costs(account, floor)
    cdef uint64_t trim
    if not room_look(core, n, 0, reading, &trim, blocker):
        return False
    if blocker[0] == NOTHING and limits.footprint - min(trim, limits.cache) + n > (
        limits_unreserved(limits, 0)
    ):
        # A guideline lets others pass; but what is not within the limit cannot be kept for anyone.
        blocker[0] = room_ends_at(limits, n)
    if not waiter_is_blocked(core, waiter, blocker):
        account_set_floor(account, floor, limits)
        limits.credit = 0       # it was given without regard to this
        detached[0] = core_detach(core, trim)
    return True


cdef Blocker core_set_floor(
    Core *core, Account *account, uint64_t floor, Caller *caller
) noexcept nogil:
    cdef Reading reading
    cdef Waiter waiter
    cdef Blocker blocker
    cdef Resource *detached = NULL
    cdef uint64_t waited
    pthread_mutex_lock(&core.heaps.lock)
    waiter_init(&waiter, floor, account_keeps(account))
    pthread_mutex_unlock(&core.heaps.lock)
    while True:
        memset(&reading, 0, sizeof(reading))
        core_stop(core)
        while not reserve_floor(core, account, floor, &waiter, &reading, &detached, &blocker):
            pass
        core_resume(core, False)
        core_return(core, detached)
        if blocker == NOTHING or not waiter_waits(core, &waiter, caller, blocker):
            break
    waited = waiter_leave(core, &waiter)
    if blocker == NOTHING or caller.gave_up:
        return blocker
    return core_refuse_waiter(core, floor, blocker, &waiter, waited)


cdef void core_end_floor(Core *core, Account *account) noexcept nogil:
    core_stop(core)
    account_set_floor(account, 0, &core.limits)
    core_wake(core)
    core_resume(core, False)
