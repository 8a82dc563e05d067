/* The device and buffers. */
#include <string.h>

#include "selftest.h"

KEEPS(the_device_has_facts)
{
    fake_metal_set("memory_size", 16ll << 30);
    @autoreleasepool {
        id<MTLDevice> device = MTLCreateSystemDefaultDevice();
        CHECK(strcmp(device.name.UTF8String, "Apple fake_metal") == 0);
        CHECK(strcmp(device.architecture.name.UTF8String, "applegpu_fake") == 0);
        CHECK(device.recommendedMaxWorkingSetSize == 12ul << 30);
        CHECK(device.maxBufferLength == 9ul << 30 && device.hasUnifiedMemory);
        CHECK([device supportsFamily:MTLGPUFamilyMetal3]);
        CHECK([device respondsToSelector:@selector(newResidencySetWithDescriptor:error:)]);
        fake_metal_set("no_residency_family", 1);
        fake_metal_set("discrete", 1);
        fake_metal_set("wired_limit_mb", 100);
        CHECK(![device supportsFamily:MTLGPUFamilyMetal3] && !device.hasUnifiedMemory);
        CHECK(device.recommendedMaxWorkingSetSize == 100 * MIB);
        fake_metal_set("working_set", 1000);
        fake_metal_set("max_buffer_length", 10);
        CHECK(device.recommendedMaxWorkingSetSize == 1000 && device.maxBufferLength == 10);
        fake_metal_set("older_macos", 1);
        CHECK(![device respondsToSelector:@selector(newResidencySetWithDescriptor:error:)]);
        CHECK([device respondsToSelector:@selector(architecture)]);
        fake_metal_set("older_macos", 13);
        CHECK(![device respondsToSelector:@selector(architecture)]);
    }
}

KEEPS(there_is_one_device_and_it_may_live)
{
    id<MTLDevice> first = a_device(), second = a_device();
    CHECK(first == second && fake_metal_count("devices") == 1);
    CHECK(fake_metal_count("objects") == 0);
    [second release];
}

KEEPS(there_may_be_no_device)
{
    fake_metal_set("no_device", 1);
    CHECK(a_device() == nil);
    fake_metal_set("no_device", 0);
    fake_metal_fail("MTLCreateSystemDefaultDevice", 1);
    CHECK(a_device() == nil);
}

KEEPS(buffers_keep_their_device)
{
    id<MTLBuffer> buffer = a_buffer(1);
    CHECK(fake_metal_count("devices") == 1);
    [buffer release];
    CHECK(fake_metal_count("devices") == 0);
}

KEEPS(buffers_are_zeroed_aligned_memory)
{
    id<MTLBuffer> buffer = a_buffer(40000);
    char *bytes = buffer.contents;
    CHECK((uintptr_t)bytes % (16 * KIB) == 0 && fake_metal_contents(buffer) == bytes);
    CHECK(buffer.length == 40000 && buffer.allocatedSize == 48 * KIB);
    for (int i = 0; i < 40000; i++)
        CHECK(bytes[i] == 0);
    memset(bytes, 1, 40000);
    CHECK(fake_metal_count("buffers") == 1 && fake_metal_count("buffer_bytes") == 48 * KIB);
    [buffer release];
    CHECK(fake_metal_count("buffers") == 0 && fake_metal_count("buffer_bytes") == 0);
    CHECK(fake_metal_count("buffer_bytes_peak") == 48 * KIB && !fake_metal_contents(buffer));
}

KEEPS(buffers_have_limits)
{
    fake_metal_set("max_buffer_length", MIB);
    CHECK(a_buffer(0) == nil && a_buffer(MIB + 1) == nil);
    fake_metal_set("buffer_memory", MIB + 16 * KIB);
    id<MTLBuffer> whole = a_buffer(MIB);
    CHECK(whole && a_buffer(16 * KIB + 1) == nil);
    fake_metal_set("rsrc_limit", 1);
    CHECK(a_buffer(1) == nil);
    fake_metal_set("rsrc_limit", 2);
    id<MTLBuffer> second = a_buffer(1);
    CHECK(second && fake_metal_count("buffers") == 2);
    [second release];
    fake_metal_fail("newBufferWithLength:options:", 1);
    CHECK(a_buffer(1) == nil);
    [whole release];
}

