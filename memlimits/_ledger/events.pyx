from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.time cimport CLOCK_REALTIME

from memlimits._base.sync cimport add_word, load_word, replace_word, store_word, time_of

cdef enum State:
    FREE
    READY
    WRITING         # with the pid above it
    STATE_BITS = 2

cdef extern from *:
    """
    #define EVENTS_MAGIC "mlimevts"
    """
    const char *EVENTS_MAGIC


cdef size_t size_of_head() noexcept nogil:
    return (sizeof(EventsHeader) + 4095) // 4096 * 4096


cdef size_t events_size() noexcept nogil:
    return size_of_head() + EVENT_SLOTS * sizeof(Event)


cdef void events_make_header(EventsHeader *header) noexcept nogil:
    memset(header, 0, sizeof(EventsHeader))
    memcpy(header.magic, EVENTS_MAGIC, sizeof(header.magic))
    header.version = EVENTS_VERSION
    header.size = events_size()


cdef const char *events_why_not(const EventsHeader *header) noexcept nogil:
    if memcmp(header.magic, EVENTS_MAGIC, sizeof(header.magic)) != 0:
        return b"it is no file that processes are recorded by"
    if header.version != EVENTS_VERSION or header.size != events_size():
        return b"it was made by another version of memlimits"
    return NULL


cdef void events_attach(Events *events, void *words) noexcept nogil:
    events.header = <EventsHeader *> words
    events.slots = <Event *> (<char *> words + size_of_head())


cdef EventMember *find_earlier_self(
    Events *events, uint64_t pid, uint64_t started
) noexcept nogil:
    """This process joined before it replaced its program (exec)."""
    cdef EventMember *member = events.header.members
    cdef int _i
    for _i in range(EVENT_MEMBERS):
        if load_word(&member.pid) == pid and load_word(&member.started) == started:
            return member
        member += 1
    return NULL


cdef EventMember *events_join(Events *events, uint64_t pid, uint64_t started) noexcept nogil:
    cdef EventMember *member = find_earlier_self(events, pid, started)
    cdef int _i
    if member != NULL:
        store_word(&member.leaving, STAYS)
        return member
    member = events.header.members
    for _i in range(EVENT_MEMBERS):
        # One that ended stays until who records has seen it, and is free then.
        if load_word(&member.pid) == 0 and replace_word(&member.pid, 0, pid):
            store_word(&member.started, started)
            return member
        member += 1
    add_word(&events.header.lost, 1)
    return NULL


cdef Event *events_begin(Events *events, EventKind kind, uint64_t pid) noexcept nogil:
    cdef Event *event = events.slots
    cdef int _i
    for _i in range(EVENT_SLOTS):
        if load_word(&event.state) == FREE and replace_word(
            &event.state, FREE, pid << STATE_BITS | WRITING
        ):
            event.kind, event.pid, event.length = kind, pid, 0
            event.at = time_of(CLOCK_REALTIME)
            return event
        event += 1
    add_word(&events.header.lost, 1)
    return NULL


cdef bint events_put(Event *event, const char *text) noexcept nogil:
    cdef size_t n = strlen(text) + 1
    if n > EVENT_ROOM - event.length:
        return False
    memcpy(event.data + event.length, text, n)
    event.length += n
    return True


cdef bint events_put_number(Event *event, uint64_t number) noexcept nogil:
    cdef char text[24]
    snprintf(text, sizeof(text), b"%llu", <unsigned long long> number)
    return events_put(event, text)


cdef void events_send(Event *event) noexcept nogil:
    store_word(&event.state, READY)


cdef Event *events_next(Events *events, int *slot) noexcept nogil:
    cdef Event *event
    while slot[0] < EVENT_SLOTS:
        event = events.slots + slot[0]
        slot[0] += 1
        if load_word(&event.state) == READY:
            return event
    return NULL


cdef void events_free(Event *event) noexcept nogil:
    store_word(&event.state, FREE)


cdef void events_forget(Events *events, uint64_t pid) noexcept nogil:
    cdef Event *event = events.slots
    cdef int _i
    for _i in range(EVENT_SLOTS):
        replace_word(&event.state, pid << STATE_BITS | WRITING, FREE)
        event += 1
