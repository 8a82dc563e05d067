"""What there is at one instant: every resource, who holds it, and the counters."""

from libc.stdint cimport uint32_t, uint64_t

from memlimits._engine.controls cimport Snapshot
from memlimits._engine.core cimport Core
from memlimits._ledger.queue cimport Holder

cdef enum Kind:
    NOBODYS         # idle
    WHOLE           # one block
    PIECES          # a slab

# A resource. Nothing of it is touched, so it may be gone by the time that this is read.
cdef struct Extent:
    const char *base
    uint64_t bytes
    uint64_t used           # of them in callers' hands
    uint32_t call           # NO_CALL: nobody knows
    Kind kind

cdef struct Picture:
    Snapshot snapshot
    uint64_t at             # ns since 1970
    uint64_t serial         # of the refusal that it is of
    Extent *extents         # owned
    uint64_t extents_count
    Holder *holders         # owned: by call, in no order
    uint64_t holders_count

# While stopped. False without memory: it is empty then. To be freed in any case.
cdef extern bint picture_take(Core *core, Picture *picture) noexcept nogil
cdef extern void picture_free(Picture *picture) noexcept nogil

# Whether one is kept of each refusal; returns whether it was. The one before is forgotten then.
cdef extern bint picture_keep(Core *core, bint keep) noexcept nogil
# While stopped: of that refusal, unless the last was taken a moment ago.
cdef extern void picture_note_refusal(Core *core, uint64_t serial) noexcept nogil
# A copy of the one that is kept. False: there is none, or no memory for it.
cdef extern bint picture_kept(Core *core, Picture *picture) noexcept nogil
