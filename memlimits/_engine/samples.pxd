"""Who holds blocks: Python's stack where they were allocated, noted for some of them.

Blocks of `Core.sample_every` bytes and more are always noted, and of shorter ones as many as tell
how much all of them are: the bytes from one that is noted to the next are drawn anew each time. So
a block of n bytes is noted with the probability 1 - exp(-n / sample_every), and stands for as many
as its inverse says. Nobody waits for anybody meanwhile. A whole resource has its note itself, which
goes when it comes back; a slab's block is on its slab's list.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from memlimits._base.sync cimport load_count
from memlimits._engine.core cimport Core, Held
from memlimits._heap.heap cimport heap_draws
from memlimits._heap.resource cimport Resource, likely, unlikely
from memlimits._ledger.queue cimport Holder

# From now on one is noted in so many bytes, a power of two; 0: none. What is noted stays so.
# Returns what it was; -1 without memory. `standard` and `ours` are where Python's own code lies,
# and ours.
cdef extern int64_t samples_take_every(
    Core *core, int64_t every, const char *standard, const char *ours) noexcept nogil

# Whether n bytes that are about to be taken are to be noted. Short blocks are rounded up, as they
# will be.
cdef extern bint samples_draw(Core *core, uint64_t n) noexcept nogil
cdef inline bint samples_draws(Core *core, uint64_t n) noexcept nogil:
    cdef int64_t every = load_count(&core.sample_every)
    if likely(every == 0):
        return False
    n = (n + 63) & ~<uint64_t> 63
    return unlikely(heap_draws(&core.heaps, n, every)) and samples_draw(core, n)
# The call that a whole resource's note is of.
cdef extern uint32_t samples_call(const Resource *resource) noexcept nogil
# This thread, as holder of n bytes.
cdef extern uint32_t samples_here(Core *core, uint64_t n) noexcept nogil
# Notes who holds a whole resource, for that caller.
cdef extern void samples_set(Resource *resource, uint32_t holder) noexcept nogil
# One became longer, or another took its place: where nobody is noted as yet, this thread, if it is
# long enough for that.
cdef extern void samples_note_grown(Core *core, Resource *resource) noexcept nogil

# While stopped: adds up, for Core.holders, unless that was done a moment ago.
cdef extern void samples_look(Core *core) noexcept nogil
# While stopped: what each call holds, from Core.held at what this returns on, through `next`; until
# samples_forget.
cdef extern uint32_t samples_add_up(Core *core) noexcept nogil
# Of these, those that hold most, the most first: as many as there is room for, NO_CALL behind them.
cdef extern void samples_rank(
    const Core *core, uint32_t first, Holder *holders, int room) noexcept nogil
# All of that in one step: each call, what it holds and in how many blocks, in no order, into room
# for CALLS. Returns how many there are; 0 where no samples were ever taken.
cdef extern uint32_t samples_collect(Core *core, Holder *holders) noexcept nogil
cdef extern void samples_forget(Core *core, uint32_t first) noexcept nogil
