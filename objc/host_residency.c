/* The host's residency sets: buffers whose pages are locked in RAM by mlock, or pinned there by the
 * driver of a GPU that they are registered with. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "host.h"

/* Buffers that join or leave are moved to the front, so that a commit, which stops when it has seen
 * them all, does not walk the whole set. */
struct mlim_residency {
    mlim_device *device;
    mlim_buffer *first; /* every buffer inside, joining or leaving */
    size_t joining, leaving;
};

mlim_status mlim_residency_create(mlim_device *device, mlim_residency **out, mlim_error *error)
{
    mlim_residency *set = calloc(1, sizeof *set);
    if (!set)
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a residency set's handle");
    set->device = device;
    *out = set;
    return MLIM_OK;
}

static void link_buffer(mlim_residency *set, mlim_buffer *buffer)
{
    buffer->set = set;
    buffer->previous = NULL;
    buffer->next = set->first;
    if (set->first)
        set->first->previous = buffer;
    set->first = buffer;
}

static void unlink_buffer(mlim_residency *set, mlim_buffer *buffer)
{
    if (buffer->previous)
        buffer->previous->next = buffer->next;
    else
        set->first = buffer->next;
    if (buffer->next)
        buffer->next->previous = buffer->previous;
    buffer->set = NULL;
    buffer->previous = buffer->next = NULL;
    buffer->membership = MLIM_OUTSIDE;
}

void mlim_residency_add(mlim_residency *set, mlim_buffer *buffer)
{
    if (buffer->membership == MLIM_LEAVING && buffer->set == set) {
        buffer->membership = MLIM_INSIDE;
        set->leaving--;
    } else if (buffer->membership == MLIM_OUTSIDE) {
        link_buffer(set, buffer);
        buffer->membership = MLIM_JOINING;
        set->joining++;
    }
}

void mlim_residency_remove(mlim_residency *set, mlim_buffer *buffer)
{
    if (buffer->set != set || buffer->membership == MLIM_LEAVING)
        return;
    bool joining = buffer->membership == MLIM_JOINING;
    unlink_buffer(set, buffer);
    if (joining) {
        set->joining--;
        return;
    }
    link_buffer(set, buffer);
    buffer->membership = MLIM_LEAVING;
    set->leaving++;
}

/* Locks a range, with the soft limit raised to the hard one when that is what is missing. */
static int lock_pages(void *base, size_t length)
{
    if (mlock(base, length) == 0)
        return 0;
    int code = errno;
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && mlock(base, length) == 0)
            return 0;
        code = errno;
    }
    munlock(base, length); /* a refused mlock may have locked a part */
    return code;
}

void mlim_device_register_with(mlim_device *device, mlim_cuda *cuda)
{
    device->cuda = cuda;
}

/* 0, or why it cannot be kept resident. */
static int keep(const mlim_residency *set, mlim_buffer *buffer)
{
    if (set->device->cuda && mlim_buffer_register(buffer, set->device->cuda))
        return 0;
    return lock_pages(buffer->base, buffer->length);
}

static void let_go(const mlim_residency *set, mlim_buffer *buffer)
{
    mlim_buffer_unregister(buffer, set->device->cuda);
    munlock(buffer->base, buffer->length);
}

mlim_status mlim_residency_commit(mlim_residency *set, mlim_error *error)
{
    int code = 0;
    mlim_buffer *next;
    for (mlim_buffer *buffer = set->first; set->leaving; buffer = next) {
        next = buffer->next;
        if (buffer->membership != MLIM_LEAVING)
            continue;
        let_go(set, buffer);
        set->leaving--;
        unlink_buffer(set, buffer);
    }
    for (mlim_buffer *buffer = set->first; set->joining; buffer = next) {
        next = buffer->next;
        if (buffer->membership != MLIM_JOINING)
            continue;
        set->joining--;
        int refused = keep(set, buffer);
        if (refused) {
            code = refused;
            unlink_buffer(set, buffer);
        } else {
            buffer->membership = MLIM_INSIDE;
        }
    }
    return code ? mlim_fail(error, MLIM_NOT_RESIDENT, code, "mlock") : MLIM_OK;
}

bool mlim_residency_contains(const mlim_residency *set, const mlim_buffer *buffer)
{
    return buffer->set == set && buffer->membership != MLIM_LEAVING;
}

void mlim_residency_destroy(mlim_residency *set)
{
    if (!set)
        return;
    while (set->first) {
        mlim_buffer *buffer = set->first;
        if (buffer->membership != MLIM_JOINING)
            let_go(set, buffer);
        unlink_buffer(set, buffer);
    }
    free(set);
}
