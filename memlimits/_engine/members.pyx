from libc.stdint cimport UINT64_MAX, uint32_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME
from posix.unistd cimport usleep

from memlimits._base.arithmetic cimport saturating_sub
from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport (
    add_word, load_word, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock, replace_word, store_word, time_of,
)
from memlimits._device.shared cimport (
    mlim_identity, mlim_identity_of_self, mlim_shared_close, mlim_shared_command,
    mlim_shared_is_mapped_by, mlim_shared_is_taken, mlim_shared_leave, mlim_shared_reopen,
    mlim_shared_take, mlim_shared_wait, mlim_shared_wake, mlim_shared_words,
)
from memlimits._engine.core cimport (
    core_count_wait, core_count_waited, core_detach, core_resume, core_return, core_stop,
    core_wake, core_wake_others,
)
from memlimits._engine.parts cimport parts_cut
from memlimits._heap.heap cimport heap_do_without
from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport POLICY_WAIT
from memlimits._ledger.pool cimport (
    LEFT, POOL_SLOTS, VANISHED, Pool, PoolMember, PoolSums, pool_ask, pool_attach, pool_bury,
    pool_bytes, pool_draw, pool_end, pool_force, pool_guarantee, pool_limit, pool_sums, pool_take,
    pool_ticket, pool_units, pool_used, pool_wait, pool_wait_no_more, pool_wire,
)
from memlimits._ledger.share cimport share_draw, share_none, share_settle_closely, share_wanted

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>

    static pthread_mutex_t members = PTHREAD_MUTEX_INITIALIZER;

    /* A thread that takes no signals and little room. */
    static int start_listener(pthread_t *thread, void *(*function)(void *))
    {
        pthread_attr_t attributes;
        sigset_t all, before;
        sigfillset(&all);
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 256 << 10);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int result = pthread_create(thread, &attributes, function, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    #ifdef __linux__
        /* Whoever lists the process's threads is told whose it is. */
        if (result == 0)
            pthread_setname_np(*thread, "memlimits");
    #endif
        return result == 0;
    }
    """
    ctypedef unsigned long pthread_t
    pthread_mutex_t members
    bint start_listener(pthread_t *thread, void *(*function)(void *) noexcept nogil) nogil
    int pthread_join(pthread_t thread, void **result) nogil
    int atexit(void (*function)() noexcept nogil) nogil

cdef enum:
    # A process with less has nothing to give that is worth a thread.
    WORTH_A_THREAD = 4 << 20
    A_MOMENT = 100000000    # ns that a request waits for idle memory of others, in all
    LOOK_EVERY = 20000000
    ASK_EVERY = 250000000
    SECOND = 1000000000

cdef Core *core
cdef mlim_shared *file
cdef pthread_t listener
cdef uint32_t *bell         # that it hears, of a slot that may be nobody's by now
cdef bint listens, ends     # it runs; it is to end. Guarded by `members`
cdef uint64_t inside        # threads that look at the words under no lock: they stay mapped
cdef bint leaves            # at exit
cdef uint64_t its_least, its_most, its_priority


cdef uint64_t slot_of(const Pool *pool, const PoolMember *member) noexcept nogil:
    return member - pool.members


# ---- those that ended ----

cdef bint is_gone(mlim_shared *shared, const PoolMember *member) noexcept nogil:
    """With the lock of its slot: whether who was there is."""
    cdef mlim_identity who
    who.pid, who.started, who.space = member.pid, member.started, member.space
    # One that closed all files it found has lost its lock, and lives.
    return not mlim_shared_is_mapped_by(shared, &who)


cdef bint bury(mlim_shared *shared, Pool *pool, PoolMember *member) noexcept nogil:
    """The lock of the slot keeps others out of it meanwhile."""
    cdef uint64_t slot = slot_of(pool, member)
    cdef bint gone = False
    if mlim_shared_is_taken(shared, slot) or not mlim_shared_take(shared, slot):
        return False
    if load_word(&member.pid) and is_gone(shared, member):
        pool_bury(pool, member, VANISHED)
        gone = True
    mlim_shared_leave(shared, slot)
    return gone


cdef uint64_t members_bury_ended(mlim_shared *shared, Pool *pool) noexcept nogil:
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    cdef uint64_t buried = 0
    while member < behind:
        if member != pool.mine and load_word(&member.pid):
            buried += bury(shared, pool, member)
        member += 1
    return buried


# ---- coming and going ----

cdef bint members_are_in() noexcept nogil:
    cdef mlim_identity self
    cdef PoolMember *mine = core.pool.mine
    if mine == NULL or not mlim_shared_reopen(file):
        return mine != NULL
    mlim_identity_of_self(&self)
    if load_word(&mine.pid) == self.pid and mine.started == self.started and (
        mlim_shared_take(file, slot_of(&core.pool, mine))
    ):
        return True
    # While the file was closed somebody took it for ended who could not look closer.
    core_stop(core)
    share_none(&core.limits, &core.pool)
    core_resume(core, False)
    return False


cdef void move_in(PoolMember *member) noexcept nogil:
    """Under `members`, with the lock of the slot, which is nobody's."""
    cdef mlim_identity self
    cdef uint64_t highest = load_word(&core.pool.header.highest)
    mlim_identity_of_self(&self)
    memset(member, 0, sizeof(PoolMember))
    member.started, member.space = self.started, self.space
    member.most = pool_units(&core.pool, its_most) if its_most != UINT64_MAX else UINT64_MAX
    member.priority = its_priority
    member.joined = time_of(CLOCK_REALTIME)
    mlim_shared_command(member.command, sizeof(member.command))
    store_word(&member.pid, self.pid)
    while highest <= slot_of(&core.pool, member) and not replace_word(
        &core.pool.header.highest, highest, slot_of(&core.pool, member) + 1
    ):
        highest = load_word(&core.pool.header.highest)


