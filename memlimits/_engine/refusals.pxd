"""Refusals, counted and remembered, with where Python's code stood for the exceptions to come."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._heap.resource cimport unlikely
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport Blocker
from memlimits._ledger.queue cimport Asker, Refusal, Waiter
from memlimits._ledger.traces cimport Clue

# Of n bytes, with the counters of now; returns what blocked.
cdef extern Blocker refusals_add(Core *core, uint64_t n, Blocker blocker) noexcept nogil
# Of a request that could have waited, or did so for `waited` ns: with the counters of its last
# attempt, if that is what blocked it.
cdef extern Blocker refusals_add_waiter(
    Core *core, uint64_t n, Blocker blocker, Waiter *waiter, uint64_t waited) noexcept nogil
# By a budget that does not allow `charge` bytes more, of the account's or those above. False: none
# does not.
cdef extern bint refusals_add_by_budget(
    Core *core, uint64_t n, Account *account, uint64_t charge) noexcept nogil
# This thread's last refusal.
cdef extern Refusal refusals_last() noexcept nogil
# Makes it this thread's last again, and the allocator's, if another was refused here since.
cdef extern void refusals_restore(Core *core, Refusal *refusal) noexcept nogil

# Whose request this thread's last refusal was of: by who gives NULL to that one. Code that knows
# nothing of us may not look at it: so that is said at once, where that is on (sentence_say).
cdef extern void refusals_tell(Core *core, Asker asker) noexcept nogil
# What one is given; of NULL it is told.
cdef inline void *refusals_told(Core *core, void *start, Asker asker) noexcept nogil:
    if unlikely(start == NULL):
        refusals_tell(core, asker)
    return start
# As traces_claim; `recent`: or a recent one that came from elsewhere.
cdef extern bint refusals_claim(
    Core *core, const Clue *clue, bint recent, Refusal *refusal) noexcept nogil
