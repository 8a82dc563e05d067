/* Command queues. */
#include "selftest.h"

KEEPS(sets_are_attached_to_queues)
{
    id<MTLCommandQueue> queue = fake_metal_queue_create();
    id<MTLResidencySet> sets[32];
    for (int i = 0; i < 32; i++)
        sets[i] = a_set();
    [queue addResidencySets:sets count:31];
    [queue addResidencySet:sets[31]];
    CHECK(fake_metal_queue_sets(queue) == 32);
    [queue removeResidencySet:sets[5]];
    [queue removeResidencySets:sets count:5];
    CHECK(fake_metal_queue_sets(queue) == 26);
    for (int i = 0; i < 32; i++)
        [sets[i] release];
    CHECK(fake_metal_count("sets") == 26); /* the queue retains them */
    fake_metal_queue_destroy(queue);
    CHECK(fake_metal_count("sets") == 0 && fake_metal_count("queues") == 0);
}

KEEPS(a_queue_may_not_be_made)
{
    @autoreleasepool {
        id<MTLDevice> device = MTLCreateSystemDefaultDevice();
        fake_metal_fail("newCommandQueue", 1);
        CHECK([device newCommandQueue] == nil);
        id<MTLCommandQueue> queue = [device newCommandQueue];
        CHECK([queue respondsToSelector:@selector(addResidencySet:)]);
        fake_metal_set("older_macos", 1);
        CHECK(![queue respondsToSelector:@selector(addResidencySet:)]);
        CHECK(![queue respondsToSelector:@selector(removeResidencySets:count:)]);
        [queue release];
    }
}

BREAKS(attached_before_macos_15, "addResidencySet:: not before macOS 15")
{
    id<MTLCommandQueue> queue = fake_metal_queue_create();
    id<MTLResidencySet> set = a_set();
    fake_metal_set("older_macos", 1);
    [queue addResidencySet:set];
}

BREAKS(attached_twice, "addResidencySet:: the set is already attached to the queue")
{
    id<MTLCommandQueue> queue = fake_metal_queue_create();
    id<MTLResidencySet> set = a_set();
    [queue addResidencySet:set];
    [queue addResidencySet:set];
}

BREAKS(too_many_attached, "more than 32 sets on one queue")
{
    id<MTLCommandQueue> queue = fake_metal_queue_create();
    for (int i = 0; i < 33; i++)
        [queue addResidencySet:a_set()];
}

BREAKS(detached_but_never_attached, "the set is not attached to the queue")
{
    [(id<MTLCommandQueue>)fake_metal_queue_create() removeResidencySet:a_set()];
}

BREAKS(attached_no_sets, "addResidencySets:count:: no sets")
{
    [(id<MTLCommandQueue>)fake_metal_queue_create() addResidencySets:NULL count:0];
}
