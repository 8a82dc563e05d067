"""Room for what is not asked for yet: whether there is any, and keeping it for an account."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.waiting cimport WaitHooks
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport Blocker

# Whether n bytes could be had now, `own` of them reserved, and the block to come back the slow way;
# or what stands in the way.
cdef extern Blocker reservations_would_fit(
    Core *core, uint64_t n, uint64_t own, const Account *account) noexcept nogil
# Keeps so many bytes for the account, at least. Calls the device, and waits. A refusal is counted
# and remembered.
cdef extern Blocker reservations_set(
    Core *core, Account *account, uint64_t reservation, WaitHooks *hooks) noexcept nogil
# Nothing is kept back from others any more.
cdef extern void reservations_end(Core *core, Account *account) noexcept nogil
