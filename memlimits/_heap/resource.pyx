from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

from memlimits._base.own cimport own_begin, own_end, own_lines
from memlimits._base.sync cimport store_release
from memlimits._device.mlim cimport (
    MLIM_OK, mlim_buffer_contents, mlim_buffer_destroy, mlim_buffer_split, mlim_status,
)
from memlimits._heap.lock cimport owned_lock, owned_lock_give, owned_lock_take

cdef owned_lock lock            # a spin lock: guards the list
cdef Resource *ended            # descriptors, of all allocators, linked through `next`


cdef Resource *resource_new() noexcept nogil:
    cdef Resource *resource
    owned_lock_take(&lock)
    resource = ended
    if resource != NULL:
        set_ended(resource.next)
    owned_lock_give(&lock)
    if resource == NULL:
        return <Resource *> own_lines(sizeof(Resource))
    # Others may look at its home just now, the first of its fields.
    memset(<char *> resource + sizeof(void *), 0, sizeof(Resource) - sizeof(void *))
    return resource


cdef void set_ended(Resource *first) noexcept nogil:
    global ended
    ended = first


cdef void end(Resource *resource) noexcept nogil:
    store_release(&resource.home, NULL)
    owned_lock_take(&lock)
    resource.next = ended
    set_ended(resource)
    owned_lock_give(&lock)


cdef void resources_after_fork() noexcept nogil:
    owned_lock_give(&lock)


cdef void resource_adopt(Resource *resource, mlim_buffer *buffer, uint64_t n) noexcept nogil:
    resource.buffer = buffer
    resource.base = <char *> mlim_buffer_contents(buffer)
    resource.bytes = n
    resource.zeros = True


cdef bint resource_split(Resource *resource, uint64_t n, Resource *rest) noexcept nogil:
    cdef mlim_buffer *buffer = NULL
    cdef mlim_status status
    own_begin()
    status = mlim_buffer_split(resource.buffer, n, &buffer, NULL)
    own_end()
    if status != MLIM_OK:
        return False
    resource_adopt(rest, buffer, resource.bytes - n)
    rest.zeros = resource.zeros
    rest.lingers, rest.looked_at = resource.lingers, resource.looked_at
    rest.inherited = resource.inherited
    resource.bytes = n
    return True


cdef void resource_destroy(Resource *resource) noexcept nogil:
    if resource != NULL:
        mlim_buffer_destroy(resource.buffer)
        end(resource)


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
