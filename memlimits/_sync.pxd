"""The locks that the core uses: those of pthread.h, and one that costs less when it is free."""

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
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
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil,
                       void (*child)() noexcept nogil)
    int pthread_once(pthread_once_t *once, void (*function)() noexcept nogil)
    int pthread_key_create(pthread_key_t *key, void (*destructor)(void *) noexcept nogil)
    int pthread_setspecific(pthread_key_t key, const void *value)

cdef extern from *:
    """
    #include <sched.h>
    #if defined(__GLIBC__) && __has_include(<sys/single_threaded.h>)
    #include <sys/single_threaded.h>
    #else
    #define __libc_single_threaded 0
    #endif

    typedef int spin_t;

    static inline void spin_lock(spin_t *lock)
    {
        /* An atomic exchange costs more than all else on the fast path. */
        if (__libc_single_threaded) {
            __atomic_store_n(lock, 1, __ATOMIC_RELAXED);
            return;
        }
        for (int tries = 0; __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE);)
            while (__atomic_load_n(lock, __ATOMIC_RELAXED))
                if (++tries % 64 == 0)
                    sched_yield(); /* its holder may wait for this core */
    }

    static inline void spin_unlock(spin_t *lock)
    {
        __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
    }

    static inline void *load_acquire(void **place)
    {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }

    static inline void store_release(void **place, void *value)
    {
        __atomic_store_n(place, value, __ATOMIC_RELEASE);
    }
    """
    ctypedef int spin_t     # 0: free
    void spin_lock(spin_t *lock) nogil
    void spin_unlock(spin_t *lock) nogil
    void *load_acquire(void **place) nogil
    void store_release(void **place, void *value) nogil
