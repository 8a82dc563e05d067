/* What the Metal device's files share: the layout behind mlim.h's opaque handles. Manual
 * retain/release; every entry from outside opens an autorelease pool. */
#ifndef MLIM_METAL_H
#define MLIM_METAL_H

#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
#include <sys/types.h>

#include "mlim.h"

struct mlim_device {
    id<MTLDevice> metal; /* retained */
    pid_t owner;         /* Metal does not survive a fork: a child's process id is another */
    bool has_residency;
    mlim_device_facts facts;
};

struct mlim_buffer {
    mlim_device *device;
    id<MTLBuffer> metal; /* retained */
};

/* An older macOS has no such protocol, but to hold a pointer needs none: what is sent is guarded.
 */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wunguarded-availability-new"
struct mlim_residency {
    mlim_device *device;
    id<MTLResidencySet> metal; /* retained */
    bool requested;
};
#pragma clang diagnostic pop

/* Writes what failed, and why if the system said it, to a nullable error. Returns the status. */
mlim_status mlim_fail(mlim_error *error, mlim_status status, NSError *reason, const char *what);

/* Whether this is a child of the process that opened the device: no message may be sent then. */
bool mlim_is_forked(const mlim_device *device);

#endif
