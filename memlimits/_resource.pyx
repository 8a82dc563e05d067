from libc.stdlib cimport free
from libc.string cimport memset

from memlimits._device cimport buffer_contents, buffer_destroy

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef enum:
    LINE = 64       # of the processor's cache


cdef Resource *resource_new() noexcept nogil:
    cdef size_t whole_lines = (sizeof(Resource) + LINE - 1) // LINE * LINE
    cdef Resource *resource = <Resource *> aligned_alloc(LINE, whole_lines)
    if resource != NULL:
        memset(resource, 0, sizeof(Resource))
    return resource


cdef void resource_adopt(Resource *resource, mlim_buffer *buffer, uint64_t n) noexcept nogil:
    resource.buffer = buffer
    resource.base = <char *> buffer_contents(buffer)
    resource.bytes = n
    resource.zeros = True


cdef void resource_destroy(Resource *resource) noexcept nogil:
    if resource != NULL:
        buffer_destroy(resource.buffer)
        free(resource)


cdef void slab_cut(Resource *slab, uint32_t block_size, uint32_t size_class) noexcept nogil:
    slab.block_size = block_size
    slab.size_class = size_class
    slab.blocks = <uint32_t> (slab.bytes // block_size)
    slab.live = 0
    slab.fresh = 0
    slab.free_blocks = NULL
