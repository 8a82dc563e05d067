"""The residency sets: which one a resource is in, what of that is committed, and the queues of the
caller's that the sets are attached to.

Called under Residency.mutex, which guards every field. Calls the device.
"""

from libc.stdint cimport uint64_t

from memlimits._device.mlim cimport mlim_device, mlim_queue, mlim_residency
from memlimits._heap.resource cimport Resource

cdef enum:
    MOST_SETS = 32              # as many as a command queue takes
    NO_SET = -1                 # for Resource.residency_set

cdef struct ResidencySet:
    mlim_residency *handle      # owned
    uint64_t bytes              # of resources in it
    bint touched                # has changes to commit

cdef struct Queue:
    mlim_queue *handle          # owned
    uint64_t address            # of the device's own object: tells one queue from another
    int sets                    # how many of the sets, from the first on, are attached to it
    Queue *next

# macOS drops residency a set at a time, so there are several.
cdef struct ResidencySets:
    mlim_device *device         # not owned
    ResidencySet sets[MOST_SETS]
    int count                   # how many were made; emptied ones are filled again
    uint64_t cap                # bytes a set takes, unless all are full
    Queue *queues               # owned

cdef extern void sets_init(ResidencySets *all, mlim_device *device, uint64_t cap) noexcept nogil
cdef extern void sets_close(ResidencySets *all) noexcept nogil

# A resource joins a set, or leaves its own, with the next commit. It joins none, and has NO_SET,
# where none can be had.
cdef extern void sets_add(ResidencySets *all, Resource *resource) noexcept nogil
cdef extern void sets_remove(ResidencySets *all, const Resource *resource) noexcept nogil
# At most one commit a set: commits are expensive, and counted in `commits`. False where one left
# something out.
cdef extern bint sets_commit(ResidencySets *all, uint64_t *commits) noexcept nogil
# After such a commit: a resource that was left out has NO_SET.
cdef extern void sets_recheck(ResidencySets *all, Resource *resource) noexcept nogil

cdef extern Queue *sets_find_queue(const ResidencySets *all, uint64_t address) noexcept nogil
# Takes a queue over, if this is True. False without memory.
cdef extern bint sets_add_queue(
    ResidencySets *all, mlim_queue *handle, uint64_t address) noexcept nogil
# Attaches every set to every queue that it is not attached to.
cdef extern void sets_attach(ResidencySets *all) noexcept nogil
# Detaches every set from a queue, and closes it.
cdef extern void sets_remove_queue(ResidencySets *all, Queue *queue) noexcept nogil
