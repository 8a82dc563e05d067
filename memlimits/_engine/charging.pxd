"""Blocks that are noted until they are freed: charged to an account, or for who holds them."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.resource cimport Block
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport Blocker

# n bytes, at least 1, whatever it takes: a hit or a miss. `account` is the caller's, or NULL;
# `sampled`: it is noted who holds them.
cdef extern Blocker charging_alloc(
    Core *core, Account *account, uint64_t n, bint sampled, WaitHooks *hooks, Block *block
) noexcept nogil
# Whether n bytes could be had on the account, which may be NULL; or what stands in the way.
cdef extern Blocker charging_would_fit(Core *core, Account *account, uint64_t n) noexcept nogil
# Gives up a reference to it.
cdef extern void charging_release(Core *core, Account *account) noexcept nogil
# That of a context that it is open in.
cdef extern void charging_close(Core *core, Account *account) noexcept nogil
