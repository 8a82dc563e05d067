"""What is asked to be wired ahead of the rest, and what is not wired and why."""

from memlimits._heap.heap cimport Heaps
from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport Limits
from memlimits._residency.plan cimport Residency

cdef enum Pinning:
    PINNED
    FOREIGN         # no block of this allocator's lies there
    NOT_PINNED       # it was not asked for before

# While stopped: the resource in use that an address lies in; NULL for memory that is not ours.
cdef extern Resource *pins_find(const Residency *residency, const char *address) noexcept nogil
# Asks for the resource in use that an address lies in to be wired ahead of others, or takes that
# back, as often as it was asked for; then residency_update. The caller sees to it that the block
# stays. All of that ends when nobody holds a block of the resource any more.
cdef extern Pinning pins_change(
    Residency *residency, const char *address, bint wired) noexcept nogil
# Whether a resource is kept resident now; and is so by a GPU's driver.
cdef extern bint pins_is_wired(Residency *residency, const Resource *resource) noexcept nogil
cdef extern bint pins_is_registered(Residency *residency, const Resource *resource) noexcept nogil
# With every heap's lock: adds up what was asked for, and what is in use and not wired; where the
# wired limit is 0, of what was asked for.
cdef extern void pins_survey(const Residency *residency, Limits *limits) noexcept nogil
