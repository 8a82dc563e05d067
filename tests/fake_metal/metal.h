/* What the parts of Metal know of each other. */
#ifndef FAKE_METAL_PARTS_H
#define FAKE_METAL_PARTS_H

#import <Metal/Metal.h>

#include "ranges.h"
#include "objects.h"
#include "rules.h"

@interface FakeDevice : NSObject <MTLDevice>
@end

/* The fields from _state on are read and written under the lock. */
@interface FakeBuffer : NSObject <MTLBuffer> {
@public
    FakeDevice *_device; /* retained, as by all that a device made */
    fake_range *_range;
    NSUInteger _length, _allocatedSize;
    MTLPurgeableState _state;
    long _memberships; /* in residency sets, a removal not yet committed included */
    long _resident;    /* in how many of them with residency requested */
    FakeBuffer *_next, *_previous;
}
@end

/* nil when the device has no room for it. */
FakeBuffer *fake_buffer(FakeDevice *device, NSUInteger length);

/* A buffer joins or leaves those that are resident. Under the lock. */
void fake_buffer_make_resident(FakeBuffer *buffer);
void fake_buffer_drop_resident(FakeBuffer *buffer);

id<MTLResidencySet> fake_residency_set(FakeDevice *device, MTLResidencySetDescriptor *descriptor);
id<MTLCommandQueue> fake_queue(FakeDevice *device);

/* Retained for the caller. */
FakeDevice *fake_device(void);

#endif
