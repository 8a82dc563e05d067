/* Residency sets. */
#include <pthread.h>
#include <string.h>

#include "selftest.h"

KEEPS(changes_take_effect_at_commit)
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> one = a_buffer(MIB), two = a_buffer(MIB);
    [set requestResidency];
    CHECK(fake_metal_count("requests_before_commit") == 1);
    [set addAllocation:one];
    [set addAllocation:two];
    CHECK(set.allocationCount == 2 && [set containsAllocation:one] && set.allocatedSize == 0);
    CHECK(fake_metal_count("resident_bytes") == 0 && !fake_metal_is_resident(one));
    [set commit];
    CHECK(set.allocatedSize == 2 * MIB && fake_metal_count("resident_bytes") == 2 * MIB);
    CHECK(fake_metal_is_resident(one));
    CHECK(fake_metal_is_resident_at(one.contents));
    CHECK(fake_metal_is_resident_at((char *)two.contents + MIB - 1));
    [set removeAllocation:one];
    CHECK(set.allocationCount == 1 && ![set containsAllocation:one]);
    CHECK(set.allocatedSize == 2 * MIB && fake_metal_is_resident(one));
    [one release];
    CHECK(fake_metal_count("buffers") == 2); /* until the removal is committed */
    [set commit];
    CHECK(set.allocatedSize == MIB && fake_metal_count("buffers") == 1);
    CHECK(fake_metal_is_resident_at(two.contents) && !fake_metal_is_resident_at(&set));
    CHECK(fake_metal_count("commit") == 2 && fake_metal_count("commits_empty") == 0);
    [set removeAllAllocations];
    [set commit];
    [set commit];
    CHECK(fake_metal_count("commits_empty") == 1 && fake_metal_count("resident_bytes") == 0);
    CHECK(fake_metal_count("resident_bytes_peak") == 2 * MIB);
    [two release];
    [set release];
    CHECK(fake_metal_count("sets") == 0 && fake_metal_count("sets_dropped_staged") == 0);
}

KEEPS(changes_can_be_taken_back)
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> one = a_buffer(MIB), two = a_buffer(MIB);
    [set addAllocation:one];
    [set commit];
    [set removeAllocation:one];
    [set addAllocation:one];
    [set addAllocation:two];
    [set removeAllocation:two];
    [set commit];
    CHECK(set.allocatedSize == MIB && set.allocationCount == 1);
    [set release];
    [one release];
    [two release];
}

KEEPS(residency_is_requested_and_ended)
{
    id<MTLResidencySet> set = a_set(), other = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [set commit];
    CHECK(fake_metal_count("resident_bytes") == 0);
    [set requestResidency];
    CHECK(fake_metal_count("resident_bytes") == MIB);
    [other addAllocation:buffer];
    [other commit];
    [other requestResidency];
    [other requestResidency];
    CHECK(fake_metal_count("resident_bytes") == MIB); /* once, in two sets */
    CHECK(fake_metal_count("requests_repeated") == 1);
    [set endResidency];
    CHECK(fake_metal_count("resident_bytes") == MIB);
    [set release];
    [other release];
    CHECK(fake_metal_count("resident_bytes") == 0);
    CHECK(fake_metal_count("sets_dropped_resident") == 1);
    [buffer release];
}

KEEPS(a_request_may_be_read_narrowly)
{
    fake_metal_set("resident_at_request", 1);
    fake_metal_set("set_overhead", 100);
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set requestResidency];
    [set addAllocation:buffer];
    [set commit];
    CHECK(fake_metal_count("resident_bytes") == 0 && set.allocatedSize == MIB + 100);
    [set requestResidency];
    CHECK(fake_metal_count("resident_bytes") == MIB);
    [set removeAllocation:buffer];
    [set commit];
    CHECK(fake_metal_count("resident_bytes") == 0 && set.allocatedSize == 0);
    [set release];
    [buffer release];
}

KEEPS(one_commit_removes_first)
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> one = a_buffer(MIB), two = a_buffer(MIB);
    [set addAllocation:one];
    [set requestResidency];
    [set commit];
    [set addAllocation:two];
    [set removeAllocation:one];
    [set commit];
    CHECK(fake_metal_count("resident_bytes_peak") == MIB);
    [set removeAllocation:two];
    [one release];
    [two release];
    [set release];
    CHECK(fake_metal_count("sets_dropped_staged") == 1 && fake_metal_count("buffers") == 0);
}

