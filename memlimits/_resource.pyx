from libc.stdlib cimport calloc, free

from memlimits._device cimport buffer_contents, buffer_destroy


cdef Resource *resource_new() noexcept nogil:
    return <Resource *> calloc(1, sizeof(Resource))


cdef void resource_adopt(Resource *resource, mlim_buffer *buffer, uint64_t n) noexcept nogil:
    resource.buffer = buffer
    resource.base = <char *> buffer_contents(buffer)
    resource.bytes = n
    resource.zeros = True


cdef void resource_disown(Resource *resource) noexcept nogil:
    buffer_destroy(resource.buffer)
    resource.buffer = NULL


cdef void resource_destroy(Resource *resource) noexcept nogil:
    buffer_destroy(resource.buffer)
    free(resource)


cdef void slab_cut(Resource *slab, uint32_t block_size, uint32_t size_class) noexcept nogil:
    slab.block_size = block_size
    slab.size_class = size_class
    slab.blocks = <uint32_t> (slab.bytes // block_size)
    slab.live = 0
    slab.fresh = 0
    slab.free_blocks = NULL


cdef bint slab_is_full(const Resource *slab) noexcept nogil:
    return slab.live == slab.blocks


cdef void slab_take(Resource *slab, Block *block) noexcept nogil:
    block.resource = slab
    block.capacity = slab.block_size
    if slab.free_blocks != NULL:
        block.start = <char *> slab.free_blocks
        block.zeros = False
        slab.free_blocks = (<void **> slab.free_blocks)[0]
    else:
        block.start = slab.base + <uint64_t> slab.fresh * slab.block_size
        block.zeros = slab.zeros
        slab.fresh += 1
    slab.live += 1


cdef void slab_give(Resource *slab, void *start) noexcept nogil:
    (<void **> start)[0] = slab.free_blocks
    slab.free_blocks = start
    slab.live -= 1
