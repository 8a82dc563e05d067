"""What processes tell whoever records them: messages, in a file that all of them map.

A process takes a slot, writes, and says that it is ready; who records takes it out and frees it. No
step waits for another's: without a free slot a message is lost, and counted. What is read here may
have been written by anybody who may write the file, so no length is taken from it unchecked.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    EVENTS_VERSION = 1
    EVENT_SLOTS = 32
    EVENT_ROOM = 32728      # bytes of a message
    EVENT_MEMBERS = 1024

cdef enum EventKind:
    HOLDERS_EVENT       # texts that each end with a 0: events_put_holder
    REFUSAL_EVENT       # likewise, behind what was refused
    LINE_EVENT          # of a line of a recording that follows, a part
    LAST_LINE_EVENT     # and its end

cdef enum Leaving:
    STAYS
    CLOSES              # its program is over
    HAS_LEFT            # it ended in order

cdef struct EventMember:
    uint64_t pid            # 0: nobody's
    uint64_t started        # as in mlim_identity
    uint64_t leaving        # a Leaving

cdef struct Event:
    uint64_t state          # free, ready, or the pid of who writes it and a mark
    uint64_t kind
    uint64_t at             # ns since 1970
    uint64_t pid
    uint64_t length
    char data[EVENT_ROOM]

cdef struct EventsHeader:
    char magic[8]
    uint64_t version
    uint64_t size
    uint64_t wanted         # counts how often who records asked who holds what
    uint64_t lost           # messages
    uint64_t to_write       # counts how often a process asked that all be in the recording;
    uint64_t written        # and as it was when all was there last
    uint64_t failed         # the error number for which nothing is written any more
    uint32_t bell           # who records waits for it
    EventMember members[EVENT_MEMBERS]

cdef struct Events:
    EventsHeader *header    # NULL: nobody records
    Event *slots

cdef extern size_t events_size() noexcept nogil
cdef extern void events_make_header(EventsHeader *header) noexcept nogil
cdef extern const char *events_why_not(const EventsHeader *header) noexcept nogil
cdef extern void events_attach(Events *events, void *words) noexcept nogil

# This process is recorded: NULL where there is no room for it.
cdef extern EventMember *events_join(
    Events *events, uint64_t pid, uint64_t started) noexcept nogil

# A slot, to be given back by events_send; NULL where none is free.
cdef extern Event *events_begin(Events *events, EventKind kind, uint64_t pid) noexcept nogil
# Adds a text, or a number as one, with the 0 behind it. False: no room is left.
cdef extern bint events_put(Event *event, const char *text) noexcept nogil
cdef extern bint events_put_number(Event *event, uint64_t number) noexcept nogil
cdef extern void events_send(Event *event) noexcept nogil

# For who records: the next that is ready, from a slot on; NULL for none. And gives it back.
cdef extern Event *events_next(Events *events, int *slot) noexcept nogil
cdef extern void events_free(Event *event) noexcept nogil
# Frees what a process was writing that has ended.
cdef extern void events_forget(Events *events, uint64_t pid) noexcept nogil
