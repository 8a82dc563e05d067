"""The core around a fork."""

from memlimits._engine.core cimport Core
from memlimits._engine.settings cimport Settings

# Once, of the core that forks are to find at rest from now on.
cdef extern void fork_follow(Core *core, Settings *settings) noexcept nogil

# Before: waits until no device call is under way and takes the locks. After: gives them back; in
# the child nothing is wired and the wired limit is 0, since locked pages are not inherited and
# locking them anew would copy every page the two share; and where the device did not survive, the
# heaps are lost.
cdef extern void fork_prepare() noexcept nogil
cdef extern void fork_resume(int child) noexcept nogil

# Around who else calls these two from now on, if `others` is true then: no fork is under way, and
# none begins.
cdef extern void fork_hand_over() noexcept nogil
cdef extern void fork_handed_over(bint others) noexcept nogil
