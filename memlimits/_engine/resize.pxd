"""A block made longer or shorter where it lies, or moved with its pages: nothing is copied."""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.resource cimport Block, Resource

cdef enum Resized:
    RESIZED         # it holds n bytes, from resource.base on
    REFUSED         # which is counted and remembered
    NOT_RESIZED     # another way has to be found

# For a block that is to have n bytes and has less, on no account: it has them where it lies, or
# `block` has, to copy it to. Of idle memory of this thread's, with room to grow into. False: there
# is none that fits.
cdef extern bint resize_with_idle(
    Core *core, Resource *resource, void *start, uint64_t n, Block *block) noexcept nogil
# For a resource whose block its caller wants to hold n bytes. Calls the device, and may wait.
# Unless it is RESIZED the block is as it was. What lies beyond `before` bytes then is new, and
# reads as zeros: of a part its caller had less.
cdef extern Resized resize_resource(
    Core *core, Resource *resource, uint64_t n, WaitHooks *hooks, uint64_t *before) noexcept nogil
