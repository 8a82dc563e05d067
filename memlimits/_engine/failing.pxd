"""Requests that a test wants refused, as if there were no room for them.

A rule is its opener's, who keeps it where it is while it is armed. As long as any is, requests come
here: blocks of our own because an account may be open (Accounts.open), those of adapters because
each was told. So nothing looks for rules while there is none.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core

cdef enum:
    LONGEST_PLACE = 512     # bytes, with the NUL

cdef struct Rule:
    Rule *next              # of those that are armed; like all below under Heaps.lock
    const void *thread      # whose requests count; NULL: any thread's
    int levels              # whose, a bit for each Asker
    uint64_t least          # bytes that a request is for
    uint64_t first          # that is refused, of those that count; and of the following
    uint64_t every          # one in so many; 0: none
    uint64_t requests       # that counted
    uint64_t refused
    # What Python's stack has to have: a file, by the end of its path, and a function, by the end of
    # its qualified name; of either "" for any. Both in one frame.
    char file[LONGEST_PLACE]
    char function[LONGEST_PLACE]

# From now on it is looked at, or no more.
cdef extern void failing_arm(Core *core, Rule *rule) noexcept nogil
cdef extern void failing_disarm(Core *core, Rule *rule) noexcept nogil
cdef extern void failing_read(
    Core *core, const Rule *rule, uint64_t *requests, uint64_t *refused) noexcept nogil

# An adapter that has to look: it is told that one more is armed, or one less; those that are by now
# at once. Under Heaps.lock.
ctypedef void (*Follow)(int more) noexcept nogil
cdef extern void failing_follow(Core *core, Follow follow) noexcept nogil

# Whether this thread's request for n bytes is refused, which is counted and remembered then. An
# Asker's own. Not while it asks for what it was asked for itself.
cdef extern bint failing_refuses(Core *core, uint64_t n, int asker) noexcept nogil
# Around what an adapter asks of another level for a request that was looked at. They nest.
cdef extern void failing_pass(int more) noexcept nogil
