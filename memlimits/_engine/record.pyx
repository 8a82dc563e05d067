from libc.stdint cimport uint32_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC
from posix.unistd cimport getpid, usleep

from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport (
    load_acquire, load_word, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock, store_release, store_word, time_of,
)
from memlimits._device.shared cimport (
    mlim_identity, mlim_identity_of_self, mlim_shared_words,
)
from memlimits._engine.core cimport core_resume, core_stop
from memlimits._engine.samples cimport samples_add_up, samples_forget, samples_rank
from memlimits._ledger.calls cimport (
    NO_CALL, Call, CallTree, calls_file, calls_function,
)
from memlimits._ledger.events cimport (
    CLOSES, EVENT_ROOM, HAS_LEFT, HOLDERS_EVENT, LAST_LINE_EVENT, LINE_EVENT, REFUSAL_EVENT, Event,
    EventKind, EventMember, Events, Leaving, events_attach, events_begin, events_join, events_put,
    events_put_number, events_send,
)
from memlimits._ledger.queue cimport MOST_HOLDERS, Holder

cdef extern from *:
    """
    #include <pthread.h>
    #include <stdlib.h>
    static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;
    """
    pthread_mutex_t recording
    int atexit(void (*function)() noexcept nogil) nogil

cdef enum:
    LOOKING_PART = 20       # of the time
    RANKED = 32             # calls that hold most
    FRAMES_TOLD = 24        # of each, the innermost
    PATIENCE = 1000         # ms, for a slot

cdef Events events
# Guarded by `recording`.
cdef EventMember *place
cdef uint64_t joined        # the process that has the place; what joined is its parent in a child
# Of the last answer: ns. Written by whoever stopped the heaps.
cdef uint64_t took, looked_at


cdef void say_that_it(Leaving state) noexcept nogil:
    if place != NULL and joined == <uint64_t> getpid():
        store_word(&place.leaving, state)


cdef void record_close() noexcept nogil:
    say_that_it(CLOSES)


cdef void record_leave() noexcept nogil:
    global place
    say_that_it(HAS_LEFT)
    place = NULL            # from now on it is another's, as soon as that has been seen


cdef void join() noexcept nogil:
    """This process, or the forked child that it is by now."""
    global place, joined
    cdef mlim_identity self
    own_begin()
    pthread_mutex_lock(&recording)
    if joined != <uint64_t> getpid():
        mlim_identity_of_self(&self)
        place = events_join(&events, self.pid, self.started)
        joined = self.pid
    pthread_mutex_unlock(&recording)
    own_end()


cdef bint record_begin(Core *core, mlim_shared *shared) noexcept nogil:
    cdef bint begins
    pthread_mutex_lock(&recording)
    begins = events.header == NULL
    if begins:
        events_attach(&events, mlim_shared_words(shared))
    pthread_mutex_unlock(&recording)
    if begins:
        join()
        pthread_mutex_lock(&core.heaps.lock)
        core.recorder = answer
        pthread_mutex_unlock(&core.heaps.lock)
        store_release(<void **> &core.recorded, events.header)
        atexit(record_leave)
    return begins


cdef bint put_call(Event *event, const CallTree *tree, uint32_t number) noexcept nogil:
    """The innermost first: how many there are, and line, file and function of each."""
    cdef const Call *call
    cdef uint32_t at = number
    cdef int frames = 0
    while at != NO_CALL and frames < FRAMES_TOLD:
        frames += 1
        at = tree.calls[at].caller
    if not events_put_number(event, frames):
        return False
    while frames:
        call = &tree.calls[number]
        if not (
            events_put_number(event, call.line)
            and events_put(event, calls_file(tree, &tree.calls[call.here]))
            and events_put(event, calls_function(tree, &tree.calls[call.here]))
        ):
            return False
        number = call.caller
        frames -= 1
    return True


cdef bint put_holder(Event *event, const CallTree *tree, const Holder *holder) noexcept nogil:
    """Bytes, blocks, the line that is told, and the stack."""
    cdef const Call *site = &tree.calls[tree.calls[holder.call].site]
    return (
        events_put_number(event, holder.bytes) and events_put_number(event, holder.blocks)
        and events_put_number(event, site.line) and events_put(event, calls_file(tree, site))
        and events_put(event, calls_function(tree, site)) and put_call(event, tree, holder.call))


