from libc.string cimport memset

from memlimits._base.sync cimport (
    CLOCK_COARSE, pthread_mutex_lock, pthread_mutex_unlock, time_of,
)
from memlimits._engine.controls cimport controls_read_sizes
from memlimits._engine.core cimport (
    core_detach, core_detach_excess, core_longest, core_resume, core_return, core_settle, core_stop,
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
from memlimits._heap.heap cimport heap_self
from memlimits._heap.heaps cimport Totals, heaps_read_totals
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport (
    account_keeps, account_reservation_costs, account_set_reservation,
)
from memlimits._ledger.limits cimport (
    FORK, LENGTH, NOTHING, QUEUE, Limits, limits_drop_credit, limits_library_room,
    limits_note_library, limits_unreserved,
)
from memlimits._ledger.pool cimport pool_anyone_waits
from memlimits._ledger.queue cimport Waiter
from memlimits._ledger.share cimport share_draw, share_look, share_take
from memlimits._ledger.tickets cimport (
    Ticket, tickets_close, tickets_cost, tickets_held_by, tickets_open,
)

# Of a reservation the account and its length, or of a ticket that.
cdef struct Wish:
    Account *account
    uint64_t nbytes
    Ticket *ticket


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


cdef uint64_t costs(const Core *core, const Wish *wish) noexcept nogil:
    if wish.ticket != NULL:
        return tickets_cost(core.tickets, wish.ticket, &core.limits)
    return account_reservation_costs(wish.account, wish.nbytes)


cdef void fulfil(Core *core, const Wish *wish) noexcept nogil:
    if wish.ticket != NULL:
        tickets_open(&core.tickets, wish.ticket, &core.limits)
    else:
        account_set_reservation(wish.account, wish.nbytes, &core.limits)
    limits_drop_credit(&core.limits)        # it was given without regard to this


cdef bint set_within_room(
    Core *core, const Wish *wish, Waiter *waiter, Reading *reading, Resource **detached,
    Blocker *blocker
) noexcept nogil:
    """While stopped, with pauses. False: look again."""
    cdef Limits *limits = &core.limits
    cdef uint64_t n = costs(core, wish)
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
        fulfil(core, wish)
        detached[0] = core_detach(core, trim)
    return True


cdef Blocker keep(Core *core, const Wish *wish, WaitHooks *hooks) noexcept nogil:
    cdef Reading reading
    cdef Waiter waiter
    cdef Blocker blocker
    cdef Resource *detached = NULL
    cdef uint64_t waited
    pthread_mutex_lock(&core.heaps.lock)
    waiter_init(
        &waiter, wish.nbytes,
        account_keeps(wish.account) or tickets_held_by(core.tickets, heap_self()))
    pthread_mutex_unlock(&core.heaps.lock)
    members_step(core, wish.nbytes)
    while True:
        memset(&reading, 0, sizeof(reading))
        core_stop(core)
        while not set_within_room(core, wish, &waiter, &reading, &detached, &blocker):
            pass
        core_resume(core, False)
        core_return(core, detached)
        if blocker == NOTHING or not waiter_waits(core, &waiter, hooks, blocker):
            break
    waited = waiter_leave(core, &waiter)
    if blocker == NOTHING or hooks.gave_up:
        return blocker
    return refusals_add_waiter(core, wish.nbytes, blocker, &waiter, waited)


cdef Blocker reservations_set(
    Core *core, Account *account, uint64_t reservation, WaitHooks *hooks
) noexcept nogil:
    cdef Wish wish = Wish(account, reservation, NULL)
    return keep(core, &wish, hooks)


cdef void reservations_end(Core *core, Account *account) noexcept nogil:
    core_stop(core)
    account_set_reservation(account, 0, &core.limits)
    core_settle(core)
    core_resume(core, False)


# ---- tickets ----

cdef Blocker reservations_open(Core *core, Ticket *ticket, WaitHooks *hooks) noexcept nogil:
    cdef Wish wish = Wish(NULL, ticket.nbytes, ticket)
    ticket.taker = heap_self()
    return keep(core, &wish, hooks)


cdef void reservations_close(Core *core, Ticket *ticket) noexcept nogil:
    core_stop(core)
    tickets_close(&core.tickets, ticket, &core.limits)
    core_settle(core)
    core_resume(core, False)


cdef bint is_as_noted(
    const Limits *limits, uint64_t active, uint64_t cache, uint64_t peak
) noexcept nogil:
    return limits.library_active == active and limits.library_cache == cache and (
        limits.library_peak == peak)


cdef uint64_t reservations_note(
    Core *core, uint64_t active, uint64_t cache, uint64_t peak, bint *wanted
) noexcept nogil:
    cdef Limits *limits = &core.limits
    cdef Resource *detached
    cdef Totals totals
    cdef uint64_t room
    cdef bint noted
    pthread_mutex_lock(&core.heaps.lock)
    share_look(limits, &core.pool)
    heaps_read_totals(&core.heaps, &totals)
    room = limits_library_room(limits, totals.cached)
    wanted[0] = limits.waiting > 0 or core.pool.mine != NULL and pool_anyone_waits(
        &core.pool, time_of(CLOCK_COARSE))
    noted = is_as_noted(limits, active, cache, peak)
    pthread_mutex_unlock(&core.heaps.lock)
    if noted:
        return room
    members_step(core, active + cache)
    core_stop(core)
    limits_note_library(limits, active, cache, peak)
    core_settle(core)
    detached = core_detach_excess(core)
    core_resume(core, False)
    core_return(core, detached)
    return room
