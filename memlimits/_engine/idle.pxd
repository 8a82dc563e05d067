"""What is idle in any heap, this thread's or another's."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._heap.resource cimport Block, Resource

# While stopped: serves n bytes from whatever any heap has; where `longest` is not 0, from what is
# up to so many bytes long. The other: whether it would find anything, `apart` as in heap_find.
cdef extern bint idle_hit(Core *core, uint64_t n, uint64_t longest, Block *block) noexcept nogil
cdef extern bint idle_serves(Core *core, uint64_t n, bint apart) noexcept nogil
# The same from one heap after another, where none has to stop for it.
cdef extern bint idle_steal(Core *core, uint64_t n, uint64_t longest, Block *block) noexcept nogil
# While stopped: a purgeable resource for n bytes. The device is to be asked for it back.
cdef extern Resource *idle_find_purgeable(Core *core, uint64_t n) noexcept nogil
