from libc.string cimport memset

from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._engine.controls cimport controls_read_sizes
from memlimits._engine.core cimport (
    core_detach, core_longest, core_resume, core_return, core_settle, core_stop,
)
from memlimits._engine.growth cimport growth_could_hit
from memlimits._engine.members cimport members_step
from memlimits._engine.parts cimport parts_make_room
from memlimits._engine.refusals cimport refusals_add_waiter
from memlimits._engine.system_room cimport (
    Reading, room_ends_at, room_look, room_retry,
)
from memlimits._engine.waiting cimport (
    waiter_init, waiter_is_blocked, waiter_leave, waiter_may_go, waiter_waits,
)
from memlimits._heap.cache cimport cache_coarse, cache_least_growth
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport (
    account_keeps, account_reservation_costs, account_set_reservation,
)
from memlimits._ledger.limits cimport (
    FORK, LENGTH, NOTHING, QUEUE, Limits, limits_drop_credit, limits_unreserved,
)
from memlimits._ledger.queue cimport Waiter
from memlimits._ledger.share cimport share_draw, share_take


cdef Blocker reservations_would_fit(
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
        controls_read_sizes(core)
    if growth > core_longest(core):
        return LENGTH
    n = cache_coarse(n)
    members_step(core, growth)
    memset(&reading, 0, sizeof(reading))
    core_stop(core)
    waiter_init(&waiter, growth, account_keeps(account))
    waiter.own = own
    while True:
        blocker = NOTHING
        share_draw(&core.limits, &core.pool, growth, own, False)
        parts_make_room(core, growth, own)
        if growth_could_hit(core, n, account != NULL) or (
            room_look(core, growth, own, &reading, &_trim, &blocker)
        ):
            break
    if blocker == NOTHING and not waiter_may_go(core, &waiter):
        blocker = QUEUE
    core_resume(core, False)
    return blocker


cdef bint set_within_room(
    Core *core, Account *account, uint64_t reservation, Waiter *waiter, Reading *reading,
    Resource **detached, Blocker *blocker
) noexcept nogil:
    """While stopped, with pauses. False: look again."""
    cdef Limits *limits = &core.limits
    cdef uint64_t n = account_reservation_costs(account, reservation)
    cdef uint64_t trim
    share_draw(&core.limits, &core.pool, n, 0, False)
    parts_make_room(core, n, 0)
    if not room_look(core, n, 0, reading, &trim, blocker):
        return False
    if blocker[0] == NOTHING and limits.footprint - min(trim, limits.cache) + n > (
        limits_unreserved(limits, n, 0)
    ):
        # A guideline lets others pass; but what is not within the limit cannot be kept for anyone.
        blocker[0] = room_ends_at(limits, n)
    if not waiter_is_blocked(core, waiter, n, blocker):
        if not share_take(&core.limits, &core.pool, n, trim, 0):
            room_retry(core, reading, blocker)
            return waiter_is_blocked(core, waiter, n, blocker)
        account_set_reservation(account, reservation, limits)
        limits_drop_credit(limits)      # it was given without regard to this
        detached[0] = core_detach(core, trim)
    return True


cdef Blocker reservations_set(
    Core *core, Account *account, uint64_t reservation, WaitHooks *hooks
) noexcept nogil:
    cdef Reading reading
    cdef Waiter waiter
    cdef Blocker blocker
    cdef Resource *detached = NULL
    cdef uint64_t waited
    pthread_mutex_lock(&core.heaps.lock)
    waiter_init(&waiter, reservation, account_keeps(account))
    pthread_mutex_unlock(&core.heaps.lock)
    members_step(core, reservation)
    while True:
        memset(&reading, 0, sizeof(reading))
        core_stop(core)
        while not set_within_room(
            core, account, reservation, &waiter, &reading, &detached, &blocker
        ):
            pass
        core_resume(core, False)
        core_return(core, detached)
        if blocker == NOTHING or not waiter_waits(core, &waiter, hooks, blocker):
            break
    waited = waiter_leave(core, &waiter)
    if blocker == NOTHING or hooks.gave_up:
        return blocker
    return refusals_add_waiter(core, reservation, blocker, &waiter, waited)


cdef void reservations_end(Core *core, Account *account) noexcept nogil:
    core_stop(core)
    account_set_reservation(account, 0, &core.limits)
    core_settle(core)
    core_resume(core, False)
