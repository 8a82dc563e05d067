from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock, time_of
from memlimits._engine.controls cimport controls_note_snapshot
from memlimits._engine.samples cimport samples_call, samples_collect
from memlimits._heap.resource cimport RESIZING, SPARE, Resource, is_taken, resource_given
from memlimits._ledger.calls cimport CALLS

cdef enum:
    LOOKING_PART = 20       # of the time, at most, goes into those of refusals

# The one core of whose refusals they are kept, or NULL. Guarded by its `Heaps.lock`.
cdef Core *keeper
cdef Picture kept
cdef uint64_t took, taken_at    # ns


cdef void describe(const Resource *resource, Extent *extent) noexcept nogil:
    extent.base, extent.bytes = resource.base, resource.bytes
    if resource.block_size:
        extent.kind = PIECES
        extent.used = <uint64_t> resource.live * resource.block_size
    elif is_taken(resource) or resource.use == RESIZING:
        extent.kind = WHOLE
        extent.used = resource_given(resource)
        extent.call = samples_call(resource)


cdef uint64_t add_extents(const Core *core, Extent *extents, uint64_t room) noexcept nogil:
    cdef const Resource *resource = core.resources
    cdef uint64_t count = 0
    while resource != NULL and count < room:
        if resource.use != SPARE:
            describe(resource, &extents[count])
            count += 1
        resource = resource.below
    return count


cdef bint picture_take(Core *core, Picture *picture) noexcept nogil:
    cdef uint64_t room = core.limits.resources + 1
    memset(picture, 0, sizeof(Picture))
    picture.at = time_of(CLOCK_REALTIME)
    picture.extents = <Extent *> own_calloc(room, sizeof(Extent))
    picture.holders = <Holder *> own_calloc(CALLS, sizeof(Holder))
    if picture.extents == NULL or picture.holders == NULL:
        picture_free(picture)
        return False
    picture.holders_count = samples_collect(core, picture.holders)
    picture.extents_count = add_extents(core, picture.extents, room)
    controls_note_snapshot(core, &picture.snapshot)
    return True


cdef void picture_free(Picture *picture) noexcept nogil:
    free(picture.extents)
    free(picture.holders)
    memset(picture, 0, sizeof(Picture))


cdef bint picture_keep(Core *core, bint keep) noexcept nogil:
    global keeper
    cdef bint before
    pthread_mutex_lock(&core.heaps.lock)
    before = keeper == core
    keeper = core if keep else NULL
    picture_free(&kept)
    pthread_mutex_unlock(&core.heaps.lock)
    return before


cdef void picture_note_refusal(Core *core, uint64_t serial) noexcept nogil:
    global kept, took, taken_at
    cdef Picture picture
    cdef uint64_t now
    if core != keeper:
        return
    now = time_of(CLOCK_MONOTONIC)
    if kept.extents != NULL and now - taken_at < LOOKING_PART * took:
        return
    if picture_take(core, &picture):
        picture_free(&kept)
        kept = picture
        kept.serial = serial
    taken_at = time_of(CLOCK_MONOTONIC)
    took = taken_at - now


cdef void *copy_of(const void *items, uint64_t count, size_t size) noexcept nogil:
    cdef void *copy = own_calloc(count + 1, size)
    if copy != NULL and count:
        memcpy(copy, items, count * size)
    return copy


cdef bint picture_kept(Core *core, Picture *picture) noexcept nogil:
    memset(picture, 0, sizeof(Picture))
    pthread_mutex_lock(&core.heaps.lock)
    if kept.extents != NULL:
        picture[0] = kept
        picture.extents = <Extent *> copy_of(kept.extents, kept.extents_count, sizeof(Extent))
        picture.holders = <Holder *> copy_of(kept.holders, kept.holders_count, sizeof(Holder))
    pthread_mutex_unlock(&core.heaps.lock)
    if picture.extents == NULL or picture.holders == NULL:
        picture_free(picture)
        return False
    return True
