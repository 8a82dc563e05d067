"""Whether a heap is what it says: in debug and sanitizer builds, at every stop.

A build is one of these where MEMLIMITS_ASSERTIONS is defined (setup.py). In others all of this is
left out: whoever calls asks `CHECKING`, a constant, first.

A rule that does not hold ends the process with a sentence that says which, and the two numbers that
it compares. Sums are added up at every stop. Walking all resources takes as long as there are many:
it is done at every stop as long as they are few, else at every third, fifth and so on.
"""

from libc.stdint cimport int64_t

from memlimits._heap.heap cimport Heaps
from memlimits._heap.misuse cimport rule_broken
from memlimits._heap.resource cimport likely

cdef extern from *:
    """
    #ifdef MEMLIMITS_ASSERTIONS
    #define CHECKING 1
    #else
    #define CHECKING 0
    #endif
    """
    bint CHECKING

# Ends the process with the rule, unless it holds.
cdef inline void holds(
    bint condition, const char *rule, int64_t one, int64_t other
) noexcept nogil:
    if not likely(condition):
        rule_broken(rule, one, other)


cdef inline void same(int64_t one, int64_t other, const char *rule) noexcept nogil:
    holds(one == other, rule, one, other)


cdef inline void at_most(int64_t one, int64_t other, const char *rule) noexcept nogil:
    holds(one <= other, rule, one, other)


# With the locks of all heaps: each one's bounds; and its lists, which takes as long as they are.
cdef extern void heaps_check_bounds(const Heaps *heaps) noexcept nogil
cdef extern void heaps_check_lists(const Heaps *heaps) noexcept nogil
cdef inline void heaps_check(const Heaps *heaps) noexcept nogil:
    if CHECKING:
        heaps_check_bounds(heaps)
