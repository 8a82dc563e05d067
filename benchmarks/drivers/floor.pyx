"""What no allocator in Python can be faster than."""

cimport cython
from libc.stdint cimport uint64_t

cdef uint64_t number = 3 << 30


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Floor:
    """An object that takes a size and does nothing."""

    def __cinit__(self, size_t n):
        pass


def constant():
    """An int of more than 30 bits, made anew as a getter has to."""
    return number
