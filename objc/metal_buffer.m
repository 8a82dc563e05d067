/* Metal's buffers: shared storage, hazards untracked. */
#include <stdlib.h>
#include <string.h>

#import "metal.h"

/* Alive, of every device: the system's limit is one for the process. It does not say why it made no
 * buffer, nor what comes of more, so they are counted here. */
static uint64_t buffers;

static bool count_in(uint64_t limit)
{
    uint64_t n = __atomic_load_n(&buffers, __ATOMIC_RELAXED);
    while (n < limit)
        if (__atomic_compare_exchange_n(&buffers, &n, n + 1, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return true;
    return false;
}

static void count_out(void)
{
    __atomic_fetch_sub(&buffers, 1, __ATOMIC_RELAXED);
}

mlim_status mlim_buffer_create(mlim_device *device, size_t length, mlim_buffer **out,
                               mlim_error *error)
{
    mlim_status status = mlim_device_usable(device, error);
    if (status != MLIM_OK)
        return status;
    @autoreleasepool {
        mlim_buffer *buffer = calloc(1, sizeof *buffer);
        if (!buffer)
            return mlim_fail(error, MLIM_NO_MEMORY, nil, "no memory for a buffer's handle");
        if (!count_in(device->facts.resource_limit)) {
            free(buffer);
            return mlim_fail(error, MLIM_NO_RESOURCES, nil, "iogpu.rsrc_limit is reached");
        }
        buffer->device = device;
        buffer->metal = [device->metal newBufferWithLength:length
                                                   options:MTLResourceStorageModeShared |
                                                           MTLResourceHazardTrackingModeUntracked];
        if (!buffer->metal) {
            count_out();
            free(buffer);
            return mlim_fail(error, MLIM_NO_MEMORY, nil, "newBufferWithLength failed");
        }
        *out = buffer;
        return MLIM_OK;
    }
}

void mlim_buffer_destroy(mlim_buffer *buffer)
{
    if (!buffer)
        return;
    if (!mlim_is_forked(buffer->device))
        @autoreleasepool {
            [buffer->metal release];
        }
    count_out();
    free(buffer);
}

void *mlim_buffer_contents(const mlim_buffer *buffer)
{
    @autoreleasepool {
        return buffer->metal.contents;
    }
}

void *mlim_buffer_native(const mlim_buffer *buffer)
{
    return buffer->metal;
}

mlim_status mlim_buffer_discard(mlim_buffer *buffer, mlim_error *error)
{
    (void)buffer;
    return mlim_fail(error, MLIM_UNKNOWN, nil, "Metal drops no pages that read as zeros after");
}

mlim_status mlim_buffer_resize(mlim_device *device, mlim_buffer *buffer, size_t length,
                               mlim_error *error)
{
    (void)device, (void)buffer, (void)length;
    return mlim_fail(error, MLIM_UNSUPPORTED, nil, "Metal's buffers keep their length");
}

mlim_status mlim_buffer_split(mlim_buffer *buffer, size_t length, mlim_buffer **rest,
                              mlim_error *error)
{
    (void)buffer, (void)length, (void)rest;
    return mlim_fail(error, MLIM_UNSUPPORTED, nil, "Metal's buffers keep their length");
}

mlim_status mlim_buffer_join(mlim_buffer *buffer, mlim_buffer *next, mlim_error *error)
{
    (void)buffer, (void)next;
    return mlim_fail(error, MLIM_UNSUPPORTED, nil, "Metal's buffers keep their length");
}

mlim_status mlim_buffer_set_purgeable(mlim_buffer *buffer, bool purgeable, mlim_error *error)
{
    if (mlim_is_forked(buffer->device))
        return mlim_fail(error, MLIM_NO_DEVICE, nil, "Metal does not work in a forked child");
    @autoreleasepool {
        [buffer->metal
            setPurgeableState:purgeable ? MTLPurgeableStateVolatile : MTLPurgeableStateNonVolatile];
        return MLIM_OK;
    }
}
