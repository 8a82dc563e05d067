"""Processes that draw on one pool as fast as they can, with books of their own.

Each member takes and gives back random numbers of units, by the very functions of the library
(_ledger/pool). Without kills one sum over all members is kept besides, in one atomic number, and
looked at in every operation. With kills, members end by SIGKILL, each at a random access to a word
of the pool; now and then all are stopped, and what they wrote down is added up. Either has to be
within the limit. At the end everybody is gone, and so has to be all that they held.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.string cimport memset
from posix.types cimport pid_t
from posix.unistd cimport _exit, fork, getpid

from memlimits._device.mlim cimport MLIM_OK
from memlimits._device.shared cimport (
    mlim_shared, mlim_shared_create, mlim_shared_is_taken, mlim_shared_open, mlim_shared_take,
    mlim_shared_words,
)
from memlimits._ledger.pool cimport (
    VANISHED, Pool, PoolHeader, PoolSums, pool_attach, pool_bury, pool_draw, pool_held,
    pool_make_header, pool_settle, pool_size, pool_sums, pool_take, pool_used,
)

cdef enum:
    MOST = 64           # members

cdef extern from *:
    """
    #include <sched.h>
    #include <signal.h>
    #include <stdio.h>
    #include <sys/mman.h>
    #include <sys/wait.h>
    #include <time.h>
    #include <unistd.h>

    /* Shared by all members, who do not share it with the library. */
    struct books {
        int64_t total;      /* of those whom nobody kills */
        int64_t highest;
        int64_t operations, refused;
        int64_t killed;
        /* Written after it was taken, and before it is given back. */
        struct { int64_t used; char line[120]; } member[64];
    };

    static struct books *books;
    static uint64_t state;
    static int64_t until_end;   /* accesses to words until this process ends itself; 0: never */

    static uint64_t next_random(void)
    {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }

    /* Before each access to a word. Others are to come in between, on few processors, too. */
    void drill_point(void)
    {
        static unsigned int accesses;
        if (++accesses % 61 == 0)
            sched_yield();
        if (until_end && --until_end == 0)
            raise(SIGKILL);
    }

    static int64_t add(int64_t *to, int64_t n)
    {
        return __atomic_add_fetch(to, n, __ATOMIC_SEQ_CST);
    }

    static void put(int64_t *to, int64_t n)
    {
        __atomic_store_n(to, n, __ATOMIC_SEQ_CST);
    }

    static int64_t get(int64_t *from)
    {
        return __atomic_load_n(from, __ATOMIC_SEQ_CST);
    }

    static void raise_to(int64_t *highest, int64_t n)
    {
        int64_t before = get(highest);
        while (n > before && !__atomic_compare_exchange_n(highest, &before, n, 1, __ATOMIC_SEQ_CST,
                                                          __ATOMIC_SEQ_CST))
            ;
    }

    static void fail(const char *what, int64_t number, int64_t other)
    {
        fprintf(stderr, "%s: %lld, %lld\\n", what, (long long)number, (long long)other);
        _exit(2);
    }

    static void open_books(void)
    {
        books = (struct books *)mmap(NULL, sizeof *books, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }

    static void wait_until_stopped(pid_t pid)
    {
        siginfo_t info;
        waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT);
    }

    static void a_moment(void)
    {
        struct timespec time = {0, 2000000};
        nanosleep(&time, NULL);
    }
    """
    uint64_t state
    int64_t until_end
    uint64_t next_random() nogil
    int64_t add(int64_t *to, int64_t n) nogil
    void put(int64_t *to, int64_t n) nogil
    int64_t get(int64_t *place) nogil
    void raise_to(int64_t *highest, int64_t n) nogil
    void fail(const char *what, int64_t number, int64_t other) nogil
    void open_books() nogil
    void wait_until_stopped(pid_t pid) nogil
    void a_moment() nogil
    int64_t *TOTAL "&books->total"
    int64_t *HIGHEST "&books->highest"
    int64_t *OPERATIONS "&books->operations"
    int64_t *REFUSED "&books->refused"
    int64_t *USED_BY "(&books->member[0].used)"
    int kill(pid_t pid, int signal) nogil
    pid_t waitpid(pid_t pid, int *status, int options) nogil
    bint WIFSIGNALED(int status) nogil
    int WTERMSIG(int status) nogil
    int SIGSTOP, SIGCONT, SIGKILL, WNOHANG

cdef enum:
    STRIDE = 16         # numbers from one member's to the next


cdef int64_t *used_by(int slot) noexcept nogil:
    return USED_BY + STRIDE * slot


cdef struct Member:
    Pool pool
    int slot
    int64_t limit
    uint64_t used
    bint mortal


cdef void grow(Member *member, uint64_t n) noexcept nogil:
    cdef uint64_t want = member.used + n
    if not pool_draw(&member.pool, want, next_random() % 64) or not pool_take(&member.pool, want):
        add(REFUSED, 1)
        return
    member.used = want
    put(used_by(member.slot), want)
    if not member.mortal:
        if add(TOTAL, n) > member.limit:
            fail(b"in use, and above the limit", get(TOTAL), member.limit)
        raise_to(HIGHEST, get(TOTAL))


cdef void shrink(Member *member, uint64_t n) noexcept nogil:
    member.used -= n
    put(used_by(member.slot), member.used)
    if not member.mortal:
        add(TOTAL, -<int64_t> n)
    pool_settle(&member.pool, member.used, next_random() % 64)


cdef void work(
    const char *path, int slot, int64_t limit, uint64_t operations, bint mortal, uint64_t seed
) noexcept nogil:
    """A member's whole life."""
    global state, until_end
    cdef Member member
    cdef mlim_shared *shared = NULL
    cdef uint64_t n, done = 0
    if mlim_shared_open(path, pool_size(), &shared, NULL) != MLIM_OK:
        fail(b"the file cannot be opened", slot, 0)
    state = seed * <uint64_t> 0x9E3779B97F4A7C15 + slot + 1
    memset(&member, 0, sizeof(member))
    pool_attach(&member.pool, mlim_shared_words(shared))
    member.slot, member.limit, member.mortal = slot, limit, mortal
    if not mlim_shared_take(shared, slot):
        fail(b"the slot is another's", slot, 0)
    member.pool.mine = member.pool.members + slot
    member.pool.mine.most = UINT64_MAX
    member.pool.mine.pid = getpid()
    next_random()
    until_end = 1 + next_random() % 30000 if mortal else 0
    while mortal or done < operations:
        n = next_random() % (limit // 4) + 1
        if member.used >= n and next_random() % 2:
            shrink(&member, n)
        else:
            grow(&member, n)
        if pool_used(member.pool.mine) < member.used:
            fail(b"the slot says less than is used", pool_used(member.pool.mine), member.used)
        if pool_held(member.pool.mine) < member.used:
            fail(b"less is held than is used", pool_held(member.pool.mine), member.used)
        done += 1
        if done % 64 == 0:
            add(OPERATIONS, 64)
    shrink(&member, member.used)
    pool_settle(&member.pool, 0, 0)
    _exit(0)


cdef pid_t begin(
    const char *path, int slot, int64_t limit, uint64_t operations, bint mortal, uint64_t seed
) noexcept nogil:
    cdef pid_t pid = fork()
    if pid == 0:
        work(path, slot, limit, operations, mortal, seed)
    return pid


cdef void add_up(Pool *pool, const pid_t *pids, int members, int64_t limit) noexcept nogil:
    """Stops all, so that what they wrote down is of one instant."""
    cdef int64_t total = 0, held = 0
    cdef int i
    for i in range(members):
        kill(pids[i], SIGSTOP)
    for i in range(members):
        wait_until_stopped(pids[i])
        total += get(used_by(i))
        held += pool_used(pool.members + i)
        if get(used_by(i)) > <int64_t> pool_used(pool.members + i):
            fail(b"more is used than the slot says", get(used_by(i)), pool_used(pool.members + i))
    if max(total, held) > limit:
        fail(b"in use while all are stopped, and above the limit", total, held)
    raise_to(HIGHEST, total)
    for i in range(members):
        kill(pids[i], SIGCONT)


cdef uint64_t with_kills(
    Pool *pool, mlim_shared *shared, const char *path, int members, int64_t limit, uint64_t kills,
    uint64_t seed
) noexcept nogil:
    cdef pid_t pids[MOST]
    cdef uint64_t killed = 0
    cdef int i, status = 0
    for i in range(members):
        pids[i] = begin(path, i, limit, 0, True, seed + i)
    while killed < kills:
        a_moment()
        add_up(pool, pids, members, limit)
        for i in range(members):
            if waitpid(pids[i], &status, WNOHANG) != pids[i]:
                continue
            if not WIFSIGNALED(status) or WTERMSIG(status) != SIGKILL:
                fail(b"a member did not end by its signal", status, i)
            if mlim_shared_is_taken(shared, i):
                fail(b"the slot of one that ended is taken", i, 0)
            put(used_by(i), 0)
            pool_bury(pool, pool.members + i, VANISHED)
            killed += 1
            pids[i] = begin(path, i, limit, 0, True, seed + members + killed)
    for i in range(members):
        kill(pids[i], SIGKILL)
        waitpid(pids[i], &status, 0)
        pool_bury(pool, pool.members + i, VANISHED)
    return killed


cdef void without_kills(
    const char *path, int members, int64_t limit, uint64_t operations, uint64_t seed
) noexcept nogil:
    cdef pid_t pids[MOST]
    cdef int i, status = 0
    for i in range(members):
        pids[i] = begin(path, i, limit, operations, False, seed + i)
    for i in range(members):
        waitpid(pids[i], &status, 0)
        if status != 0:
            fail(b"a member failed", status, i)


def drill(str path, int members, int64_t limit, uint64_t operations=0, uint64_t kills=0,
          uint64_t seed=1):
    """Run it in a process made for it, which it ends with status 2 where a rule does not hold.

    Returns the number of operations, of refusals, of kills, and the most that was in use at once.
    """
    cdef bytes where = path.encode()
    cdef const char *at = where
    cdef PoolHeader header
    cdef Pool pool
    cdef PoolSums sums
    cdef mlim_shared *shared = NULL
    cdef uint64_t killed = 0
    assert members <= MOST
    open_books()
    pool_make_header(&header, b"", limit * 4096, 4096, UINT64_MAX)
    assert mlim_shared_create(
        at, 0o600, pool_size(), &header, sizeof(header), NULL) == MLIM_OK
    assert mlim_shared_open(at, pool_size(), &shared, NULL) == MLIM_OK
    memset(&pool, 0, sizeof(pool))
    pool_attach(&pool, mlim_shared_words(shared))
    pool.header.highest = members
    with nogil:
        if kills:
            killed = with_kills(&pool, shared, at, members, limit, kills, seed)
        else:
            without_kills(at, members, limit, operations, seed)
    pool_sums(&pool, &sums)
    if sums.held or sums.used:
        fail(b"held when all have ended", sums.held, sums.used)
    return get(OPERATIONS), get(REFUSED), killed, get(HIGHEST)
