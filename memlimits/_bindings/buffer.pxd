"""Buffer: one block, owned by a Python object."""

from libc.stdint cimport uint64_t

from memlimits._bindings.allocator cimport Allocator
from memlimits._heap.resource cimport Block


cdef class Buffer:
    """While it is not released its block is its own."""
    cdef readonly uint64_t nbytes
    cdef Allocator allocator
    # Under the object's lock (_base.python).
    cdef Block block                # its resource is NULL: no bytes, or given back
    cdef Py_ssize_t exports         # views that must end before the block can go
    cdef bint released              # no new views; the block goes with the last one


# A block of n bytes, at least 1; raises MemoryLimitError. May give other threads a turn.
cdef extern int alloc_block(Allocator allocator, uint64_t n, bint zeroed, Block *block) except -1
