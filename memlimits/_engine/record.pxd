"""What this process tells whoever records it (_ledger/events): who holds what, and refusals.

Nothing runs for it but steps that are slow anyway, and none of Python's: so what a program does in
C is told, too, and what it had when it was killed. A forked child is recorded as well. One core is:
that of the default allocator.
"""

from libc.stdint cimport uint64_t

from memlimits._base.sync cimport load_acquire, load_word
from memlimits._device.shared cimport mlim_shared
from memlimits._engine.core cimport Core
from memlimits._ledger.events cimport EventsHeader
from memlimits._ledger.queue cimport Refusal

# From now on, for good: takes the file over. False: it is recorded already.
cdef extern bint record_begin(Core *core, mlim_shared *shared) noexcept nogil

# Without a lock, before growth and before what is sampled: answers who asks who holds what, a
# twentieth of the time at most.
cdef inline void record_step(Core *core) noexcept nogil:
    cdef EventsHeader *header = <EventsHeader *> load_acquire(<void **> &core.recorded)
    if header != NULL and load_word(&header.wanted) != load_word(&core.answered):
        record_now(core)
cdef extern void record_now(Core *core) noexcept nogil

# While stopped, with its holders in it.
cdef extern void record_refusal(Core *core, const Refusal *refusal) noexcept nogil
# A line for the recording, as often as it takes. False: who records does not take it out, or is
# gone. Without a lock, and it may wait a moment.
cdef extern bint record_line(Core *core, const char *text, uint64_t n) noexcept nogil

# Its program is over: what it lets through from now on are no limits of the program's. And it ends
# in order.
cdef extern void record_close() noexcept nogil
cdef extern void record_leave() noexcept nogil
cdef extern void record_after_fork(Core *core) noexcept nogil      # in the child
