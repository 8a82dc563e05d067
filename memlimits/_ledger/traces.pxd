"""The latest refusals and where Python's code stood: which one an exception tells of.

Every function is called under the allocator's lock, Heaps.lock.
"""

from libc.stdint cimport int64_t, uint64_t

from memlimits._ledger.queue cimport Asker, Refusal

cdef enum:
    TRACES = 256
    MOST_SIZES = 8

# Where Python's code stands: an address that is only compared, and what a traceback calls tb_lasti.
cdef struct Place:
    const void *code        # NULL: the thread runs no Python
    uint64_t mark           # of the code that is at the address, which may go and another come
    int lasti

# What an exception tells of the refusal behind it.
cdef struct Clue:
    Place place             # that it came from
    uint64_t sizes[MOST_SIZES]      # bytes: numbers that it names
    int n
    bint exact              # it is of so many bytes, and no others

cdef struct Trace:
    Refusal refusal         # its serial is 0 where there is none yet
    Place place
    uint64_t at             # ns
    uint64_t unclaimed      # how many such refusals no exception has

cdef struct Traces:
    Trace kept[TRACES]
    uint64_t count          # of all that were added
    int used                # the first so many of `kept` are in use
    int64_t unclaimed       # how many of `kept` have any; atomic

# Whether there is any for an exception, with the lock or without.
cdef extern bint traces_any(const Traces *traces) noexcept nogil
# Of as many bytes at the same place the newest is kept, for all. Returns its serial.
cdef extern uint64_t traces_add(
    Traces *traces, const Refusal *refusal, Place place, uint64_t at) noexcept nogil
# Whose request it was, if it is still kept.
cdef extern void traces_tell(Traces *traces, uint64_t serial, Asker asker) noexcept nogil
# The refusal behind an exception: one of the place that it came from, of one of the sizes rather
# than another, and the newest. Else, where there is none, one since a time, UINT64_MAX for never:
# of one of the sizes, as far as that is telling, or of a thread that ran no Python. Each serves
# once. False: there is none.
cdef extern bint traces_claim(
    Traces *traces, const Clue *clue, uint64_t since, Refusal *refusal) noexcept nogil
