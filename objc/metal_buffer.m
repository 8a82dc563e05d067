/* Metal's buffers: shared storage, hazards untracked. */
#include <stdlib.h>
#include <string.h>

#import "metal.h"

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
        buffer->device = device;
        buffer->metal = [device->metal newBufferWithLength:length
                                                   options:MTLResourceStorageModeShared |
                                                           MTLResourceHazardTrackingModeUntracked];
        if (!buffer->metal) {
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
    free(buffer);
}

void *mlim_buffer_contents(const mlim_buffer *buffer)
{
    @autoreleasepool {
        return buffer->metal.contents;
    }
}

size_t mlim_buffer_length(const mlim_buffer *buffer)
{
    @autoreleasepool {
        return buffer->metal.length;
    }
}

size_t mlim_buffer_allocated_size(const mlim_buffer *buffer)
{
    @autoreleasepool {
        return buffer->metal.allocatedSize;
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

mlim_status mlim_buffer_set_purgeable(mlim_buffer *buffer, bool purgeable, mlim_error *error)
{
    if (mlim_is_forked(buffer->device))
        return mlim_fail(error, MLIM_NO_DEVICE, nil, "Metal does not work in a forked child");
    @autoreleasepool {
        [buffer->metal setPurgeableState:purgeable ? MTLPurgeableStateVolatile
                                                   : MTLPurgeableStateNonVolatile];
        return MLIM_OK;
    }
}
