"""Recorded processes, and whoever records them: both ends of what the one tells the other."""

import os

from libc.stdint cimport uint32_t, uint64_t
from posix.time cimport CLOCK_REALTIME
from posix.unistd cimport usleep

from memlimits._base.sync cimport add_word, load_word, store_word, time_of
from memlimits._bindings.allocator cimport get_default
from memlimits._device.mlim cimport MLIM_OK, mlim_error, mlim_status
from memlimits._device.shared cimport (
    mlim_shared, mlim_shared_close, mlim_shared_create, mlim_shared_open, mlim_shared_wait,
    mlim_shared_wake, mlim_shared_words,
)
from memlimits._engine.core cimport Core
from memlimits._engine.record cimport record_begin, record_leave, record_line
from memlimits._ledger.events cimport (
    EVENT_MEMBERS, EVENT_ROOM, HAS_LEFT, HOLDERS_EVENT, LAST_LINE_EVENT, LINE_EVENT, REFUSAL_EVENT,
    STAYS, Event, EventMember, Events, EventsHeader, events_attach, events_forget, events_free,
    events_make_header, events_next, events_size, events_why_not,
)

from memlimits._bindings.allocator import BLOCKED_BY

cdef enum:
    MOST_CODE = 4095    # whatever stands there

KINDS = {
    HOLDERS_EVENT: "holders", REFUSAL_EVENT: "refusal", LINE_EVENT: "part",
    LAST_LINE_EVENT: "line",
}


def create(path):
    """Make the file."""
    cdef bytes where = os.fsencode(path)
    cdef const char *at = where
    cdef EventsHeader header
    cdef mlim_error error
    cdef mlim_status status
    events_make_header(&header)
    with nogil:
        status = mlim_shared_create(at, 0o600, events_size(), &header, sizeof(header), &error)
    if status != MLIM_OK:
        raise OSError((<const char *> error.message).decode("utf-8", "replace"))


cdef mlim_shared *open_file(path) except NULL:
    cdef bytes where = os.fsencode(path)
    cdef const char *at = where
    cdef const char *why
    cdef mlim_shared *shared = NULL
    cdef mlim_error error
    cdef mlim_status status
    with nogil:
        status = mlim_shared_open(at, events_size(), &shared, &error)
    if status != MLIM_OK:
        raise OSError((<const char *> error.message).decode("utf-8", "replace"))
    why = events_why_not(<const EventsHeader *> mlim_shared_words(shared))
    if why != NULL:
        mlim_shared_close(shared)
        raise OSError(f"{os.fsdecode(path)}: {why.decode()}")
    return shared


# ---- a process that is recorded ----

def join(path):
    """Have this process be recorded; whether it was not yet."""
    cdef mlim_shared *shared = open_file(path)
    cdef Core *core = &get_default().core
    cdef bint begun
    with nogil:
        begun = record_begin(core, shared)
    if not begun:
        mlim_shared_close(shared)
    return begun


def put(str line):
    """Add a line to the recording; whether it was taken."""
    cdef bytes text = line.encode()
    cdef const char *start = text
    cdef uint64_t n = len(text)
    cdef bint taken
    cdef Core *core = &get_default().core
    with nogil:
        taken = record_line(core, start, n)
    return taken


def finish(double seconds):
    """Have all that was told be written, for so many seconds at most.

    The error number for which it is not; -1 where nobody wrote it in time; else 0.
    """
    cdef EventsHeader *header = get_default().core.recorded
    cdef uint64_t number
    cdef double left = seconds
    if header == NULL:
        return 0
    record_leave()
    number = add_word(&header.to_write, 1) + 1
    mlim_shared_wake(&header.bell)
    with nogil:
        while load_word(&header.written) < number and load_word(&header.failed) == 0 and left > 0:
            usleep(2000)
            left -= 0.002
    if load_word(&header.failed) == 0 and load_word(&header.written) < number:
        return -1
    return min(load_word(&header.failed), <uint64_t> MOST_CODE)


# ---- who records ----

