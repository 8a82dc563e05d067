"""Growing the footprint: reserve under the lock, make outside it, confirm or undo."""

from libc.stdint cimport uint64_t

from memlimits._core cimport Core, Refusal
from memlimits._limits cimport Blocker
from memlimits._resource cimport Block

# Serves n bytes where core_hit found none. Calls the device. A refusal is counted and remembered.
cdef Blocker core_miss(Core *core, uint64_t n, Block *block) noexcept nogil

# This thread's last refusal.
cdef Refusal last_refusal() noexcept nogil