cdef void bury_earlier_self() noexcept nogil:
    """Under `members`: this process was a member before it replaced its program (exec)."""
    cdef PoolMember *member = core.pool.members
    cdef PoolMember *behind = pool_end(&core.pool)
    cdef mlim_identity self
    mlim_identity_of_self(&self)
    while member < behind:
        if member != core.pool.mine and load_word(&member.pid) == self.pid and (
            member.started == self.started and member.space == self.space
        ):
            pool_bury(&core.pool, member, LEFT)
        member += 1


cdef PoolMember *take_slot() noexcept nogil:
    """Under `members`."""
    cdef PoolMember *member = core.pool.members
    cdef PoolMember *behind = member + POOL_SLOTS
    while member < behind:
        if load_word(&member.pid) == 0 and mlim_shared_take(file, slot_of(&core.pool, member)):
            if load_word(&member.pid) == 0:
                move_in(member)
                return member
            mlim_shared_leave(file, slot_of(&core.pool, member))
        member += 1
    return NULL


cdef Joined become_member(bint forced) noexcept nogil:
    """Under `members`."""
    cdef PoolMember *mine
    cdef Joined joined = JOINED
    cdef uint64_t want
    if not mlim_shared_reopen(file):
        return NO_FILE
    bury_earlier_self()
    mine = take_slot()
    if mine == NULL and members_bury_ended(file, &core.pool):
        mine = take_slot()
    if mine == NULL:
        return NO_SLOT
    core_stop(core)
    core.pool.mine = mine
    pool_wire(&core.pool, core.limits.wired, 0)
    want = share_wanted(&core.limits, &core.pool, 0, 0)
    if not pool_guarantee(&core.pool, pool_units(&core.pool, its_least)) or not (
        pool_draw(&core.pool, want, 0) and pool_take(&core.pool, want)
    ):
        joined = NO_ROOM
    if joined == NO_ROOM and forced:
        pool_force(&core.pool, want)
        joined = JOINED
    if joined == JOINED:
        share_draw(&core.limits, &core.pool, 0, 0, True)
    else:
        pool_bury(&core.pool, mine, LEFT)
        core.pool.mine = NULL
    core_resume(core, False)
    if joined != JOINED:
        mlim_shared_leave(file, slot_of(&core.pool, mine))
    return joined


