"""All heaps of one allocator: stopped, added up, given new bounds.

"Stopped" means that every heap's lock is held, inside Heaps.lock: nothing moves then.
"""

from libc.stdint cimport int64_t, uint64_t

from memlimits._heap.heap cimport Heap, Heaps, Outcome
from memlimits._heap.resource cimport Block, Resource

cdef struct Totals:
    int64_t idle
    int64_t cached
    uint64_t purgeable
    uint64_t hits
    uint64_t steals
    uint64_t spares         # descriptors of nothing

# What only a snapshot asks for.
cdef struct Survey:
    uint64_t slabs
    uint64_t largest_idle       # bytes of one resource

# Takes every lock, and gives them back.
cdef extern void heaps_stop(Heaps *heaps) noexcept nogil       # and no slab is retained
cdef extern void heaps_resume(Heaps *heaps) noexcept nogil
# Under Heaps.lock, for who only looks: the others, and retained slabs stay so. heaps_unlock_all
# gives them back.
cdef extern void heaps_lock_all_to_read(Heaps *heaps) noexcept nogil
# All but Heaps.lock: to wait on a condition of it.
cdef extern void heaps_lock_all(Heaps *heaps) noexcept nogil
cdef extern void heaps_unlock_all(Heaps *heaps) noexcept nogil

# While stopped: adds up what all hold.
cdef extern void heaps_total(const Heaps *heaps, Totals *totals) noexcept nogil
cdef extern void heaps_survey(const Heaps *heaps, Survey *survey) noexcept nogil
# Under Heaps.lock: totals at one instant, and nothing else changes.
cdef extern void heaps_read_totals(Heaps *heaps, Totals *totals) noexcept nogil
# While stopped: no heap has headroom any more, and no group, so that the sum is what is active.
cdef extern void heaps_collect(Heaps *heaps) noexcept nogil
# Likewise: that is `active`, which may be a new peak if a block was `taken`.
cdef extern void heaps_note(Heaps *heaps, int64_t active, bint taken) noexcept nogil
# Likewise: from now on no heap keeps more headroom than is fair.
cdef extern void heaps_keep_least(Heaps *heaps) noexcept nogil
# Likewise: new bounds for the cache. `room` bytes are shared out, INT64_MAX for no bound, the
# larger part to one heap. `unclaimable`: every step that takes goes the slow way.
cdef extern void heaps_share(
    Heaps *heaps, Heap *favoured, int64_t room, bint unclaimable) noexcept nogil

# Bytes to ask the device for, to serve n bytes in this thread's `heap` from a slab, where all may
# hold `most`.
cdef extern uint64_t heaps_growth(Heap *heap, uint64_t n, uint64_t most) noexcept nogil

# Likewise: bytes to ask it for besides, to be idle here: so much for each resource that the heap
# holds, less what it has in its cache.
cdef extern uint64_t heaps_ahead(Heap *heap) noexcept nogil

# Under Heaps.lock: n bytes from an idle resource of the next heap that has one: of up to `longest`
# bytes, or of `growth` and more where it may be split, neither where that is 0; without one from a
# slab, but for those of who begins, if it `spares` them. No heap is stopped for it. BOUND: what
# serves them has joined `heap`, and nothing more.
cdef extern Outcome heaps_steal(
    Heap *heap, uint64_t n, uint64_t growth, uint64_t longest, bint spares,
    Block *block) noexcept nogil

# Without Heaps.lock: some of what is idle in another heap moves to this thread's, among it `growth`
# bytes in one piece, if one seems to have much more. False: none has, or others had its lock.
cdef extern bint heaps_even_up(Heap *heap, uint64_t growth) noexcept nogil

# While stopped: what is idle side by side is one again, but for what is longer than `longest`.
cdef extern void heaps_coalesce(Heaps *heaps, uint64_t longest) noexcept nogil

# While stopped: every idle resource, the oldest first, across all heaps. The one that was
# given last may be taken out.
cdef extern void heaps_rewind(Heaps *heaps) noexcept nogil
cdef extern Resource *heaps_next_idle(Heaps *heaps) noexcept nogil
# While stopped: from now on what becomes idle notes the time, or it ceases to. Bounds are to be
# shared out anew before the heaps go on.
cdef extern void heaps_set_timed(Heaps *heaps, bint timed) noexcept nogil

# Around a fork, with heaps_stop between the two: in the child only this thread is left.
cdef extern void heaps_before_fork() noexcept nogil
cdef extern void heaps_after_fork(Heaps *heaps, bint child) noexcept nogil
cdef extern void heaps_lose(Heaps *heaps) noexcept nogil       # in the child, once it is sure
