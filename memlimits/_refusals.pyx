from libc.string cimport memcpy, strcpy

from memlimits._core cimport core_resume, core_stop
from memlimits._limits cimport BUDGET, Limits, limits_slack

cdef extern from *:
    """
    /* A Refusal, as bytes: Cython cannot declare a thread's own variable. */
    static _Thread_local char this_threads_refusal[256];
    """
    char this_threads_refusal[256]


cdef Blocker note_refusal(
    Core *core, uint64_t n, Blocker blocker, uint64_t waited, const Account *budget
) noexcept nogil:
    """Counts and remembers a refusal."""
    cdef Limits *limits = &core.limits
    core_stop(core)
    limits.refusals[<int> blocker] += 1
    core.latest.requested = n
    core.latest.limit = limits.memory_limit
    core.latest.footprint = limits.footprint
    core.latest.active = limits.active
    core.latest.cache = limits.cache
    core.latest.slack = limits_slack(limits)
    core.latest.number = last_refusal().number + 1
    core.latest.waited = waited
    core.latest.blocked_by = blocker
    core.latest.budget_limit = 0
    core.latest.budget_active = 0
    core.latest.budget[0] = 0
    if budget != NULL:
        core.latest.budget_limit = budget.limit
        core.latest.budget_active = budget.active
        strcpy(core.latest.budget, budget.name)
    memcpy(this_threads_refusal, &core.latest, sizeof(Refusal))
    core_resume(core, False)
    return blocker


cdef Blocker core_refuse(Core *core, uint64_t n, Blocker blocker, uint64_t waited) noexcept nogil:
    return note_refusal(core, n, blocker, waited, NULL)


cdef Blocker core_refuse_by(Core *core, uint64_t n, const Account *budget) noexcept nogil:
    return note_refusal(core, n, BUDGET, 0, budget)


cdef Refusal last_refusal() noexcept nogil:
    cdef Refusal refusal
    memcpy(&refusal, this_threads_refusal, sizeof(Refusal))
    return refusal