cdef void move_out() noexcept nogil:
    """Under `members`: no member any more, nor is a forked child one."""
    cdef PoolMember *mine
    core_stop(core)
    mine = core.pool.mine
    if mine != NULL:
        pool_bury(&core.pool, mine, LEFT)
    core.pool.header = NULL
    share_none(&core.limits, &core.pool)
    core_wake(core)
    core_resume(core, False)


cdef void leave_at_exit() noexcept nogil:
    own_begin()
    pthread_mutex_lock(&members)
    # The file stays mapped, for the thread that listens: it does until the process is gone.
    if file != NULL:
        move_out()
    pthread_mutex_unlock(&members)
    own_end()


cdef Joined members_join(
    Core *joining, mlim_shared *shared, uint64_t least, uint64_t most, uint64_t priority,
    bint forced
) noexcept nogil:
    global core, file, its_least, its_most, its_priority, leaves
    cdef Joined joined = IS_MEMBER
    own_begin()
    pthread_mutex_lock(&members)
    if file == NULL:
        core, file = joining, shared
        its_least, its_most, its_priority = least, most, priority
        pool_attach(&core.pool, mlim_shared_words(shared))
        joined = become_member(forced)
        if joined == JOINED and not leaves:
            leaves = atexit(leave_at_exit) == 0
        if joined != JOINED:
            core.pool.header = NULL
            core, file = NULL, NULL
    pthread_mutex_unlock(&members)
    own_end()
    return joined


cdef void end_listener() noexcept nogil:
    """Under `members`, which it drops meanwhile."""
    global listens, ends
    while ends:
        # Another thread is about it, and nobody else may wait for the end of the same thread.
        pthread_mutex_unlock(&members)
        usleep(100)
        pthread_mutex_lock(&members)
    if not listens:
        return
    ends = True
    mlim_shared_wake(bell)
    pthread_mutex_unlock(&members)
    pthread_join(listener, NULL)
    pthread_mutex_lock(&members)
    listens = ends = False


cdef bint members_leave() noexcept nogil:
    global file
    cdef bint was
    own_begin()
    pthread_mutex_lock(&members)
    end_listener()
    was = file != NULL and core.pool.header != NULL
    if was:
        move_out()
        # Until the file is closed nobody joins: its locks go with any that is open of it.
        pthread_mutex_unlock(&members)
        while load_word(&inside):
            usleep(1000)
        pthread_mutex_lock(&members)
        mlim_shared_close(file)
        file = NULL
    pthread_mutex_unlock(&members)
    own_end()
    return was


cdef mlim_shared *members_borrow() noexcept nogil:
    own_begin()
    pthread_mutex_lock(&members)
    return file


cdef void members_give_back() noexcept nogil:
    pthread_mutex_unlock(&members)
    own_end()


# ---- hearing of others ----

cdef uint64_t asked_of_it() noexcept nogil:
    cdef uint64_t n = 0
    pthread_mutex_lock(&core.heaps.lock)
    if core.pool.mine != NULL:
        n = load_word(&core.pool.mine.asked)
    pthread_mutex_unlock(&core.heaps.lock)
    return n


cdef void answer() noexcept nogil:
    """Gives idle memory back that others asked for."""
    cdef Resource *detached
    cdef Resource *resource
    cdef uint64_t n = asked_of_it()
    cdef uint64_t returned = 0
    if n == 0:
        return
    core_stop(core)
    parts_cut(core)
    detached = core_detach(core, n)
    resource = detached
    while resource != NULL:
        returned += resource.bytes
        resource = resource.next
    if core.pool.mine != NULL:
        # Counted before who asked for it can have it.
        add_word(&core.pool.mine.returned, returned)
        add_word(&core.pool.header.moved, returned)
    core_resume(core, False)
    core_return(core, detached)
    core_stop(core)
    if core.pool.mine != NULL:
        share_settle_closely(&core.limits, &core.pool)
        store_word(&core.pool.mine.asked, 0)
        core_wake_others(core)
    core_resume(core, False)


