"""Limits set, counters read."""

from libc.stdint cimport int64_t, uint64_t

from memlimits._device.mlim cimport mlim_process
from memlimits._engine.core cimport Core
from memlimits._heap.heaps cimport Survey
from memlimits._ledger.limits cimport Count, Limits, Policy
from memlimits._ledger.queue cimport Refusal

# Everything that statistics tell, at one instant.
cdef struct Snapshot:
    Limits limits
    Survey survey
    uint64_t heaps
    uint64_t purgeable
    uint64_t idle_timeout

# Setters act before they return: the cache is trimmed, resources are unwired. They call the device.
cdef extern void controls_set_memory_limit(Core *core, uint64_t limit, bint follows) noexcept nogil
cdef extern void controls_set_cache_limit(Core *core, uint64_t limit, bint follows) noexcept nogil
cdef extern void controls_set_wired_limit(Core *core, uint64_t limit) noexcept nogil
# `timeout`, in ns, is that of POLICY_WAIT, and stays what it was with another.
cdef extern void controls_set_policy(Core *core, Policy policy, uint64_t timeout) noexcept nogil
cdef extern void controls_set_count(Core *core, Count count) noexcept nogil
# So many bytes are kept back from growth until something is refused, and again once there is room:
# a quarter of the memory limit at most.
cdef extern void controls_keep_back(Core *core, uint64_t n) noexcept nogil
# So many more ask for little idle memory. While any does, growth goes further in returning it.
cdef extern void controls_be_lean(Core *core, int64_t more) noexcept nogil
# A memory limit that was not set becomes the default by the last reading; a new reading, too.
cdef extern void controls_follow_sizes(Core *core) noexcept nogil
cdef extern void controls_read_sizes(Core *core) noexcept nogil
# What the process holds now, in all; where that cannot be read, as it was.
cdef extern mlim_process controls_read_process(Core *core) noexcept nogil
cdef extern uint64_t controls_default_limit(Core *core) noexcept nogil
cdef extern void controls_clear_cache(Core *core) noexcept nogil
cdef extern void controls_reset_peak(Core *core) noexcept nogil
# One consistent copy: of everything, and the peak becomes 0 in the same step, if asked to; of all
# but active, cache and hits, without a look at the heaps; and of the newest refusal of any thread.
cdef extern void controls_snapshot(Core *core, bint reset_peak, Snapshot *snapshot) noexcept nogil
# The first of these, for who holds every lock already.
cdef extern void controls_note_snapshot(Core *core, Snapshot *snapshot) noexcept nogil
cdef extern uint64_t controls_active(Core *core) noexcept nogil    # two of them alone
cdef extern uint64_t controls_cached(Core *core) noexcept nogil
# One number that the lock guards.
cdef extern uint64_t controls_read(Core *core, const uint64_t *number) noexcept nogil
cdef extern uint64_t controls_cache_limit(Core *core) noexcept nogil
cdef extern Limits controls_settings(Core *core) noexcept nogil
cdef extern Refusal controls_latest_refusal(Core *core) noexcept nogil
