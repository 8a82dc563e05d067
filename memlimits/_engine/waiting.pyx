from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC

from memlimits._base.sync cimport (
    pthread_cond_destroy, pthread_mutex_lock, pthread_mutex_unlock, steady_cond_init,
    steady_cond_wait, time_of,
)
from memlimits._engine.core cimport (
    core_count_wait, core_count_waited, core_resume, core_stop, core_wake,
)
from memlimits._engine.members cimport members_found, members_seek
from memlimits._heap.heap cimport Heap, heap_of, heap_self, heap_swap_mine
from memlimits._heap.resource cimport RESIZING, Resource, is_taken, resource_given
from memlimits._ledger.accounts cimport account_took
from memlimits._ledger.limits cimport (
    LIMIT, NOTHING, POLICY_WAIT, POOL, QUEUE, RESERVATION, SYSTEM,
)
from memlimits._ledger.queue cimport queue_is_stuck, queue_join, queue_leave, refusal_describe

cdef enum:
    # ns between two looks at signals, and at what the system has: nobody tells of either.
    LOOK_EVERY = 20000000

cdef enum Stage:
    ARRIVED
    READY       # the caller has done what it does before it waits
    LAST        # one attempt more, and what comes of it holds


cdef void waiter_init(Waiter *waiter, uint64_t least, bint holds) noexcept nogil:
    memset(waiter, 0, sizeof(Waiter))
    waiter.least = waiter.grows = least
    waiter.holds = holds


cdef uint64_t held_by(const Core *core, const Heap *heap) noexcept nogil:
    """Under the lock: bytes of the blocks that this heap's thread took and callers hold."""
    cdef const Resource *resource = core.resources
    cdef uint64_t held = 0
    while resource != NULL:
        if resource.block_size:
            if heap_of(resource) == heap:
                held += <uint64_t> resource.live * resource.block_size
            elif account_took(resource, heap):
                held += resource.block_size     # or more
        elif heap in (resource.home, resource.taker) and (
            is_taken(resource) or resource.use == RESIZING
        ):
            held += resource_given(resource)
        resource = resource.below
    return held


cdef void look_at_thread(const Core *core, Waiter *waiter) noexcept nogil:
    """While stopped, once: what it holds does not change while it waits."""
    if not waiter.looked:
        waiter.held = held_by(core, core.stopper if waiter.heap == NULL else waiter.heap)
        waiter.holds = waiter.holds or waiter.held > 0
        waiter.looked = True


cdef bint waiter_may_go(Core *core, Waiter *waiter) noexcept nogil:
    if core.queue == NULL or core.queue == waiter or core.limits.policy != POLICY_WAIT:
        return True
    if waiter.passes or waiter.own >= waiter.least:
        return True     # what is reserved for it is nothing that others wait for
    look_at_thread(core, waiter)
    # What a thread asks for while it waits, in a signal's handler, is not to wait for itself.
    return core.queue.self == heap_self() or (
        not waiter.queued and waiter.holds and (
            not core.queue.holds
            or queue_is_stuck(core.queue, waiter, &core.limits)))


cdef bint waiter_is_blocked(
    Core *core, Waiter *waiter, uint64_t n, Blocker *blocker
) noexcept nogil:
    if blocker[0] == NOTHING and not waiter_may_go(core, waiter):
        blocker[0] = QUEUE
    if blocker[0] == NOTHING:
        return False
    refusal_describe(&waiter.blocked, &core.limits, n, blocker[0])
    return True


cdef void join(Core *core, Waiter *waiter) noexcept nogil:
    core_stop(core)
    look_at_thread(core, waiter)
    queue_join(&core.queue, waiter, &core.limits)
    if core.queue != waiter:
        core_wake(core)     # it may be another one's turn now
    waiter.queued = True
    waiter.self = heap_self()
    waiter.seen = core.wakes
    core.limits.waiting += 1
    core_count_wait(core)
    core_resume(core, False)