cdef void *listen(void *_nothing) noexcept nogil:
    cdef uint32_t heard = bell[0] - 1
    own_begin()
    heap_do_without(&core.heaps)
    while not ends:
        if heard == bell[0]:
            mlim_shared_wait(bell, heard, <uint64_t> 60 * SECOND)
        heard = bell[0]
        if ends:
            break
        answer()
        # What others gave back may be what a thread here waits for; and what is freed from now on
        # goes back, while others wait.
        core_stop(core)
        core_wake(core)
        core_resume(core, False)
    own_end()
    return NULL


cdef void begin_to_listen() noexcept nogil:
    """Under `members`."""
    global listens, bell
    if listens or core.pool.mine == NULL:
        return
    bell = &core.pool.mine.bell
    listens = start_listener(&listener, listen)
    core.pool.mine.listens = listens


cdef bint has_to_step(uint64_t n) noexcept nogil:
    if core.pool.mine == NULL:
        return True
    return not listens and (
        core.limits.footprint + n >= WORTH_A_THREAD or asked_of_it() > 0)


cdef void members_step_in_pool(uint64_t n) noexcept nogil:
    if core == NULL or not has_to_step(n):
        return
    own_begin()
    pthread_mutex_lock(&members)
    if core.pool.mine == NULL:
        end_listener()      # it hears the bell of a slot that this one has no more
    if core.pool.header != NULL and core.pool.mine == NULL and become_member(True) == NO_FILE:
        # Those that it was one of have ended, and the pool with them: it has its own limits.
        move_out()
    if core.limits.footprint + n >= WORTH_A_THREAD:
        begin_to_listen()
    pthread_mutex_unlock(&members)
    answer()
    own_end()


cdef bint may_be_asked(const Pool *pool, const PoolMember *member) noexcept nogil:
    return member != pool.mine and load_word(&member.pid) != 0 and pool_used(member) > 0


cdef bint ask_next(const Pool *pool, Waiter *waiter) noexcept nogil:
    """Asks those of the least priority that were not asked yet, if there are any."""
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    cdef uint64_t least = UINT64_MAX
    while member < behind:
        if may_be_asked(pool, member) and member.priority >= waiter.level:
            least = min(least, member.priority)
        member += 1
    member = pool.members
    while member < behind and least != UINT64_MAX:
        if may_be_asked(pool, member) and member.priority == least:
            pool_ask(member, waiter.grows)
            mlim_shared_wake(&member.bell)
        member += 1
    waiter.level = least + (least != UINT64_MAX)
    return least != UINT64_MAX


cdef bint all_answered(const Pool *pool) noexcept nogil:
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    while member < behind:
        if member != pool.mine and load_word(&member.pid) and member.listens and (
            load_word(&member.asked)
        ):
            return False
        member += 1
    return True


cdef bint look_for_ended(Waiter *waiter, uint64_t now) noexcept nogil:
    """Whether there were any."""
    cdef bint any = False
    if now - waiter.buried < LOOK_EVERY:
        return False
    waiter.buried = now
    own_begin()
    pthread_mutex_lock(&members)
    if core.pool.header != NULL and members_are_in():
        begin_to_listen()
        any = members_bury_ended(file, &core.pool) > 0
    pthread_mutex_unlock(&members)
    own_end()
    return any


cdef void take_place(Waiter *waiter, uint64_t now) noexcept nogil:
    """Others of this process that wait do it behind the first."""
    pthread_mutex_lock(&core.heaps.lock)
    if core.pool.mine != NULL and core.queue in (NULL, waiter):
        pool_wait(
            &core.pool, waiter.ticket, pool_units(&core.pool, waiter.grows), waiter.sought, now)
    pthread_mutex_unlock(&core.heaps.lock)


cdef bint ask_and_wait(const Pool *pool, Waiter *waiter, bint again) noexcept nogil:
    """Whether something may have come of it."""
    cdef uint32_t heard = pool.mine.bell
    if all_answered(pool) and not ask_next(pool, waiter):
        return again
    if not all_answered(pool):
        mlim_shared_wait(&pool.mine.bell, heard, 1000000)
    return True


