"""Refusals, counted and remembered."""

from libc.stdint cimport uint64_t

from memlimits._accounts cimport Account
from memlimits._core cimport Core, Refusal
from memlimits._limits cimport Blocker

# Of n bytes, after `waited` ns; returns what blocked.
cdef Blocker core_refuse(Core *core, uint64_t n, Blocker blocker, uint64_t waited) noexcept nogil
# The same by a budget.
cdef Blocker core_refuse_by(Core *core, uint64_t n, const Account *budget) noexcept nogil
# This thread's last refusal.
cdef Refusal last_refusal() noexcept nogil
