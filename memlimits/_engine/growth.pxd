"""Growing the footprint: reserve under the lock, make outside it, confirm or undo."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.system_room cimport Reading
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.resource cimport Block
from memlimits._ledger.limits cimport Blocker

# While stopped: whether any heap has what serves n bytes; `apart` as in heap_find.
cdef extern bint growth_could_hit(Core *core, uint64_t n, bint apart) noexcept nogil

# Serves n bytes where core_hit found none. Calls the device, and waits where the policy says so. A
# refusal is counted and remembered.
cdef extern Blocker growth_miss(
    Core *core, uint64_t n, WaitHooks *hooks, Block *block) noexcept nogil
# The same with `own` bytes reserved for it; 0 afterwards, if they are not reserved any more.
cdef extern Blocker growth_miss_with(
    Core *core, uint64_t n, uint64_t *own, WaitHooks *hooks, Block *block) noexcept nogil

# Reserves growth of what a caller holds, or says what stands in the way: `growth` where that is far
# from every limit, else `least`. Calls the device, and waits. A refusal, of n bytes, is counted and
# remembered. `reading` is for room_end, once the growth is mapped.
cdef extern Blocker growth_reserve(
    Core *core, uint64_t n, uint64_t least, WaitHooks *hooks, uint64_t *growth,
    bint *overrun, Reading *reading) noexcept nogil