cdef bint give_way() noexcept nogil:
    """What is kept back for errors is for what cannot wait, too. Whether there was any."""
    cdef bint any
    core_stop(core)
    any = not core.limits.yields and core.limits.wanted_back > 0
    core.limits.yields = True
    core.limits.kept_back = 0
    core_resume(core, False)
    return any


cdef bint others_could_help(const Pool *pool, uint64_t n) noexcept nogil:
    cdef PoolSums sums
    cdef uint64_t kept = saturating_sub(
        pool_bytes(pool, pool_used(pool.mine)), load_word(&core.limits.cache))
    pool_sums(pool, &sums)
    return sums.used > 0 and kept + n <= pool_limit(pool)


cdef void count_wait(Waiter *waiter) noexcept nogil:
    """Of one that is in no queue of its process."""
    if waiter.counted:
        return
    waiter.counted = True
    pthread_mutex_lock(&core.heaps.lock)
    core_count_wait(core)
    pthread_mutex_unlock(&core.heaps.lock)


cdef bint seek(Pool *pool, Waiter *waiter, bint never_queues) noexcept nogil:
    cdef uint64_t now = time_of(CLOCK_MONOTONIC)
    cdef bint again
    if waiter.sought == 0:
        waiter.sought = now
        waiter.ticket = pool_ticket(pool)
    again = look_for_ended(waiter, now)
    take_place(waiter, now)
    if core.limits.policy != POLICY_WAIT:
        return now - waiter.sought < A_MOMENT and ask_and_wait(pool, waiter, again)
    if now - waiter.asked > ASK_EVERY:
        waiter.asked, waiter.level = now, 0
    if all_answered(pool):
        ask_next(pool, waiter)
    if again or not never_queues:
        return again
    if waiter.grows <= core.limits.wanted_back and give_way():
        return True
    # Threads of this process cannot help, since this one keeps what they need. Other processes can.
    if now - waiter.sought > core.limits.wait_timeout or not others_could_help(pool, waiter.grows):
        return False
    count_wait(waiter)
    mlim_shared_wait(&pool.mine.bell, pool.mine.bell, LOOK_EVERY)
    return True


cdef bint members_seek(Waiter *waiter, bint never_queues) noexcept nogil:
    cdef Pool pool
    cdef bint again = False
    add_word(&inside, 1)
    if core != NULL:
        pthread_mutex_lock(&core.heaps.lock)
        pool = core.pool    # what another thread makes of that when it leaves is not to be met
        pthread_mutex_unlock(&core.heaps.lock)
        again = pool.mine != NULL and seek(&pool, waiter, never_queues)
    add_word(&inside, <uint64_t> -1)
    return again


cdef void members_found(Waiter *waiter) noexcept nogil:
    if waiter.sought == 0:
        return
    pthread_mutex_lock(&core.heaps.lock)
    if waiter.counted:
        core_count_waited(core, time_of(CLOCK_MONOTONIC) - waiter.sought)
    waiter.sought = 0
    if core.pool.mine != NULL and core.queue in (NULL, waiter):
        pool_wait_no_more(&core.pool)
        core_wake_others(core)
    pthread_mutex_unlock(&core.heaps.lock)


# ---- forks ----

cdef void members_before_fork() noexcept nogil:
    pthread_mutex_lock(&members)
    # Python warns of a fork of several threads, and would count this one.
    end_listener()


cdef void members_after_fork(bint child) noexcept nogil:
    global listens, ends, inside, its_least
    cdef Resource *resource
    if not child:
        pthread_mutex_unlock(&members)
        return
    pthread_mutex_init(&members, NULL)
    listens = ends = False
    inside = 0      # those threads are the parent's
    if core == NULL or core.pool.header == NULL:
        return
    # The child counts nothing until it grows, and is no member until then.
    resource = core.resources
    while resource != NULL:
        resource.inherited = True
        resource = resource.below
    core.limits.inherited = core.limits.footprint
    its_least = 0       # was promised to the parent
    share_none(&core.limits, &core.pool)
