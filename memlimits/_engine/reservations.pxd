"""Room for what is not asked for yet: whether there is any, and keeping it for an account.

Or for a library that has its memory from elsewhere, which holds tickets for it.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.waiting cimport WaitHooks
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport Blocker
from memlimits._ledger.tickets cimport Ticket

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

# Opens a ticket, as an account gets a reservation. Its holder closes it before it is gone.
cdef extern Blocker reservations_open(Core *core, Ticket *ticket, WaitHooks *hooks) noexcept nogil
cdef extern void reservations_close(Core *core, Ticket *ticket) noexcept nogil
# What the library says of itself. It cannot be refused: what is idle here goes for it. How many
# bytes it may count in all, and whether anyone waits for memory, here or in the pool.
cdef extern uint64_t reservations_note(
    Core *core, uint64_t active, uint64_t cache, uint64_t peak, bint *wanted) noexcept nogil