cdef class Channel:
    """What processes tell. One process at a time reads a file."""

    cdef mlim_shared *shared
    cdef Events events
    cdef list later     # begun while `take` looked: what was before it may have been passed

    def __cinit__(self, path):
        self.later = []
        self.shared = open_file(path)
        events_attach(&self.events, mlim_shared_words(self.shared))

    def __dealloc__(self):
        mlim_shared_close(self.shared)

    def ask(self):
        """Ask all to say who holds what in them: they do at their next slow step."""
        add_word(&self.events.header.wanted, 1)

    def members(self):
        """The processes: pid, when it began, whether its program is over, and it ended in order."""
        cdef EventMember *member
        cdef uint64_t leaving
        cdef int i
        found = []
        for i in range(EVENT_MEMBERS):
            member = &self.events.header.members[i]
            # One that has its place, and has not said as yet when it began, is none.
            if load_word(&member.pid) and load_word(&member.started):
                leaving = load_word(&member.leaving)
                found.append((
                    member.pid, member.started, leaving != STAYS, leaving == HAS_LEFT))
        return found

    def wait(self, double seconds):
        """Until a process asks that all be written, or for so long. What `wrote` takes then."""
        cdef uint32_t *bell = &self.events.header.bell
        cdef uint32_t heard = bell[0]
        cdef uint64_t ns = <uint64_t> (seconds * 1e9)
        if load_word(&self.events.header.to_write) == load_word(&self.events.header.written):
            with nogil:
                mlim_shared_wait(bell, heard, ns)
        return load_word(&self.events.header.to_write)

    def wrote(self, uint64_t number):
        """All is written that was told when `wait` returned that."""
        store_word(&self.events.header.written, number)

    def fail(self, uint64_t code):
        """Nothing is written any more, for an error of that number."""
        store_word(&self.events.header.failed, code)

    def forget(self, uint64_t pid):
        """One that ended: its place is another's from now on, and what it was writing is gone."""
        cdef EventMember *member
        cdef int i
        events_forget(&self.events, pid)
        for i in range(EVENT_MEMBERS):
            member = &self.events.header.members[i]
            if load_word(&member.pid) == pid:
                # Before it is another's, who would be taken for one that has left.
                store_word(&member.leaving, STAYS)
                store_word(&member.started, 0)
                store_word(&member.pid, 0)

    def lost(self):
        """How many messages found no room."""
        return load_word(&self.events.header.lost)

    def take(self):
        """Messages, in the order in which they were begun: kind, ns since 1970, pid and bytes."""
        cdef Event *event
        cdef int slot = 0
        cdef uint64_t began = time_of(CLOCK_REALTIME)
        cdef list found = []
        cdef list before = self.later
        while True:
            event = events_next(&self.events, &slot)
            if event == NULL:
                break
            if event.length <= EVENT_ROOM:
                found.append((
                    KINDS.get(event.kind, "unknown"), event.at, event.pid,
                    (<char *> event.data)[:event.length]))
            events_free(event)
        self.later = [message for message in found if message[1] > began]
        before += [message for message in found if message[1] <= began]
        return sorted(before, key=lambda message: message[1])


cdef object number(list texts):
    return int(texts.pop())


cdef str text(list texts):
    return texts.pop().decode("utf-8", "surrogatepass")


cdef list holders_in(list texts):
    """Of texts whose first is the last: as dicts, with the frames of each, the outermost first."""
    cdef int _i
    found = []
    while texts:
        nbytes, blocks, line = number(texts), number(texts), number(texts)
        file, function = text(texts), text(texts)
        frames = []
        for _i in range(number(texts)):
            at = number(texts)
            frames.append((text(texts), at, text(texts)))
        found.append({
            "file": file, "line": line, "function": function, "nbytes": nbytes, "blocks": blocks,
            "stack": frames[::-1]})
    return found


def holders(bytes data):
    """What a message of that kind says."""
    return holders_in(data.split(b"\0")[-2::-1])


def refusal(bytes data):
    """Likewise."""
    names = ("requested", "limit", "footprint", "active", "cache", "slack")
    texts = data.split(b"\0")[-2::-1]
    facts = {name: number(texts) for name in names}
    return {**facts, "blocked_by": BLOCKED_BY[number(texts)], "holders": holders_in(texts)}
