/* Metal's residency sets, which need macOS 15 and a GPU of family Metal 3. */
#include <stdlib.h>

#import "metal.h"

mlim_status mlim_residency_create(mlim_device *device, mlim_residency **out, mlim_error *error)
{
    mlim_status status = mlim_device_usable(device, error);
    if (status != MLIM_OK)
        return status;
    if (!device->has_residency)
        return mlim_fail(error, MLIM_UNSUPPORTED, nil, "residency sets need macOS 15 and Metal 3");
    if (@available(macOS 15.0, *)) {
        @autoreleasepool {
            NSError *reason = nil;
            mlim_residency *set = calloc(1, sizeof *set);
            if (!set)
                return mlim_fail(error, MLIM_NO_MEMORY, nil,
                                 "no memory for a residency set's handle");
            MTLResidencySetDescriptor *descriptor =
                [[NSClassFromString(@"MTLResidencySetDescriptor") alloc] init];
            set->device = device;
            if (descriptor)
                set->metal = [device->metal newResidencySetWithDescriptor:descriptor error:&reason];
            [descriptor release];
            if (!set->metal) {
                free(set);
                return mlim_fail(error, MLIM_UNSUPPORTED, reason, "newResidencySetWithDescriptor");
            }
            *out = set;
            return MLIM_OK;
        }
    }
    return mlim_fail(error, MLIM_UNSUPPORTED, nil, "residency sets need macOS 15");
}

void mlim_residency_destroy(mlim_residency *set)
{
    if (!set)
        return;
    if (@available(macOS 15.0, *))
        if (!mlim_is_forked(set->device))
            @autoreleasepool {
                if (set->requested)
                    [set->metal endResidency];
                [set->metal release];
            }
    free(set);
}

void mlim_residency_add(mlim_residency *set, mlim_buffer *buffer)
{
    if (@available(macOS 15.0, *))
        @autoreleasepool {
            [set->metal addAllocation:buffer->metal];
        }
}

void mlim_residency_remove(mlim_residency *set, mlim_buffer *buffer)
{
    if (@available(macOS 15.0, *))
        @autoreleasepool {
            [set->metal removeAllocation:buffer->metal];
        }
}

mlim_status mlim_residency_commit(mlim_residency *set, mlim_error *error)
{
    (void)error;
    if (@available(macOS 15.0, *))
        @autoreleasepool {
            [set->metal commit];
            /* What a request covers, beyond what was committed before it, is not documented. */
            [set->metal requestResidency];
            set->requested = true;
        }
    return MLIM_OK;
}

bool mlim_residency_contains(const mlim_residency *set, const mlim_buffer *buffer)
{
    if (@available(macOS 15.0, *))
        @autoreleasepool {
            return [set->metal containsAllocation:buffer->metal];
        }
    return false;
}