cdef uint64_t waiter_leave(Core *core, Waiter *waiter) noexcept nogil:
    cdef uint64_t waited = 0
    members_found(waiter)
    if waiter.stage == ARRIVED:
        return 0
    if waiter.queued:
        waited = time_of(CLOCK_MONOTONIC) - waiter.since
        core_stop(core)
        queue_leave(&core.queue, waiter)
        core.limits.waiting -= 1
        core_count_waited(core, waited)
        core_wake(core)
        core_resume(core, False)
    pthread_cond_destroy(&waiter.turn)
    return waited


cdef bint wait_a_while(Core *core, Waiter *waiter, uint64_t ns) noexcept nogil:
    """Until something changed, or for so long. Whether another attempt is worth it."""
    cdef bint worth
    pthread_mutex_lock(&core.heaps.lock)
    if core.queue != waiter or core.wakes == waiter.seen:
        steady_cond_wait(&waiter.turn, &core.heaps.lock, ns)
    waiter.seen = core.wakes
    worth = core.queue == waiter
    pthread_mutex_unlock(&core.heaps.lock)
    return worth


cdef uint64_t timeout_now(Core *core, const Waiter *waiter) noexcept nogil:
    """In ns; 0 where the policy is not to wait, or where no wait can help."""
    cdef uint64_t timeout = 0
    pthread_mutex_lock(&core.heaps.lock)
    if core.limits.policy == POLICY_WAIT and (
        waiter.least <= min(core.limits.memory_limit, core.limits.pool_limit)
    ):
        timeout = core.limits.wait_timeout
    pthread_mutex_unlock(&core.heaps.lock)
    return timeout


# What the hooks run is to find the thread's own heap.

cdef void leave_detour(Core *core, WaitHooks *hooks) noexcept nogil:
    if hooks.heap != NULL:
        heap_swap_mine(&core.heaps, hooks.heap)


cdef void return_to_detour(Core *core, WaitHooks *hooks) noexcept nogil:
    if hooks.heap != NULL:
        hooks.heap = heap_swap_mine(&core.heaps, &core.heaps.shared)


cdef bint begin(Core *core, Waiter *waiter, WaitHooks *hooks) noexcept nogil:
    cdef uint64_t timeout = 0 if hooks.never_waits else timeout_now(core, waiter)
    if timeout and hooks.timed:
        timeout = hooks.timeout
    if timeout == 0:
        return False
    waiter.stage = READY
    waiter.since = time_of(CLOCK_MONOTONIC)
    waiter.deadline = waiter.since + timeout
    steady_cond_init(&waiter.turn)
    if hooks.begins != NULL:
        leave_detour(core, hooks)
        hooks.begins(hooks)
        return_to_detour(core, hooks)
    return not hooks.gave_up


cdef bint gives_up(Core *core, WaitHooks *hooks) noexcept nogil:
    cdef bint does
    if hooks.gives_up == NULL:
        return False
    leave_detour(core, hooks)
    does = hooks.gives_up(hooks)
    return_to_detour(core, hooks)
    return does


cdef bint waiter_waits(
    Core *core, Waiter *waiter, WaitHooks *hooks, Blocker blocker
) noexcept nogil:
    cdef uint64_t now
    if blocker not in (LIMIT, SYSTEM, RESERVATION, QUEUE, POOL) or waiter.stage == LAST:
        return False
    if blocker == POOL and members_seek(waiter, hooks.never_waits):
        return True
    if waiter.stage == ARRIVED:
        return begin(core, waiter, hooks)
    if not waiter.queued:
        join(core, waiter)
        return True
    while True:
        if gives_up(core, hooks):
            return False
        now = time_of(CLOCK_MONOTONIC)
        if now >= waiter.deadline or timeout_now(core, waiter) == 0:
            waiter.stage = LAST
            return True
        if wait_a_while(core, waiter, min(waiter.deadline - now, <uint64_t> LOOK_EVERY)):
            return True
