/* The caller's own command queues, which residency sets are added to. */
#include <stdlib.h>

#import "metal.h"

struct mlim_queue {
    mlim_device *device;
    id<MTLCommandQueue> metal; /* retained */
};

/* Without residency sets there is nothing that a queue would be asked for. */
static bool takes_sets(const mlim_device *device, id<MTLCommandQueue> metal)
{
    return !device->has_residency || [metal respondsToSelector:@selector(addResidencySet:)];
}

mlim_status mlim_queue_open(mlim_device *device, void *native, mlim_queue **out, mlim_error *error)
{
    mlim_status status = mlim_device_usable(device, error);
    if (status != MLIM_OK)
        return status;
    @autoreleasepool {
        if (!takes_sets(device, native))
            return mlim_fail(error, MLIM_UNSUPPORTED, nil,
                             "the object at that address is no command queue that takes "
                             "residency sets");
        mlim_queue *queue = calloc(1, sizeof *queue);
        if (!queue)
            return mlim_fail(error, MLIM_NO_MEMORY, nil, "no memory for a queue's handle");
        queue->device = device;
        queue->metal = [(id<MTLCommandQueue>)native retain];
        *out = queue;
        return MLIM_OK;
    }
}

void mlim_queue_close(mlim_queue *queue)
{
    if (!queue)
        return;
    if (!mlim_is_forked(queue->device))
        @autoreleasepool {
            [queue->metal release];
        }
    free(queue);
}

void mlim_queue_add(mlim_queue *queue, mlim_residency *set)
{
    if (@available(macOS 15.0, *))
        @autoreleasepool {
            [queue->metal addResidencySet:set->metal];
        }
}

void mlim_queue_remove(mlim_queue *queue, mlim_residency *set)
{
    if (@available(macOS 15.0, *))
        if (!mlim_is_forked(queue->device))
            @autoreleasepool {
                [queue->metal removeResidencySet:set->metal];
            }
}