KEEPS(a_set_may_not_be_made)
{
    @autoreleasepool {
        id<MTLDevice> device = MTLCreateSystemDefaultDevice();
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        descriptor.initialCapacity = 100;
        CHECK(descriptor.initialCapacity == 100 && descriptor.label == nil);
        NSError *error = nil;
        fake_metal_set("residency_fails", 1);
        CHECK([device newResidencySetWithDescriptor:descriptor error:NULL] == nil);
        CHECK([device newResidencySetWithDescriptor:descriptor error:&error] == nil);
        CHECK(error.code == 1 && strlen(error.localizedDescription.UTF8String) > 10);
        fake_metal_set("residency_fails", 0);
        fake_metal_fail("newResidencySetWithDescriptor:error:", 1);
        CHECK([device newResidencySetWithDescriptor:descriptor error:&error] == nil && error);
        [descriptor release];
    }
}

BREAKS(removed_but_never_added, "removeAllocation: of a buffer that is not in the set")
{
    [a_set() removeAllocation:a_buffer(MIB)];
}

BREAKS(removed_twice, "removeAllocation: of a buffer that is not in the set")
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [set commit];
    [set removeAllocation:buffer];
    [set removeAllocation:buffer];
}

BREAKS(added_twice, "addAllocation: of a buffer that is already in the set")
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [set addAllocation:buffer];
}

BREAKS(added_nil, "addAllocation:: nil, where an object is required")
{
    [a_set() addAllocation:nil];
}

BREAKS(added_when_released, "addAllocation: was given a released FakeBuffer")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    [buffer release];
    [a_set() addAllocation:buffer];
}

BREAKS(added_something_else, "a FakeResidencySet, where a FakeBuffer is required")
{
    [a_set() addAllocation:(id)a_set()];
}

BREAKS(added_when_volatile, "addAllocation: of a buffer that is volatile")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    [buffer setPurgeableState:MTLPurgeableStateVolatile];
    [a_set() addAllocation:buffer];
}

BREAKS(volatile_in_a_set, "setPurgeableState:3 for a buffer in a residency set")
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [set commit];
    [set removeAllocation:buffer];
    [buffer setPurgeableState:MTLPurgeableStateVolatile]; /* the removal is not committed */
}

BREAKS(over_released_in_a_set, "a buffer was deallocated that is still in 1 residency sets")
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [buffer release];
    [buffer release]; /* this one is the set's */
}

BREAKS(ended_without_request, "endResidency without requestResidency")
{
    [a_set() endResidency];
}

BREAKS(missing_commit_leaks, "exit 99: leak: FakeBuffer")
{
    id<MTLResidencySet> set = a_set();
    id<MTLBuffer> buffer = a_buffer(MIB);
    [set addAllocation:buffer];
    [set commit];
    [set removeAllocation:buffer];
    [buffer release];
}

BREAKS(descriptor_before_macos_15, "not before macOS 15")
{
    fake_metal_set("older_macos", 1);
    [MTLResidencySetDescriptor alloc];
}

BREAKS(set_before_macos_15, "not before macOS 15")
{
    @autoreleasepool {
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        fake_metal_set("older_macos", 1);
        [a_device() newResidencySetWithDescriptor:descriptor error:NULL];
    }
}

BREAKS(set_without_the_family, "needs MTLGPUFamilyMetal3")
{
    fake_metal_set("no_residency_family", 1);
    a_set();
}

BREAKS(descriptor_not_initialised, "was never sent init")
{
    @autoreleasepool {
        [a_device() newResidencySetWithDescriptor:[MTLResidencySetDescriptor alloc] error:NULL];
    }
}

BREAKS(error_read_after_success, "the error was looked at, although the call succeeded")
{
    @autoreleasepool {
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        NSError *error = nil;
        [a_device() newResidencySetWithDescriptor:descriptor error:&error];
        (void)error.code;
    }
}

BREAKS(description_read_after_success, "the error was looked at, although the call succeeded")
{
    @autoreleasepool {
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        NSError *error = nil;
        [a_device() newResidencySetWithDescriptor:descriptor error:&error];
        (void)error.localizedDescription;
    }
}

BREAKS(error_outlives_no_pool, "-[FakeError code] was sent to a released object")
{
    NSError *error = nil;
    fake_metal_set("residency_fails", 1);
    @autoreleasepool {
        MTLResidencySetDescriptor *descriptor = [[MTLResidencySetDescriptor alloc] init];
        [a_device() newResidencySetWithDescriptor:descriptor error:&error];
    }
    (void)error.code;
}

static void *commit_for_ever(void *set)
{
    for (;;)
        [(id<MTLResidencySet>)set commit];
}

BREAKS(two_threads_in_a_set, "while another thread uses the set")
{
    pthread_t thread;
    id<MTLResidencySet> set = a_set();
    pthread_create(&thread, NULL, commit_for_ever, set);
    commit_for_ever(set);
}
