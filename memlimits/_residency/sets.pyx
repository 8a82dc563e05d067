from libc.stdlib cimport free

from memlimits._base.own cimport own_begin, own_calloc, own_end
from memlimits._device.mlim cimport (
    MLIM_OK, mlim_queue_add, mlim_queue_close, mlim_queue_remove, mlim_residency_add,
    mlim_residency_commit, mlim_residency_contains, mlim_residency_create, mlim_residency_destroy,
    mlim_residency_remove, mlim_status,
)


cdef void sets_init(ResidencySets *all, mlim_device *device, uint64_t cap) noexcept nogil:
    all.device = device
    all.count = 0
    all.cap = cap
    all.queues = NULL


cdef void sets_close(ResidencySets *all) noexcept nogil:
    cdef int i
    while all.queues != NULL:
        sets_remove_queue(all, all.queues)
    for i in range(all.count):
        mlim_residency_destroy(all.sets[i].handle)
    all.count = 0


cdef int choose_set(ResidencySets *all, uint64_t n) noexcept nogil:
    """The first set that n bytes fit into, or that is empty; a new one; the emptiest. Or none."""
    cdef int i, emptiest = 0
    cdef ResidencySet *made
    cdef mlim_status status
    for i in range(all.count):
        if all.sets[i].bytes == 0 or all.sets[i].bytes + n <= all.cap:
            return i
        if all.sets[i].bytes < all.sets[emptiest].bytes:
            emptiest = i
    if all.count < MOST_SETS:
        made = &all.sets[all.count]
        own_begin()
        status = mlim_residency_create(all.device, &made.handle, NULL)
        own_end()
        if status == MLIM_OK:
            made.bytes = 0
            made.touched = False
            all.count += 1
            return all.count - 1
    return emptiest if all.count else NO_SET


cdef void sets_add(ResidencySets *all, Resource *resource) noexcept nogil:
    cdef ResidencySet *of
    resource.residency_set = choose_set(all, resource.bytes)
    if resource.residency_set != NO_SET:
        of = &all.sets[resource.residency_set]
        mlim_residency_add(of.handle, resource.buffer)
        of.bytes += resource.bytes
        of.touched = True


cdef void sets_remove(ResidencySets *all, const Resource *resource) noexcept nogil:
    cdef ResidencySet *of = &all.sets[resource.residency_set]
    mlim_residency_remove(of.handle, resource.buffer)
    of.bytes -= resource.bytes
    of.touched = True


cdef bint sets_commit(ResidencySets *all, uint64_t *commits) noexcept nogil:
    cdef int i
    cdef bint complete = True
    commits[0] = 0
    for i in range(all.count):
        if all.sets[i].touched:
            if mlim_residency_commit(all.sets[i].handle, NULL) != MLIM_OK:
                complete = False
            all.sets[i].touched = False
            commits[0] += 1
    return complete


cdef void sets_recheck(ResidencySets *all, Resource *resource) noexcept nogil:
    cdef ResidencySet *of
    if resource.residency_set == NO_SET:
        return
    of = &all.sets[resource.residency_set]
    if not mlim_residency_contains(of.handle, resource.buffer):
        of.bytes -= resource.bytes
        resource.residency_set = NO_SET


cdef Queue *sets_find_queue(const ResidencySets *all, uint64_t address) noexcept nogil:
    cdef Queue *queue = all.queues
    while queue != NULL and queue.address != address:
        queue = queue.next
    return queue


cdef bint sets_add_queue(
    ResidencySets *all, mlim_queue *handle, uint64_t address
) noexcept nogil:
    cdef Queue *queue = <Queue *> own_calloc(1, sizeof(Queue))
    if queue == NULL:
        return False
    queue.handle = handle
    queue.address = address
    queue.next = all.queues
    all.queues = queue
    return True


cdef void sets_attach(ResidencySets *all) noexcept nogil:
    cdef Queue *queue = all.queues
    while queue != NULL:
        while queue.sets < all.count:
            mlim_queue_add(queue.handle, all.sets[queue.sets].handle)
            queue.sets += 1
        queue = queue.next


cdef void sets_remove_queue(ResidencySets *all, Queue *queue) noexcept nogil:
    cdef int i
    cdef Queue **at = &all.queues
    while at[0] != queue:
        at = &at[0].next
    at[0] = queue.next
    for i in range(queue.sets):
        mlim_queue_remove(queue.handle, all.sets[i].handle)
    mlim_queue_close(queue.handle)
    free(queue)
