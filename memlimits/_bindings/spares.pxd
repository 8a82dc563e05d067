"""Objects that were deallocated and not freed, for whoever needs one of their type.

Where there is no GIL each thread has its own; those of a thread that ends wait for a new thread, so
that there are never more of them than for all threads that were alive at once.
"""

from cpython.object cimport PyObject

cdef extern from *:
    """
    enum { MOST_SPARE = 64 };

    typedef struct Spares {
        int count;
        PyObject *objects[MOST_SPARE];
        struct Spares *next; /* of those without a thread */
    } Spares;

    #ifdef Py_GIL_DISABLED
    #include <pthread.h>

    static __thread Spares *own_spares __attribute__((tls_model("initial-exec")));
    static Spares *ownerless_spares;
    static pthread_key_t end_of_thread;
    static pthread_once_t end_of_thread_once = PTHREAD_ONCE_INIT;

    static void leave_spares(void *spares)
    {
        Spares *left = (Spares *)spares;
        own_spares = NULL;
        left->next = __atomic_load_n(&ownerless_spares, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&ownerless_spares, &left->next, left, 1,
                                            __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            ;
    }

    static void make_end_of_thread(void)
    {
        pthread_key_create(&end_of_thread, leave_spares);
    }

    /* All are taken and the rest put back: who takes just the first could take it for another that
     * was the first before. */
    static Spares *take_spares(void)
    {
        Spares *first = __atomic_exchange_n(&ownerless_spares, NULL, __ATOMIC_ACQUIRE);
        Spares *rest = first == NULL ? NULL : first->next;
        while (rest != NULL) {
            Spares *next = rest->next;
            leave_spares(rest);
            rest = next;
        }
        return first;
    }

    __attribute__((noinline, cold, unused)) static Spares *first_spares(void)
    {
        Spares *spares = take_spares();
        if (spares == NULL)
            spares = (Spares *)calloc(1, sizeof(Spares));
        pthread_once(&end_of_thread_once, make_end_of_thread);
        if (spares != NULL && pthread_setspecific(end_of_thread, spares) != 0) {
            leave_spares(spares);
            spares = NULL;
        }
        return own_spares = spares;
    }

    static inline Spares *spares_here(void)
    {
        Spares *spares = own_spares;
        return __builtin_expect(spares != NULL, 1) ? spares : first_spares();
    }
    #else
    static Spares the_spares;

    static inline Spares *spares_here(void)
    {
        return &the_spares;
    }
    #endif
    """
    enum:
        MOST_SPARE
    ctypedef struct Spares:
        int count
        PyObject **objects

    # This thread's, whose fields no other touches; where there is a GIL, everyone's. NULL without
    # memory.
    Spares *spares_here()
