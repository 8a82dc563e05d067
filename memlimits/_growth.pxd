"""Growing the footprint: reserve under the lock, make outside it, confirm or undo."""

from libc.stdint cimport uint64_t

from memlimits._accounts cimport Account
from memlimits._core cimport Core, Refusal
from memlimits._limits cimport Blocker
from memlimits._resource cimport Block
from memlimits._waiting cimport Caller

# Serves n bytes where core_hit found none. Calls the device, and waits where the policy says so. A
# refusal is counted and remembered.
cdef Blocker core_miss(Core *core, uint64_t n, Caller *caller, Block *block) noexcept nogil

# Reserves growth of what a caller holds, or says what stands in the way: `growth` where that is far
# from every limit, else `least`. Calls the device, and waits. A refusal, of n bytes, is counted and
# remembered.
cdef Blocker core_reserve(
    Core *core, uint64_t n, uint64_t least, Caller *caller, uint64_t *growth,
    bint *overrun) noexcept nogil

# core_miss with `own` bytes reserved for it; 0 afterwards, if they are not reserved any more.
cdef Blocker core_miss_with(
    Core *core, uint64_t n, uint64_t *own, Caller *caller, Block *block) noexcept nogil
# Counts and remembers a refusal by a budget.
cdef Blocker core_refuse_by(Core *core, uint64_t n, const Account *budget) noexcept nogil
# Whether n bytes could be had now, `own` of them reserved; or what stands in the way.
cdef Blocker core_would_fit(Core *core, uint64_t n, uint64_t own) noexcept nogil
# Reserves what a floor of so many bytes costs. Calls the device, and waits. A refusal is counted
# and remembered.
cdef Blocker core_set_floor(
    Core *core, Account *account, uint64_t floor, Caller *caller) noexcept nogil

# This thread's last refusal.
cdef Refusal last_refusal() noexcept nogil
