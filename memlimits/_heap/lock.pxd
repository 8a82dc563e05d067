"""The lock of what one thread, its owner, wants all the time and others seldom do.

Taken as a spin lock it costs an atomic exchange, which costs more than all else on the fast path.
So an owner that was left alone for long enough stops taking it (the lock is *biased*): it says in a
plain store that it is inside. Whoever else wants the lock takes it, ends the bias, and makes the
kernel put a memory barrier into every running thread of the process (membarrier): then either the
owner has seen that the bias is over, or its store is to be seen, and is waited for.

Without membarrier no lock is ever biased.
"""

cdef extern from *:
    """
    #include <errno.h>
    #include <sched.h>
    #if defined(__linux__) && __has_include(<linux/membarrier.h>)
    #include <linux/membarrier.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static inline int register_membarrier(void)
    {
        int before = errno; /* whoever frees a block is not to find another */
        int status = (int)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
        errno = before;
        return status;
    }
    static inline void all_threads_barrier(void)
    {
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    }
    #else
    static inline int register_membarrier(void)
    {
        return -1;
    }
    static inline void all_threads_barrier(void)
    {
    }
    #endif
    /* glibc has it from 2.32 on. It may be there also where this was compiled for an older one. */
    #ifdef __GLIBC__
    extern char __libc_single_threaded __attribute__((weak));
    #define has_one_thread() (&__libc_single_threaded != NULL && __libc_single_threaded)
    #else
    #define has_one_thread() 0
    #endif

    /* Times that an owner takes the lock before it is biased again: ending that costs the two
     * threads about as much, 1 to 10 us and more where many are running. */
    #ifndef MEMLIMITS_TIMES_ALONE
    #define MEMLIMITS_TIMES_ALONE (1 << 14)
    #endif

    enum {
        TIMES_ALONE = MEMLIMITS_TIMES_ALONE,
        /* And before a process with several threads asks for membarrier at all, which takes
         * the kernel 10 ms and more. With one thread it is nothing. */
        TIMES_TO_REGISTER = 4 * TIMES_ALONE,
    };

    typedef struct owned_lock {
        const void *owner; /* tells a thread from others; NULL: nobody's */
        int locked;
        int biased;        /* set by the owner and ended by others, both with `locked` set */
        int busy;          /* the owner is inside, or looks whether the lock is biased */
        int times;         /* that the owner took it since a bias ended */
    } owned_lock;

    static int barriers; /* 0: not asked for; 1: to be had; -1: not to be had */

    /* Spins; for the lock alone. */
    static inline void owned_lock_take(owned_lock *lock)
    {
        for (int tries = 0; __atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE);)
            while (__atomic_load_n(&lock->locked, __ATOMIC_RELAXED))
                if (++tries % 64 == 0)
                    sched_yield(); /* its holder may wait for this core */
    }

    /* The same at once, or not at all. Its owner may be inside still. */
    static inline int owned_lock_take_at_once(owned_lock *lock)
    {
        return !__atomic_load_n(&lock->locked, __ATOMIC_RELAXED) &&
               !__atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE);
    }

    static inline void owned_lock_give(owned_lock *lock)
    {
        __atomic_store_n(&lock->locked, 0, __ATOMIC_RELEASE);
    }

    /* With the lock taken by another than the owner: whether it takes a barrier and a wait. */
    static inline int owned_lock_end_bias(owned_lock *lock)
    {
        int biased = __atomic_load_n(&lock->biased, __ATOMIC_RELAXED);
        __atomic_store_n(&lock->biased, 0, __ATOMIC_RELAXED);
        return biased;
    }

    static inline void owned_lock_wait(const owned_lock *lock)
    {
        while (__atomic_load_n(&lock->busy, __ATOMIC_ACQUIRE))
            sched_yield();
    }

    /* The lock, for any thread but its owner. */
    __attribute__((noinline, cold, unused)) static void owned_lock_take_from(owned_lock *lock)
    {
        owned_lock_take(lock);
        if (owned_lock_end_bias(lock)) {
            all_threads_barrier();
            owned_lock_wait(lock);
        }
    }

    /* The lock, for its owner, who is about to be without it if others let it. */
    __attribute__((noinline, cold, unused)) static void owned_lock_take_often(owned_lock *lock)
    {
        int state = __atomic_load_n(&barriers, __ATOMIC_RELAXED);
        if (state == 0 && (has_one_thread() || lock->times >= TIMES_TO_REGISTER)) {
            state = register_membarrier() == 0 ? 1 : -1;
            __atomic_store_n(&barriers, state, __ATOMIC_RELAXED);
        }
        owned_lock_take(lock);
        if (lock->times < TIMES_TO_REGISTER)
            lock->times++;
        if (lock->times >= TIMES_ALONE && state > 0) {
            lock->times = 0;
            __atomic_store_n(&lock->biased, 1, __ATOMIC_RELAXED);
        }
    }

    /* Without the lock, for its owner, if others let it. `leave` needs the answer. */
    static inline int owned_lock_try(owned_lock *lock)
    {
        __atomic_store_n(&lock->busy, 1, __ATOMIC_RELAXED);
        __asm__ volatile("" ::: "memory"); /* the other half is all_threads_barrier */
        if (__builtin_expect(__atomic_load_n(&lock->biased, __ATOMIC_ACQUIRE), 1))
            return 1;
        __atomic_store_n(&lock->busy, 0, __ATOMIC_RELAXED);
        return 0;
    }

    /* The lock, for any thread; `self` is what tells this one. */
    static inline int owned_lock_enter(owned_lock *lock, const void *self)
    {
        if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) != self)
            owned_lock_take_from(lock);
        else if (owned_lock_try(lock))
            return 1;
        else
            owned_lock_take_often(lock);
        return 0;
    }

    static inline void owned_lock_leave(owned_lock *lock, int without)
    {
        __atomic_store_n(without ? &lock->busy : &lock->locked, 0, __ATOMIC_RELEASE);
    }

    /* With the lock taken, or nobody else about: a new owner, which is this thread, or none. */
    static inline void owned_lock_set_owner(owned_lock *lock, const void *owner)
    {
        int biased = owner && __atomic_load_n(&barriers, __ATOMIC_RELAXED) > 0;
        lock->times = 0;
        __atomic_store_n(&lock->busy, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&lock->biased, biased, __ATOMIC_RELAXED);
        __atomic_store_n(&lock->owner, owner, __ATOMIC_RELAXED);
    }
    """
    ctypedef struct owned_lock:
        const void *owner
    bint owned_lock_try(owned_lock *lock) nogil
    int owned_lock_enter(owned_lock *lock, const void *self) nogil
    void owned_lock_leave(owned_lock *lock, int without) nogil

    # Several at once, whatever their owners: take each, end their bias, wait for each.
    void owned_lock_take(owned_lock *lock) nogil
    bint owned_lock_take_at_once(owned_lock *lock) nogil
    bint owned_lock_end_bias(owned_lock *lock) nogil
    void all_threads_barrier() nogil
    void owned_lock_wait(const owned_lock *lock) nogil
    void owned_lock_give(owned_lock *lock) nogil

    # With the lock taken.
    void owned_lock_set_owner(owned_lock *lock, const void *owner) nogil
