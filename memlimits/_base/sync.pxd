"""What the core uses of pthread.h."""

from libc.stdint cimport int64_t, uint64_t
from posix.time cimport clock_gettime, clockid_t, timespec

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_rwlock_t:
        pass
    ctypedef int pthread_once_t
    ctypedef unsigned int pthread_key_t
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, const void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *condition)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int pthread_rwlock_init(pthread_rwlock_t *lock, const void *attributes)
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil,
                       void (*child)() noexcept nogil)
    int pthread_once(pthread_once_t *once, void (*function)() noexcept nogil)
    int pthread_key_create(pthread_key_t *key, void (*destructor)(void *) noexcept nogil)
    int pthread_setspecific(pthread_key_t key, const void *value)

# In ns.
cdef extern from *:
    """
    /* Steady, and to a few milliseconds, since reading it is to cost little. */
    #ifdef CLOCK_MONOTONIC_COARSE
    #define CLOCK_COARSE CLOCK_MONOTONIC_COARSE
    #else
    #define CLOCK_COARSE CLOCK_MONOTONIC
    #endif
    """
    clockid_t CLOCK_COARSE

cdef inline uint64_t time_of(clockid_t clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


# A condition that is waited for by a clock that nobody sets.
cdef extern from *:
    """
    static inline void steady_cond_init(pthread_cond_t *condition)
    {
    #ifdef __APPLE__
        pthread_cond_init(condition, NULL);
    #else
        pthread_condattr_t steady;
        pthread_condattr_init(&steady);
        pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
        pthread_cond_init(condition, &steady);
        pthread_condattr_destroy(&steady);
    #endif
    }

    static inline void steady_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                        uint64_t ns)
    {
        struct timespec time = {0, 0};
    #ifdef __APPLE__
        time.tv_sec = (time_t)(ns / 1000000000);
        time.tv_nsec = (long)(ns % 1000000000);
        pthread_cond_timedwait_relative_np(condition, mutex, &time);
    #else
        clock_gettime(CLOCK_MONOTONIC, &time);
        ns += (uint64_t)time.tv_nsec;
        time.tv_sec += (time_t)(ns / 1000000000);
        time.tv_nsec = (long)(ns % 1000000000);
        pthread_cond_timedwait(condition, mutex, &time);
    #endif
    }
    """
    void steady_cond_init(pthread_cond_t *condition) nogil
    # For so many ns at most.
    void steady_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t ns) nogil


cdef extern from *:
    """
    static inline void *load_acquire(void **place)
    {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }

    static inline void store_release(void **place, void *value)
    {
        __atomic_store_n(place, value, __ATOMIC_RELEASE);
    }

    /* Returns what it was. Who takes what was added sees what was done before. */
    static inline int64_t add_atomically(int64_t *to, int64_t n)
    {
        return __atomic_fetch_add(to, n, __ATOMIC_ACQ_REL);
    }

    /* Up to `most` of it; returns how much. */
    static inline int64_t take_atomically(int64_t *from, int64_t most)
    {
        int64_t taken, there = __atomic_load_n(from, __ATOMIC_RELAXED);
        do {
            taken = there < most ? there : most;
            if (taken <= 0)
                return 0;
        } while (!__atomic_compare_exchange_n(from, &there, there - taken, 1, __ATOMIC_ACQ_REL,
                                              __ATOMIC_RELAXED));
        return taken;
    }

    /* Whether it was `was`, and is `value` now. */
    static inline int replace_count(int64_t *count, int64_t was, int64_t value)
    {
        return __atomic_compare_exchange_n(count, &was, value, 0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }

    static inline void raise_atomically(int64_t *to, int64_t value)
    {
        int64_t was = __atomic_load_n(to, __ATOMIC_RELAXED);
        while (was < value && !__atomic_compare_exchange_n(to, &was, value, 1, __ATOMIC_RELAXED,
                                                           __ATOMIC_RELAXED))
            ;
    }

    /* Who sees the new count sees what its writer did before. */
    static inline void count_atomically(int64_t *count, int64_t more)
    {
        __atomic_fetch_add(count, more, __ATOMIC_ACQ_REL);
    }

    /* All that was counted. */
    static inline int64_t take_count(int64_t *count)
    {
        return __atomic_exchange_n(count, 0, __ATOMIC_ACQ_REL);
    }

    static inline int64_t load_count(const int64_t *count)
    {
        return __atomic_load_n(count, __ATOMIC_ACQUIRE);
    }

    static inline void store_count(int64_t *count, int64_t value)
    {
        __atomic_store_n(count, value, __ATOMIC_RELEASE);
    }
    """
    void *load_acquire(void **place) nogil
    int64_t add_atomically(int64_t *to, int64_t n) nogil
    int64_t take_atomically(int64_t *from_, int64_t most) nogil
    bint replace_count(int64_t *count, int64_t was, int64_t value) nogil
    void raise_atomically(int64_t *to, int64_t value) nogil
    void count_atomically(int64_t *count, int64_t more) nogil
    int64_t take_count(int64_t *count) nogil
    int64_t load_count(const int64_t *count) nogil
    void store_count(int64_t *count, int64_t value) nogil
    void store_release(void **place, void *value) nogil


# Words that other processes see, too. All who look see what was done in one order.
cdef extern from *:
    """
    /* A test has processes end or stop here. */
    #ifndef MEMLIMITS_BEFORE_WORD
    #define MEMLIMITS_BEFORE_WORD
    #endif

    static inline uint64_t load_word(const uint64_t *word)
    {
        MEMLIMITS_BEFORE_WORD
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);
    }

    static inline void store_word(uint64_t *word, uint64_t value)
    {
        MEMLIMITS_BEFORE_WORD
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    }

    static inline uint64_t add_word(uint64_t *word, uint64_t n)
    {
        MEMLIMITS_BEFORE_WORD
        return __atomic_fetch_add(word, n, __ATOMIC_SEQ_CST);
    }

    static inline int replace_word(uint64_t *word, uint64_t was, uint64_t value)
    {
        MEMLIMITS_BEFORE_WORD
        return __atomic_compare_exchange_n(word, &was, value, 0, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
    """
    uint64_t load_word(const uint64_t *word) nogil
    void store_word(uint64_t *word, uint64_t value) nogil
    uint64_t add_word(uint64_t *word, uint64_t n) nogil     # what it was
    bint replace_word(uint64_t *word, uint64_t was, uint64_t value) nogil
