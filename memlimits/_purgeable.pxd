"""Idle memory that the system may take back: after a time without use, and until it is needed.

The functions are called without a lock and call the device.
"""

from libc.stdint cimport uint64_t

from memlimits._core cimport Core

# A slow step: what has been idle for the timeout becomes purgeable, the oldest first, about
# `enough` bytes of it. Wired resources do not.
cdef void purgeable_step(Core *core, uint64_t enough) noexcept nogil

cdef uint64_t purgeable_timeout(Core *core) noexcept nogil

# In ns; UINT64_MAX for never. What is due becomes purgeable before this returns the previous one.
cdef uint64_t purgeable_set_timeout(Core *core, uint64_t timeout) noexcept nogil
