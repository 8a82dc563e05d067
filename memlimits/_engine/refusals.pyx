from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset, strcpy

from memlimits._base.frames cimport code_mark, python_place
from memlimits._base.own cimport own_begin, own_end
from memlimits._base.python cimport attached_thread
from memlimits._base.sync cimport (
    CLOCK_COARSE, add_word, pthread_mutex_lock, pthread_mutex_unlock, time_of,
)
from memlimits._engine.core cimport core_resume, core_stop
from memlimits._engine.picture cimport picture_note_refusal
from memlimits._engine.record cimport record_refusal
from memlimits._engine.samples cimport samples_look
from memlimits._engine.sentence cimport sentence_say
from memlimits._ledger.accounts cimport account_blocks
from memlimits._ledger.limits cimport BUDGET
from memlimits._ledger.pool cimport pool_note_refused, pool_units
from memlimits._ledger.queue cimport ANYONE, C_CODE, MALLOC, refusal_describe
from memlimits._ledger.traces cimport Clue, Place, traces_add, traces_claim, traces_tell

cdef extern from *:
    """
    /* A Refusal, as bytes: Cython cannot declare a thread's own variable. */
    static _Thread_local char this_threads_refusal[512];
    """
    char this_threads_refusal[512]

cdef enum:
    RECENT = 60     # seconds, in which a library's own threads tell of an error


cdef char *mine() noexcept nogil:
    """To be called without a lock first: a thread's variables are made when it first uses one."""
    cdef char *place
    own_begin()
    place = this_threads_refusal
    own_end()
    return place


cdef void remember(Core *core, uint64_t n, Refusal *refusal) noexcept nogil:
    """While stopped: counts it, too."""
    cdef Place place
    place.lasti = 0
    place.code = python_place(&place.lasti)
    place.mark = code_mark(place.code)
    refusal.requested = n
    refusal.number = refusals_last().number + 1
    refusal.asker = ANYONE
    samples_look(core)
    memcpy(refusal.holders, core.holders, sizeof(core.holders))
    refusal.serial = traces_add(&core.traces, refusal, place, time_of(CLOCK_COARSE))
    core.limits.refusals[<int> refusal.blocked_by] += 1
    core.limits.kept_back = 0
    if core.pool.mine != NULL:
        pool_note_refused(&core.pool, pool_units(&core.pool, n))
        add_word(&core.pool.mine.refusals, 1)
        add_word(&core.pool.header.refusals, 1)
    core.latest = refusal[0]
    memcpy(mine(), refusal, sizeof(Refusal))
    picture_note_refusal(core, refusal.serial)
    record_refusal(core, refusal)


cdef Blocker refusals_add(Core *core, uint64_t n, Blocker blocker) noexcept nogil:
    cdef Refusal refusal
    memset(&refusal, 0, sizeof(Refusal))
    mine()
    core_stop(core)
    refusal_describe(&refusal, &core.limits, n, blocker)
    remember(core, n, &refusal)
    core_resume(core, False)
    return blocker


cdef Blocker refusals_add_waiter(
    Core *core, uint64_t n, Blocker blocker, Waiter *waiter, uint64_t waited
) noexcept nogil:
    if waiter.blocked.blocked_by != blocker:
        return refusals_add(core, n, blocker)
    waiter.blocked.waited = waited
    mine()
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
    mine()
    core_stop(core)
    budget = account_blocks(account, charge)
    if budget != NULL:
        refusal_describe(&refusal, &core.limits, n, BUDGET)
        refusal.budget_limit = budget.limit
        refusal.budget_active = budget.active
        strcpy(refusal.budget, budget.name)
        remember(core, n, &refusal)
    core_resume(core, False)
    return budget != NULL


cdef Refusal refusals_last() noexcept nogil:
    cdef Refusal refusal
    memcpy(&refusal, mine(), sizeof(Refusal))
    return refusal


cdef void refusals_restore(Core *core, Refusal *refusal) noexcept nogil:
    cdef uint64_t number = refusals_last().number
    if refusal.number == number:
        return
    refusal.number = number
    memcpy(mine(), refusal, sizeof(Refusal))
    pthread_mutex_lock(&core.heaps.lock)
    core.latest = refusal[0]
    pthread_mutex_unlock(&core.heaps.lock)


cdef void refusals_tell(Core *core, Asker asker) noexcept nogil:
    cdef Refusal refusal = refusals_last()
    cdef bint is_new = refusal.asker == ANYONE
    # Nothing was refused this time where the last refusal was told of before.
    if not is_new and refusal.asker != C_CODE:
        return
    refusal.asker = asker
    memcpy(mine(), &refusal, sizeof(Refusal))
    pthread_mutex_lock(&core.heaps.lock)
    if core.latest.serial == refusal.serial:
        core.latest.asker = asker
    traces_tell(&core.traces, refusal.serial, asker)
    pthread_mutex_unlock(&core.heaps.lock)
    # C code that runs with the GIL has an exception of Python's to raise.
    if is_new and (asker == MALLOC or asker == C_CODE and attached_thread() == NULL):
        sentence_say(&refusal, &core.calls)


cdef bint refusals_claim(
    Core *core, const Clue *clue, bint recent, Refusal *refusal
) noexcept nogil:
    cdef uint64_t since = UINT64_MAX
    cdef uint64_t now = time_of(CLOCK_COARSE)
    cdef bint claimed
    if recent:
        since = now - min(now, RECENT * <uint64_t> 1000000000)
    pthread_mutex_lock(&core.heaps.lock)
    claimed = traces_claim(&core.traces, clue, since, refusal)
    pthread_mutex_unlock(&core.heaps.lock)
    return claimed
