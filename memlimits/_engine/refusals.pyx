from libc.string cimport memcpy, memset, strcpy

from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._engine.core cimport core_resume, core_stop
from memlimits._ledger.accounts cimport account_blocks
from memlimits._ledger.limits cimport BUDGET
from memlimits._ledger.queue cimport refusal_describe

cdef extern from *:
    """
    /* A Refusal, as bytes: Cython cannot declare a thread's own variable. */
    static _Thread_local char this_threads_refusal[256];
    """
    char this_threads_refusal[256]


cdef void remember(Core *core, uint64_t n, Refusal *refusal) noexcept nogil:
    """While stopped: counts it, too."""
    refusal.requested = n
    refusal.number = refusals_last().number + 1
    core.limits.refusals[<int> refusal.blocked_by] += 1
    core.latest = refusal[0]
    memcpy(this_threads_refusal, refusal, sizeof(Refusal))


cdef Blocker refusals_add(Core *core, uint64_t n, Blocker blocker) noexcept nogil:
    cdef Refusal refusal
    memset(&refusal, 0, sizeof(Refusal))
    refusal.blocked_by = blocker
    core_stop(core)
    refusal_describe(&refusal, &core.limits)
    remember(core, n, &refusal)
    core_resume(core, False)
    return blocker


cdef Blocker refusals_add_waiter(
    Core *core, uint64_t n, Blocker blocker, Waiter *waiter, uint64_t waited
) noexcept nogil:
    if waiter.blocked.blocked_by != blocker:
        return refusals_add(core, n, blocker)
    waiter.blocked.waited = waited
    core_stop(core)
    remember(core, n, &waiter.blocked)
    core_resume(core, False)
    return blocker


cdef bint refusals_add_by_budget(
    Core *core, uint64_t n, Account *account, uint64_t charge
) noexcept nogil:
    cdef Refusal refusal
    cdef const Account *budget
    memset(&refusal, 0, sizeof(Refusal))
    refusal.blocked_by = BUDGET
    core_stop(core)
    budget = account_blocks(account, charge)
    if budget != NULL:
        refusal_describe(&refusal, &core.limits)
        refusal.budget_limit = budget.limit
        refusal.budget_active = budget.active
        strcpy(refusal.budget, budget.name)
        remember(core, n, &refusal)
    core_resume(core, False)
    return budget != NULL


cdef Refusal refusals_last() noexcept nogil:
    cdef Refusal refusal
    memcpy(&refusal, this_threads_refusal, sizeof(Refusal))
    return refusal


cdef void refusals_restore(Core *core, Refusal *refusal) noexcept nogil:
    cdef uint64_t number = refusals_last().number
    if refusal.number == number:
        return
    refusal.number = number
    memcpy(this_threads_refusal, refusal, sizeof(Refusal))
    pthread_mutex_lock(&core.heaps.lock)
    core.latest = refusal[0]
    pthread_mutex_unlock(&core.heaps.lock)
