"""This process as a member of a pool: how it comes and goes, and hears of others.

The words of the pool are arithmetic (_ledger/pool). What takes the system's help is here: the lock
that says that a member lives, those that ended without leaving, a thread that answers when others
want idle memory or have made room, and what a fork makes of all that. `members` is the lock for it,
taken before all others of the core's. One core is a member: that of the default allocator.
"""

from libc.stdint cimport uint64_t

from memlimits._device.shared cimport mlim_shared
from memlimits._engine.core cimport Core
from memlimits._ledger.pool cimport Pool
from memlimits._ledger.queue cimport Waiter

cdef enum Joined:
    JOINED
    NO_SLOT         # all are taken
    NO_ROOM         # what is held, or guaranteed, does not fit
    IS_MEMBER       # already, of this pool or another
    NO_FILE         # the program closed it, and it has no name any more

# Takes the file over where it joins. What is held counts from then on, whether it fits or not where
# that is `forced`. `least` and `most` are bytes; UINT64_MAX for all.
cdef extern Joined members_join(
    Core *core, mlim_shared *shared, uint64_t least, uint64_t most, uint64_t priority,
    bint forced) noexcept nogil
# False: it is no member.
cdef extern bint members_leave() noexcept nogil
# The file, for who reads it, until it is given back, which is to be done in any case; NULL where
# the process is no member.
cdef extern mlim_shared *members_borrow() noexcept nogil
cdef extern void members_give_back() noexcept nogil

# Before growth by about n, without a lock: a forked child joins, what others asked for goes back,
# and a thread listens from now on.
cdef inline void members_step(Core *core, uint64_t n) noexcept nogil:
    if core.pool.header != NULL:
        members_step_in_pool(n)
cdef extern void members_step_in_pool(uint64_t n) noexcept nogil
# The pool had no room for a request: buries who ended, asks for idle memory and waits a moment for
# it. Under the policy to wait it leaves that to the caller, unless that `never_queues`, since other
# threads here need what it keeps. Whether to try again. And once it is over.
cdef extern bint members_seek(Waiter *waiter, bint never_queues) noexcept nogil
cdef extern void members_found(Waiter *waiter) noexcept nogil
# Under members_borrow, before others are buried: whether this process has its slot yet, and again
# its lock, if it closed the file that it did not open.
cdef extern bint members_are_in() noexcept nogil
# Buries the members of a pool that ended without leaving; how many these were.
cdef extern uint64_t members_bury_ended(mlim_shared *shared, Pool *pool) noexcept nogil

cdef extern void members_before_fork() noexcept nogil
cdef extern void members_after_fork(bint child) noexcept nogil