KEEPS(volatile_memory_may_be_intact)
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    char *bytes = buffer.contents;
    bytes[5] = 7;
    CHECK([buffer setPurgeableState:MTLPurgeableStateVolatile] == MTLPurgeableStateNonVolatile);
    CHECK([buffer setPurgeableState:MTLPurgeableStateKeepCurrent] == MTLPurgeableStateVolatile);
    CHECK(fake_metal_count("volatile_bytes") == MIB);
    CHECK(fake_metal_state_at(bytes) == MTLPurgeableStateVolatile);
    CHECK([buffer setPurgeableState:MTLPurgeableStateNonVolatile] == MTLPurgeableStateVolatile);
    CHECK(bytes[5] == 7 && bytes[6] == 0 && fake_metal_count("volatile_buffers") == 0);
    CHECK(fake_metal_state_at(bytes) == MTLPurgeableStateNonVolatile);
    [buffer release];
    CHECK(fake_metal_state_at(bytes) == 0);
}

KEEPS(volatile_memory_may_be_emptied)
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    unsigned char *bytes = buffer.contents;
    bytes[5] = 7;
    [buffer setPurgeableState:MTLPurgeableStateVolatile];
    CHECK(fake_metal_empty_volatile() == 1 && fake_metal_empty_volatile() == 0);
    CHECK([buffer setPurgeableState:MTLPurgeableStateVolatile] == MTLPurgeableStateEmpty);
    CHECK(fake_metal_count("empty_buffers") == 1);
    CHECK([buffer setPurgeableState:MTLPurgeableStateNonVolatile] == MTLPurgeableStateEmpty);
    CHECK(bytes[5] == 0xA5 && bytes[MIB - 1] == 0xA5);
    fake_metal_set("empty_at_once", 1);
    [buffer setPurgeableState:MTLPurgeableStateVolatile];
    CHECK(fake_metal_count("empty_buffers") == 1 && fake_metal_count("purges") == 2);
    [buffer release];
    CHECK(fake_metal_count("empty_buffers") == 0);
}

BREAKS(wrong_options, "buffers are to be shared and untracked")
{
    @autoreleasepool {
        [a_device() newBufferWithLength:MIB options:MTLResourceStorageModeShared];
    }
}

BREAKS(no_such_family, "supportsFamily:5002: the stand-in knows no such family")
{
    [a_device() supportsFamily:(MTLGPUFamily)5002];
}

BREAKS(buffer_without_a_pool, "newBufferWithLength:options: with no autorelease pool")
{
    [a_device() newBufferWithLength:MIB options:SHARED];
}

BREAKS(device_without_a_pool, "MTLCreateSystemDefaultDevice with no autorelease pool")
{
    MTLCreateSystemDefaultDevice();
}

BREAKS(name_without_a_pool, "-[MTLDevice name] with no autorelease pool")
{
    (void)a_device().name;
}

BREAKS(architecture_before_macos_14, "not before macOS 14")
{
    fake_metal_set("older_macos", 13);
    @autoreleasepool {
        (void)a_device().architecture;
    }
}

BREAKS(device_over_released, "-[FakeDevice release] was sent to a released object")
{
    id<MTLDevice> device = a_device();
    [device release];
    [device release];
}

BREAKS(buffer_leaked, "exit 99: leak: FakeBuffer")
{
    a_buffer(MIB);
}

static void touch(volatile char *byte)
{
    *byte = 1;
}

BREAKS(released_contents_touched, "a buffer's contents were touched after they were released")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    char *bytes = buffer.contents;
    [buffer release];
    touch(bytes);
}

BREAKS(contents_overrun, "a buffer's contents were touched past their end")
{
    touch((char *)a_buffer(20 * KIB).contents + 20 * KIB);
}

BREAKS(contents_underrun, "a buffer's contents were touched before their start")
{
    touch((char *)a_buffer(MIB).contents - 1);
}

BREAKS(length_overrun, "a buffer's contents were written past their length")
{
    id<MTLBuffer> buffer = a_buffer(100);
    touch((char *)buffer.contents + 100);
    [buffer release];
}

BREAKS(volatile_contents_written, "were touched while volatile or empty")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    [buffer setPurgeableState:MTLPurgeableStateVolatile];
    touch(buffer.contents);
}

BREAKS(empty_contents_read, "were touched while volatile or empty")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    [buffer setPurgeableState:MTLPurgeableStateEmpty];
    CHECK(*(char *)buffer.contents == 0);
}

BREAKS(no_such_state, "setPurgeableState:7: no such state")
{
    [a_buffer(MIB) setPurgeableState:(MTLPurgeableState)7];
}
