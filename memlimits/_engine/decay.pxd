"""Idle decay: what was not used for a time becomes memory that the system may take back until it is
needed, or is returned.

The functions are called without a lock and call the device.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint64_t

from memlimits._base.sync cimport load_count
from memlimits._engine.core cimport Core

# A slow step: what has been idle for the timeout decays, the oldest first, about `enough` bytes of
# it. Wired resources do not become purgeable. Returns how many bytes went back.
cdef extern uint64_t decay_step(Core *core, uint64_t enough) noexcept nogil

cdef inline bint decay_is_on(const Core *core) noexcept nogil:
    """Whether there is a timeout. Needs no lock."""
    return load_count(<const int64_t *> &core.idle_timeout) != <int64_t> UINT64_MAX

# What was set last.
cdef struct Decay:
    uint64_t timeout
    bint returns            # what is due goes back, instead of becoming purgeable

cdef extern Decay decay_settings(Core *core) noexcept nogil

# In ns; UINT64_MAX for never. What is due decays before this returns the previous one.
cdef extern uint64_t decay_set_timeout(
    Core *core, uint64_t timeout, bint returns) noexcept nogil
