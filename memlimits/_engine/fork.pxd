"""The core around a fork."""

from memlimits._engine.core cimport Core

# Before: waits until no device call is under way and takes the locks. After: gives them back; in
# the child nothing is wired and the wired limit is 0, since locked pages are not inherited and
# locking them anew would copy every page the two share; and where the device did not survive, the
# heaps are lost.
cdef extern void fork_prepare(Core *core) noexcept nogil
cdef extern void fork_resume(Core *core, bint child) noexcept nogil
