/* The device: one for the process. */
#include "metal.h"
#include "text.h"

#include <string.h>

#define NO_RESIDENCY_SET 1 /* the code of the error; Apple does not say which one it is */

static FakeDevice *the_device; /* not retained */

@implementation MTLArchitecture

- (NSString *)name
{
    CALLED();
    fake_need_pool("-[MTLArchitecture name]");
    return fake_string("applegpu_fake");
}

@end

FakeDevice *fake_device(void)
{
    fake_lock();
    FakeDevice *device = the_device;
    if (device)
        [device retain];
    else
        the_device = device = [fake_make(objc_getClass("FakeDevice")) init];
    fake_unlock();
    return device;
}

id<MTLDevice> MTLCreateSystemDefaultDevice(void)
{
    fake_not_forked(__func__);
    bool fails = FUNCTION_FAILS();
    fake_need_pool(__func__);
    return fails || fake_settings.no_device ? nil : fake_device();
}

@implementation FakeDevice

- (id)init
{
    fake_gauges.devices++;
    return [super init];
}

- (void)dealloc
{
    fake_lock();
    if (the_device == self)
        the_device = nil;
    fake_gauges.devices--;
    fake_unlock();
    [super dealloc];
}

- (BOOL)respondsToSelector:(SEL)selector
{
    const char *name = sel_getName(selector);
    if (!fake_has_residency() && strcmp(name, "newResidencySetWithDescriptor:error:") == 0)
        return NO;
    if (!fake_has_architecture() && strcmp(name, "architecture") == 0)
        return NO;
    return [super respondsToSelector:selector];
}

- (NSString *)name
{
    CALLED();
    fake_need_pool("-[MTLDevice name]");
    return fake_string("Apple fake_metal");
}

- (MTLArchitecture *)architecture
{
    CALLED();
    fake_need_pool("-[MTLDevice architecture]");
    if (!fake_has_architecture())
        fake_break("-[MTLDevice architecture]: not before macOS 14");
    return [[fake_make(objc_getClass("MTLArchitecture")) init] autorelease];
}

- (uint64_t)recommendedMaxWorkingSetSize
{
    CALLED();
    return fake_working_set();
}

- (NSUInteger)maxBufferLength
{
    CALLED();
    return fake_max_buffer_length();
}

- (BOOL)hasUnifiedMemory
{
    CALLED();
    return !fake_settings.discrete;
}

- (BOOL)supportsFamily:(MTLGPUFamily)family
{
    CALLED();
    switch (family) {
    case MTLGPUFamilyMetal3:
        return !fake_settings.no_residency_family;
    case MTLGPUFamilyApple7:
    case MTLGPUFamilyMac2:
    case MTLGPUFamilyCommon3:
        return YES;
    }
    fake_break("supportsFamily:%ld: the stand-in knows no such family", (long)family);
}

- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options
{
    bool fails = METHOD_FAILS();
    fake_need_pool("newBufferWithLength:options:");
    if (options != (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked))
        fake_break("newBufferWithLength:options:0x%lx: buffers are to be shared and untracked",
                   (unsigned long)options);
    return fails ? nil : fake_buffer(self, length);
}

- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor *)descriptor
                                               error:(NSError **)error
{
    bool fails = METHOD_FAILS();
    fake_need_pool("newResidencySetWithDescriptor:error:");
    if (!fake_has_residency())
        fake_break("newResidencySetWithDescriptor:error:: not before macOS 15");
    if (fake_settings.no_residency_family)
        fake_break("newResidencySetWithDescriptor:error:: needs MTLGPUFamilyMetal3");
    fake_check(descriptor, objc_getClass("MTLResidencySetDescriptor"), "newResidencySetWith...");
    if (fails || fake_settings.residency_fails) {
        if (error)
            *error = fake_error(NO_RESIDENCY_SET, "fake_metal makes no residency set");
        return nil;
    }
    if (error)
        *error = fake_error_of_success();
    return fake_residency_set(self, descriptor);
}

- (id<MTLCommandQueue>)newCommandQueue
{
    bool fails = METHOD_FAILS();
    fake_need_pool("newCommandQueue");
    return fails ? nil : fake_queue(self);
}

@end
