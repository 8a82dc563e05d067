from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free

from memlimits._base.own cimport own_lines
from memlimits._device.mlim cimport mlim_buffer_contents, mlim_buffer_destroy


cdef Resource *resource_new() noexcept nogil:
    return <Resource *> own_lines(sizeof(Resource))


cdef void resource_adopt(Resource *resource, mlim_buffer *buffer, uint64_t n) noexcept nogil:
    resource.buffer = buffer
    resource.base = <char *> mlim_buffer_contents(buffer)
    resource.bytes = n
    resource.zeros = True


cdef void resource_destroy(Resource *resource) noexcept nogil:
    if resource != NULL:
        mlim_buffer_destroy(resource.buffer)
        free(resource)


cdef uint64_t resource_destroy_all(Resource *first) noexcept nogil:
    cdef Resource *next
    cdef uint64_t bytes = 0
    while first != NULL:
        next = first.next
        bytes += first.bytes
        resource_destroy(first)
        first = next
    return bytes


cdef void slab_carve(Resource *slab, uint32_t block_size, uint32_t size_class) noexcept nogil:
    slab.block_size = <uint16_t> block_size
    slab.inverse = (UINT64_MAX // block_size + 2) | 1
    slab.bound = 0
    slab.size_class = <uint8_t> size_class
    slab.blocks = <uint16_t> (slab.bytes // block_size)
    slab.live = 0
    slab.fresh = 0
    slab.free_blocks = NULL


cdef bint slab_has_free(const Resource *slab, const void *start) noexcept nogil:
    cdef const void *block = slab.free_blocks
    cdef int _i
    # A caller that wrote to what it had freed may have led the list elsewhere, or in a circle.
    for _i in range(slab.blocks):
        if block == start or slab_place(slab, block) >= slab_bound(slab):
            break
        block = (<const void **> block)[0]
    return block == start


cdef bint resource_lends(const Resource *resource, const void *start) noexcept nogil:
    if resource.block_size == 0:
        return is_taken(resource) and start == resource.base + resource.shift
    return resource.live > 0 and slab_place(resource, start) < slab_bound(resource) and (
        (<const void **> start)[1] != resource or not slab_has_free(resource, start))
