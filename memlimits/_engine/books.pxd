"""Whether the books agree with what there is: in debug and sanitizer builds, at every stop.

What is added up here is not what the counters were added up from: every resource, by its own state.
Sums over the heaps are taken at every stop. To visit all resources takes as long as there are many:
that is done at every stop while they are few, else at every third, fifth and so on.
"""

from libc.stdint cimport int64_t, uint64_t

from memlimits._heap.heap cimport Heaps
from memlimits._heap.pagemap cimport PageMap
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport Accounts
from memlimits._ledger.limits cimport Limits

# With the locks of all heaps, and Heaps.lock; where the counters are those of this stop.
cdef extern void books_check(
    const Heaps *heaps, const Limits *limits, const Accounts *accounts, const PageMap *pages,
    const Resource *resources) noexcept nogil
# How often that was done in this process; -1 in builds that do not.
cdef extern int64_t books_checked() noexcept nogil