cdef void put_holders(
    Event *event, const CallTree *tree, const Holder *holders, int count
) noexcept nogil:
    """As many as there is room for."""
    cdef uint64_t length
    cdef int i
    for i in range(count):
        length = event.length
        if holders[i].call == NO_CALL:
            return
        if not put_holder(event, tree, &holders[i]):
            event.length = length
            return


cdef bint is_due(uint64_t now) noexcept nogil:
    return now - load_word(&looked_at) >= LOOKING_PART * load_word(&took)


cdef void answer(Core *core) noexcept nogil:
    """While stopped."""
    cdef Holder holders[RANKED]
    cdef Event *event
    cdef uint32_t calls
    cdef uint64_t now, wanted = load_word(&events.header.wanted)
    if wanted == core.answered or core.held == NULL or joined == 0:
        return
    now = time_of(CLOCK_MONOTONIC)
    if not is_due(now):
        return
    store_word(&core.answered, wanted)
    event = events_begin(&events, HOLDERS_EVENT, joined)
    if event != NULL:
        calls = samples_add_up(core)
        samples_rank(core, calls, holders, RANKED)
        samples_forget(core, calls)
        put_holders(event, &core.calls, holders, RANKED)
        events_send(event)
    store_word(&took, time_of(CLOCK_MONOTONIC) - now)
    store_word(&looked_at, time_of(CLOCK_MONOTONIC))


cdef void record_now(Core *core) noexcept nogil:
    # Until it is due nobody stops for it.
    if not is_due(time_of(CLOCK_MONOTONIC)):
        return
    if joined != <uint64_t> getpid():
        join()
    core_stop(core)
    core_resume(core, False)    # which answers
    # Where no samples are taken there is no answer.
    if core.held == NULL:
        store_word(&core.answered, load_word(&events.header.wanted))


cdef void record_refusal(Core *core, const Refusal *refusal) noexcept nogil:
    cdef Event *event
    if core.recorder == NULL or joined == 0:
        return
    event = events_begin(&events, REFUSAL_EVENT, joined)
    if event == NULL:
        return
    events_put_number(event, refusal.requested)
    events_put_number(event, refusal.limit)
    events_put_number(event, refusal.footprint)
    events_put_number(event, refusal.active)
    events_put_number(event, refusal.cache)
    events_put_number(event, refusal.slack)
    events_put_number(event, <uint64_t> refusal.blocked_by)
    put_holders(event, &core.calls, refusal.holders, MOST_HOLDERS)
    events_send(event)


cdef bint send_part(EventKind kind, const char *text, uint64_t n) noexcept nogil:
    cdef Event *event = NULL
    cdef int _i
    for _i in range(PATIENCE):
        event = events_begin(&events, kind, <uint64_t> getpid())
        if event != NULL:
            break
        usleep(1000)
    if event == NULL:
        return False
    memcpy(event.data, text, n)
    event.length = n
    events_send(event)
    return True


cdef bint record_line(Core *core, const char *text, uint64_t n) noexcept nogil:
    cdef uint64_t part
    cdef bint sent = load_acquire(<void **> &core.recorded) != NULL
    if sent and joined != <uint64_t> getpid():
        join()
    # Lines of two threads are not to be mixed.
    pthread_mutex_lock(&recording)
    while sent:
        part = min(n, <uint64_t> EVENT_ROOM)
        sent = send_part(LINE_EVENT if part < n else LAST_LINE_EVENT, text, part)
        text += part
        n -= part
        if n == 0:
            break
    pthread_mutex_unlock(&recording)
    return sent


cdef void record_after_fork(Core *core) noexcept nogil:
    global joined
    pthread_mutex_init(&recording, NULL)
    joined = 0
    store_word(&took, 0)
    store_word(&looked_at, 0)
    store_word(&core.answered, <uint64_t> -1)       # its first growth has it join
