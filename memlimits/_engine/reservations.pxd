"""Room for what is not asked for yet: whether there is any, and keeping it for an account."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.waiting cimport Caller
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport Blocker

# Whether n bytes could be had now, `own` of them reserved, and the block to come back the slow way;
# or what stands in the way.
cdef extern Blocker core_would_fit(
    Core *core, uint64_t n, uint64_t own, const Account *account) noexcept nogil
# Reserves what a floor of so many bytes costs. Calls the device, and waits. A refusal is counted
# and remembered.
cdef extern Blocker core_set_floor(
    Core *core, Account *account, uint64_t floor, Caller *caller) noexcept nogil
# Nothing is kept back from others any more.
cdef extern void core_end_floor(Core *core, Account *account) noexcept nogil
