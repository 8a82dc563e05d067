from libc cimport errno
from libc.stdint cimport int64_t

from memlimits._base.lines cimport put, put_grouped, put_number, put_size
from memlimits._base.sync cimport CLOCK_COARSE, load_count, store_count, time_of
from memlimits._ledger.limits cimport (
    BUDGET, COUNT_PROCESS, COUNT_RESIDENT, DEVICE, FORK, LENGTH, LIMIT, POLICY_GUIDELINE,
    POLICY_STRICT, POOL, QUEUE, RESERVATION, RESOURCES, SYSTEM, TEST, Blocker,
)
from memlimits._ledger.calls cimport NO_CALL, Call, calls_file, calls_function
from memlimits._ledger.queue cimport C_CODE, MALLOC, MOST_HOLDERS, NUMPY, PYTHON

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <sys/stat.h>
    #include <unistd.h>

    static struct stat first;
    static int has_first;

    static void note_stderr(void)
    {
        has_first = fstat(STDERR_FILENO, &first) == 0;
    }

    static int are_same(const struct stat *one, const struct stat *other)
    {
        return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
    }

    /* The next file that is opened has the number of one that the program closed. It may be data,
     * and so is what a socket sends: nothing is to be in between. */
    static int takes_lines(void)
    {
        struct stat now, out;
        if (!has_first || fstat(STDERR_FILENO, &now) != 0)
            return 1;
        if (are_same(&now, &first) || (fstat(STDOUT_FILENO, &out) == 0 && are_same(&now, &out)))
            return 1;
        if (S_ISREG(now.st_mode))
            return (fcntl(STDERR_FILENO, F_GETFL) & O_APPEND) != 0;
        return S_ISCHR(now.st_mode) || S_ISFIFO(now.st_mode);
    }

    /* A program may have chosen to die of a broken pipe, but not of ours: a signal that the writing
     * raised is taken back. Nor may it wait for who reads a pipe, which has room for a line where
     * it has any. */
    static void write_to_stderr(const char *text, int length)
    {
        struct pollfd room = {STDERR_FILENO, POLLOUT, 0};
        if (poll(&room, 1, 0) == 0)
            return;
        sigset_t broken, masked, pending;
        sigemptyset(&broken);
        sigaddset(&broken, SIGPIPE);
        sigpending(&pending);
        int was_pending = sigismember(&pending, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &broken, &masked);
        ssize_t written;
        do
            written = write(STDERR_FILENO, text, (size_t)length);
        while (written < 0 && errno == EINTR);
        sigpending(&pending);
        if (written < 0 && !was_pending && sigismember(&pending, SIGPIPE)) {
            int taken;
            sigwait(&broken, &taken);
        }
        pthread_sigmask(SIG_SETMASK, &masked, NULL);
    }

    /* When the next line may be written, in ns: each one that is moves it on. */
    static int64_t due;

    static int may_write(int64_t now, int64_t each, int64_t most)
    {
        int64_t next, then = __atomic_load_n(&due, __ATOMIC_RELAXED);
        do {
            next = (then > now ? then : now) + each;
            if (next - now > most)
                return 0;
        } while (!__atomic_compare_exchange_n(&due, &then, next, 1, __ATOMIC_RELAXED,
                                              __ATOMIC_RELAXED));
        return 1;
    }
    """
    void note_stderr() nogil
    bint takes_lines() nogil
    void write_to_stderr(const char *text, int length) nogil
    bint may_write(int64_t now, int64_t each, int64_t most) nogil

cdef enum:
    SECOND = 1000000000     # ns
    AT_ONCE = 5             # lines in one second, after one in which there was none

cdef int64_t says       # atomic


cdef const char *name_of(const Refusal *refusal) noexcept nogil:
    if refusal.asker == NUMPY:
        return b" to NumPy"
    if refusal.asker == PYTHON:
        return b" to Python"
    if refusal.asker == MALLOC:
        return b" to malloc"
    return b" to C code" if refusal.asker == C_CODE else b""


cdef const char *why(Blocker blocker) noexcept nogil:
    if blocker == SYSTEM:
        return b"the system has not that much memory left"
    if blocker == DEVICE:
        return b"the system refused to map it"
    if blocker == LENGTH:
        return b"longer than one buffer can be"
    if blocker == RESOURCES:
        return b"the system allows no further resource"
    if blocker == FORK:
        return b"Metal does not work in a forked child process"
    if blocker == RESERVATION:
        return b"the rest is reserved for others"
    if blocker == QUEUE:
        return b"other threads wait for memory, and come first"
    if blocker == POOL:
        return b"the limit for all processes together, or this one's maximum, does not allow it"
    if blocker == TEST:
        return b"a test wanted it to fail"
    return b""


cdef void put_limit(Line *line, const Refusal *refusal) noexcept nogil:
    if refusal.limit >> 63:
        put(line, b"no memory limit")
        return
    put(line, b"memory limit ")
    put_size(line, refusal.limit)
    if refusal.policy == POLICY_STRICT:
        put(line, b" (strict)")
    else:
        put(line, b" (guideline)" if refusal.policy == POLICY_GUIDELINE else b" (wait)")


cdef const char *name_in(const char *path) noexcept nogil:
    cdef const char *name = path
    while path[0]:
        path += 1
        if path[-1] == b"/":
            name = path
    return name


cdef void put_name(Line *line, const char *name) noexcept nogil:
    """Whatever it has in it: no sequence for a terminal, and no other line."""
    cdef int first = line.length
    put(line, name)
    while first < line.length:
        if 0 < line.text[first] < 32 or line.text[first] == 127:
            line.text[first] = 32
        first += 1


cdef void put_holders(
    Line *line, const Refusal *refusal, const CallTree *calls
) noexcept nogil:
    cdef const Call *site
    cdef int i
    for i in range(MOST_HOLDERS):
        if refusal.holders[i].call == NO_CALL:
            break
        site = &calls.calls[calls.calls[refusal.holders[i].call].site]
        put(line, b"; held by " if i == 0 else b", ")
        put_name(line, calls_function(calls, site))
        if site.file:
            put(line, b" (")
            put_name(line, name_in(calls_file(calls, site)))
            put(line, b":")
            put_number(line, site.line, 10)
            put(line, b")")
        put(line, b" ")
        put_size(line, refusal.holders[i].bytes)


cdef void sentence_put(
    Line *line, const Refusal *refusal, const CallTree *calls
) noexcept nogil:
    put(line, b"memlimits: refused ")
    put_size(line, refusal.requested)
    if refusal.requested >= 1024:
        put(line, b" (")
        put_grouped(line, refusal.requested)
        put(line, b" bytes)")
    put(line, name_of(refusal))
    put(line, b": ")
    if refusal.blocked_by == BUDGET:
        put(line, b"budget '")
        put(line, refusal.budget)
        put(line, b"' of ")
        put_size(line, refusal.budget_limit)
        put(line, b", in use ")
        put_size(line, refusal.budget_active)
        put(line, b" of it; ")
    elif refusal.blocked_by != LIMIT:
        put(line, why(refusal.blocked_by))
        put(line, b"; ")
    put_limit(line, refusal)
    put(line, b", in use ")
    put_size(line, refusal.active + refusal.cache + refusal.slack)
    if refusal.library:
        put(line, b", for MLX ")
        put_size(line, refusal.library)
    if refusal.blocked_by == POOL:
        put(line, b", by other processes ")
        put_size(line, refusal.others)
    if refusal.count == COUNT_PROCESS:
        put(line, b", the process holds ")
        put_size(line, refusal.process)
        if refusal.untouched:
            put(line, b", given and not touched yet ")
            put_size(line, refusal.untouched)
    elif refusal.count == COUNT_RESIDENT:
        put(line, b", of it not touched ")
        put_size(line, refusal.untouched)
    if refusal.kept_back:
        put(line, b", kept back for errors ")
        put_size(line, refusal.kept_back)
    put_holders(line, refusal, calls)


cdef void sentence_note_stderr() noexcept nogil:
    note_stderr()


cdef bint sentence_may_go_to_stderr() noexcept nogil:
    return takes_lines()


cdef void sentence_say(const Refusal *refusal, const CallTree *calls) noexcept nogil:
    cdef int before = errno.errno
    cdef Line line
    if load_count(&says) and takes_lines() and may_write(
        <int64_t> time_of(CLOCK_COARSE), SECOND, AT_ONCE * <int64_t> SECOND
    ):
        line.length = 0
        sentence_put(&line, refusal, calls)
        put(&line, b"\n")
        write_to_stderr(line.text, line.length)
    errno.errno = before


cdef void sentence_say_from_now_on(bint on) noexcept nogil:
    store_count(&says, on)
