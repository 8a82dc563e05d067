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


def aligned_alloc(size_t alignment, size_t n):
    cdef void *start
    with nogil:
        start = memlimits.aligned_alloc(alignment, n)
    return <uintptr_t> start


def usable_size(uintptr_t address):
    cdef size_t n
    with nogil:
        n = memlimits.usable_size(<void *> address)
    return n


def rezalloc(uintptr_t address, size_t n):
    cdef void *start = <void *> address
    with nogil:
        start = memlimits.rezalloc(start, n)
    return <uintptr_t> start


cdef int calls = 0


cdef int free_it(void *state, const memlimits.Refused *refused) noexcept nogil:
    """Frees the block that the state holds."""
    global calls
    cdef void **block = <void **> state
    cdef bint again = block[0] != NULL
    calls += 1
    memlimits.free(block[0])
    block[0] = NULL
    return again


def malloc_instead_of(uintptr_t address, size_t n):
    """n bytes, for which a block may be freed; and how often that was asked for."""
    cdef void *block = <void *> address
    cdef memlimits.RefusalHandler handler
    handler.refused = free_it
    handler.state = &block
    before = calls
    memlimits.set_refusal_handler(&handler)
    start = malloc(n)
    memlimits.set_refusal_handler(NULL)
    return start, calls - before


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
