"""malloc and its family for code that knows nothing of us: CPython's allocators, or a process.

Such code may hold any lock, and the GIL, whose holder it expects to stay the one. So nothing here
runs Python or gives up the GIL, budgets do not charge what is taken here, and a thread with the GIL
does not wait for memory: what it could wait for, others could not free. Without a lock, by any
thread.
"""

from libc.stdint cimport uint64_t

from memlimits._engine.core cimport Core
from memlimits._heap.resource cimport Block, Resource

# Once, before anything else here: the allocator that all of it is of, which is never closed, and
# what says whether this thread has the GIL.
ctypedef bint (*HasGil)() noexcept nogil
cdef extern void family_open(Core *core, HasGil has_gil) noexcept nogil

# Of a block, for who has its resource: what its holder may use of it.
cdef extern uint64_t family_capacity(Resource *resource) noexcept nogil
# The resource of a block that a caller holds. Any other address ends the process, with a sentence
# that names the function that it was given to.
cdef extern Resource *family_find_held(
    Core *core, const char *function, const void *start) noexcept nogil
# For an alignment above the page: so many bytes as may have to be skipped are asked for besides n,
# in a resource of its own; and where n of them start in what was had, with a refusal if there is no
# memory for that.
cdef extern uint64_t family_longer(const Core *core, uint64_t alignment, uint64_t n) noexcept nogil
cdef extern void *family_align(
    Core *core, Block *block, uint64_t alignment, uint64_t n) noexcept nogil
# Takes a block back that heap_free does not.
cdef extern void family_free_slow_path(void *start) noexcept nogil

# Has what is freed and not ours go there.
ctypedef void (*Free)(void *start) noexcept nogil
cdef extern void family_free_others_by(Free others) noexcept nogil
# As in <stdlib.h>, but that an address has to be one of ours; aligned_alloc has a power of two, and
# rounds up. NULL, and errno: it was refused.
cdef extern void *family_malloc(size_t n) noexcept nogil
cdef extern void *family_calloc(size_t count, size_t n) noexcept nogil
cdef extern void *family_realloc(void *start, size_t n) noexcept nogil
cdef extern void *family_aligned_alloc(size_t alignment, size_t n) noexcept nogil
cdef extern void family_free(void *start) noexcept nogil
cdef extern void family_free_any(void *start) noexcept nogil
# Frees a whole resource's block; what was done to its pages is for nobody else to find.
cdef extern void family_give_back(void *start) noexcept nogil
cdef extern size_t family_usable_size(const void *start) noexcept nogil
# realloc for who has found the block's resource.
cdef extern void *family_resize(Resource *resource, void *start, size_t n) noexcept nogil
# The resource that a block lies in; NULL for any other address that somebody holds.
cdef extern Resource *family_owner(const void *start) noexcept nogil
