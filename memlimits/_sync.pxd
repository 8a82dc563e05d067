"""What the core uses of pthread.h."""

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
    static inline void *load_acquire(void **place)
    {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }

    static inline void store_release(void **place, void *value)
    {
        __atomic_store_n(place, value, __ATOMIC_RELEASE);
    }
    """
    void *load_acquire(void **place) nogil
    void store_release(void **place, void *value) nogil
