"""A count that two threads raise under one lock, one of them as its owner."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free

from lock_under_test cimport (
    owned_lock, owned_lock_enter, owned_lock_leave, owned_lock_set_owner,
)

cdef extern from *:
    """
    static inline void wait(void)
    {
        __asm__ volatile("" ::: "memory");
    }
    """
    void wait() nogil


cdef class Count:
    cdef owned_lock *lock
    cdef long value
    cdef readonly long without      # times that the owner did without the lock
    cdef long owner

    def __cinit__(self):
        self.lock = <owned_lock *> PyMem_Calloc(1, sizeof(owned_lock))
        if self.lock == NULL:
            raise MemoryError
        owned_lock_set_owner(self.lock, &self.owner)

    def __dealloc__(self):
        PyMem_Free(self.lock)

    @property
    def total(self):
        return self.value

    def raise_as_owner(self, long times):
        cdef int within
        cdef long _i
        with nogil:
            for _i in range(times):
                within = owned_lock_enter(self.lock, &self.owner)
                self.value += 1
                self.without += within
                owned_lock_leave(self.lock, within)

    def raise_as_another(self, long times, long pause):
        """Until the value is so high; return how often."""
        cdef int within
        cdef long other, _turn, done = 0
        with nogil:
            while self.value < times:
                done += 1
                within = owned_lock_enter(self.lock, &other)
                self.value += 1
                owned_lock_leave(self.lock, within)
                for _turn in range(pause):
                    wait()
        return done
