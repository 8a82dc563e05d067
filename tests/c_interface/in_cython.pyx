# What cimports memlimits, with nothing among the include directories.
cimport memlimits

from libc.stdint cimport uintptr_t


def malloc(size_t n):
    cdef void *start
    with nogil:
        start = memlimits.malloc(n)
    return <uintptr_t> start


def calloc(size_t count, size_t n):
    cdef void *start
    with nogil:
        start = memlimits.calloc(count, n)
    return <uintptr_t> start


def realloc(uintptr_t address, size_t n):
    cdef void *start = <void *> address
    with nogil:
        start = memlimits.realloc(start, n)
    return <uintptr_t> start


def free(uintptr_t address):
    cdef void *start = <void *> address
    with nogil:
        memlimits.free(start)


def churn_until(uintptr_t stop, size_t n):
    """Allocate and free without ever taking the GIL, until the byte at `stop` is set."""
    cdef volatile char *stopped = <volatile char *> stop
    cdef size_t rounds = 0
    cdef void *start
    with nogil:
        while not stopped[0]:
            start = memlimits.malloc(n)
            if start == NULL:
                break
            memlimits.free(start)
            rounds += 1
    return rounds
