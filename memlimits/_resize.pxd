"""A block made longer or shorter where it lies, or moved with its pages: nothing is copied."""

from libc.stdint cimport uint64_t

from memlimits._core cimport Core
from memlimits._resource cimport Resource
from memlimits._waiting cimport Caller

cdef enum Resized:
    RESIZED         # it holds n bytes, from resource.base on
    REFUSED         # which is counted and remembered
    NOT_RESIZED     # another way has to be found

# For a resource whose block its caller wants to hold n bytes. Calls the device, and may wait.
# Unless it is RESIZED the block is as it was.
cdef Resized core_resize(
    Core *core, Resource *resource, uint64_t n, Caller *caller) noexcept nogil
