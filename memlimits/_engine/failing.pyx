from libc.string cimport strlen, strncmp

from memlimits._base.frames cimport file_of_code, function_of_code, python_stack
from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._engine.refusals cimport refusals_add
from memlimits._heap.heap cimport heap_self
from memlimits._ledger.accounts cimport accounts_opened
from memlimits._ledger.limits cimport TEST

cdef extern from *:
    """
    static _Thread_local int passing;
    """
    int passing

cdef enum:
    MOST_FRAMES = 512       # of a stack: the innermost
    MOST_FOLLOWERS = 4

cdef Core *ruled            # that has rules; all there are, are its
cdef Rule *rules
cdef int armed
cdef Follow followers[MOST_FOLLOWERS]
cdef int following


cdef void tell(int more) noexcept nogil:
    cdef int i
    for i in range(following):
        followers[i](more)


cdef void failing_follow(Core *core, Follow follow) noexcept nogil:
    global following
    pthread_mutex_lock(&core.heaps.lock)
    followers[following] = follow
    following += 1
    follow(armed)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void failing_arm(Core *core, Rule *rule) noexcept nogil:
    global armed, rules, ruled
    pthread_mutex_lock(&core.heaps.lock)
    ruled = core
    rule.next = rules
    rules = rule
    armed += 1
    accounts_opened(&core.accounts, True)
    tell(1)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void failing_disarm(Core *core, Rule *rule) noexcept nogil:
    global armed
    cdef Rule **link = &rules
    pthread_mutex_lock(&core.heaps.lock)
    while link[0] != rule:
        link = &link[0].next
    link[0] = rule.next
    armed -= 1
    accounts_opened(&core.accounts, False)
    tell(-1)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void failing_read(
    Core *core, const Rule *rule, uint64_t *requests, uint64_t *refused
) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    requests[0], refused[0] = rule.requests, rule.refused
    pthread_mutex_unlock(&core.heaps.lock)


# ---- where ----

cdef bint ends_with(const char *text, int n, const char *end, char between) noexcept nogil:
    """Whether it is that, or ends with it behind a `between`."""
    cdef int length = <int> strlen(end)
    if length > n or strncmp(text + n - length, end, length) != 0:
        return False
    return length == n or text[n - length - 1] == between


cdef bint is_in(const Rule *rule, const void *code) noexcept nogil:
    cdef char text[2 * LONGEST_PLACE]
    cdef int n
    if rule.function[0]:
        n = function_of_code(code, text, 2 * LONGEST_PLACE)
        if not ends_with(text, n, rule.function, b"."):
            return False
    if rule.file[0]:
        n = file_of_code(code, text, 2 * LONGEST_PLACE)
        return ends_with(text, n, rule.file, b"/")
    return True


cdef bint is_below(const Rule *rule, const void **codes, int n) noexcept nogil:
    if rule.file[0] == 0 and rule.function[0] == 0:
        return True
    while n:
        n -= 1
        if is_in(rule, codes[n]):
            return True
    return False


# ---- requests ----

cdef bint is_due(const Rule *rule) noexcept nogil:
    cdef uint64_t behind = rule.requests - rule.first
    if rule.requests < rule.first:
        return False
    return behind == 0 or rule.every and behind % rule.every == 0


cdef bint look(
    uint64_t n, int asker, const void *thread, const void **codes, int frames
) noexcept nogil:
    """Under the lock: each rule counts the request. Whether any refuses it."""
    cdef Rule *rule = rules
    cdef bint refused = False
    while rule != NULL:
        if (
            rule.levels >> asker & 1 and n >= rule.least
            and (rule.thread == NULL or rule.thread == thread) and is_below(rule, codes, frames)
        ):
            rule.requests += 1
            if is_due(rule):
                rule.refused += 1
                refused = True
        rule = rule.next
    return refused


cdef bint failing_refuses(Core *core, uint64_t n, int asker) noexcept nogil:
    cdef const void *codes[MOST_FRAMES]
    cdef int lastis[MOST_FRAMES]
    cdef int frames
    cdef bint refused
    own_begin()     # a thread's variables are made when it first uses one
    refused = passing != 0
    own_end()
    if refused:
        return False
    frames = python_stack(codes, lastis, MOST_FRAMES)
    pthread_mutex_lock(&core.heaps.lock)
    refused = core == ruled and look(n, asker, heap_self(), codes, frames)
    pthread_mutex_unlock(&core.heaps.lock)
    if refused:
        refusals_add(core, n or 1, TEST)
    return refused


cdef void failing_pass(int more) noexcept nogil:
    global passing
    passing += more
