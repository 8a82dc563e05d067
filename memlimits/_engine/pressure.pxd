"""Memory pressure: idle memory goes back where the system runs short, or when somebody asks for it.

The functions are called without a lock and call the device.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._ledger.limits cimport Limits

# The end of a slow step: acts on the last reading of the system's room, once.
cdef extern void pressure_step(Core *core) noexcept nogil

# Lets what is due decay, reads the pressure, and returns what it asks for, and what is cached above
# `target`: UINT64_MAX for no target. Returns how many bytes went back.
cdef extern uint64_t pressure_trim(Core *core, uint64_t target) noexcept nogil

# Sets the thresholds, as in Limits, and returns those before. They hold from the next reading on.
cdef extern Limits pressure_set(
    Core *core, uint64_t least_available, double most_stall) noexcept nogil
