/* Objects and pools. */
#include <pthread.h>

#include "selftest.h"

@interface NSObject (NotThere)
- (void)frobnicate;
@end

/* These do in dealloc what may not be done there. */
@interface Clinging : NSObject
@end

@implementation Clinging

- (void)dealloc
{
    [self retain];
    [super dealloc];
}

@end

@interface Eager : NSObject
@end

@implementation Eager

- (void)dealloc
{
    [self release];
    [super dealloc];
}

@end

@interface Careless : NSObject
@end

@implementation Careless

- (void)dealloc
{
    [[NSAutoreleasePool alloc] init];
    [super dealloc];
}

@end

KEEPS(objects_are_retained_and_released)
{
    NSObject *object = [[NSObject alloc] init];
    CHECK(fake_metal_count("objects") == 1 && fake_metal_is_alive(object));
    CHECK([object retain] == object);
    CHECK(fake_metal_count("retains") == 2);
    [object release];
    [object release];
    CHECK(fake_metal_count("objects") == 0 && !fake_metal_is_alive(object));
    CHECK(!fake_metal_is_alive(NULL) && !fake_metal_is_alive("nothing"));
}

KEEPS(pools_nest)
{
    NSObject *outer = [[NSObject alloc] init], *inner = [[NSObject alloc] init];
    @autoreleasepool {
        [outer autorelease];
        @autoreleasepool {
            [inner autorelease];
            CHECK(fake_metal_count("objects") == 2);
        }
        CHECK(fake_metal_count("objects") == 1 && fake_metal_is_alive(outer));
    }
    CHECK(fake_metal_count("objects") == 0);
}

static const char *leave_a_pool_early(void)
{
    @autoreleasepool {
        [[[NSObject alloc] init] autorelease];
        return "left";
    }
}

KEEPS(a_return_drains_the_pool)
{
    leave_a_pool_early();
    CHECK(fake_metal_count("objects") == 0);
}

KEEPS(the_oldest_dead_are_freed)
{
    for (int i = 0; i < 10; i++)
        [[[NSObject alloc] init] release];
    CHECK(fake_metal_count("dead") == 10);
    fake_metal_set("dead_kept", 3);
    [[[NSObject alloc] init] release];
    CHECK(fake_metal_count("dead") == 3);
    fake_metal_set("dead_kept", 0);
    [[[NSObject alloc] init] release];
    CHECK(fake_metal_count("dead") == 1); /* the newest, whose dealloc runs */
}

KEEPS(nil_answers_nothing)
{
    id<MTLBuffer> nothing = nil;
    CHECK(nothing.length == 0 && nothing.contents == NULL);
    [nothing release];
}

KEEPS(alloc_may_fail)
{
    fake_metal_fail("alloc", 2);
    NSObject *first = [[NSObject alloc] init];
    CHECK([[NSObject alloc] init] == nil);
    [first release];
}

KEEPS(failures_are_counted_down)
{
    fake_metal_fail("alloc", -2);
    NSObject *first = [[NSObject alloc] init];
    CHECK(first && ![NSObject alloc] && ![NSObject alloc] && ![NSObject alloc]);
    fake_metal_fail("alloc", 0);
    [first release];
    [[[NSObject alloc] init] release];
    CHECK(fake_metal_count("alloc") == 5);
    fake_metal_reset();
    CHECK(fake_metal_count("alloc") == 0);
}

static void *use_a_pool(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        @autoreleasepool {
            [[[NSObject alloc] init] autorelease];
        }
    }
    return NULL;
}

KEEPS(threads_have_pools_of_their_own)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, use_a_pool, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(fake_metal_count("objects") == 0 && fake_metal_count("drain") == 8000);
}

BREAKS(use_after_release, "-[FakeBuffer length] was sent to a released object")
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    [buffer release];
    (void)buffer.length;
}

BREAKS(over_release, "-[NSObject release] was sent to a released object")
{
    NSObject *object = [[NSObject alloc] init];
    [object release];
    [object release];
}

BREAKS(over_release_in_a_pool, "-[NSObject release] was sent to a released object")
{
    @autoreleasepool {
        NSObject *object = [[[NSObject alloc] init] autorelease];
        [object release];
    }
}

BREAKS(retain_in_dealloc, "-[Clinging retain] while it is deallocated")
{
    [[[Clinging alloc] init] release];
}

BREAKS(release_in_dealloc, "over-release: -[Eager release]")
{
    [[[Eager alloc] init] release];
}

BREAKS(dealloc_by_hand, "-[NSObject dealloc] sent by hand")
{
    [[[NSObject alloc] init] dealloc];
}

BREAKS(init_twice, "init] for the second time")
{
    [[[[NSObject alloc] init] init] release];
}

BREAKS(unknown_message, "unrecognized selector: -[NSObject frobnicate]")
{
    [[[NSObject alloc] init] frobnicate];
}

BREAKS(unknown_class_message, "unrecognized selector: +[NSObject frobnicate]")
{
    [(id)objc_getClass("NSObject") frobnicate];
}

BREAKS(autorelease_without_a_pool, "autorelease with no autorelease pool open")
{
    [[[NSObject alloc] init] autorelease];
}

BREAKS(pools_out_of_order, "not this thread's innermost")
{
    NSAutoreleasePool *outer = [[NSAutoreleasePool alloc] init];
    [[NSAutoreleasePool alloc] init];
    [outer drain];
}

BREAKS(pool_left_open_in_a_pool, "an autorelease pool was left open inside another one")
{
    @autoreleasepool {
        [[[Careless alloc] init] autorelease];
    }
}

BREAKS(pool_autoreleased, "cannot be autoreleased")
{
    @autoreleasepool {
        [[[NSAutoreleasePool alloc] init] autorelease];
    }
}

BREAKS(pool_retained, "cannot be retained")
{
    @autoreleasepool {
        NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
        [pool retain];
    }
}

static void *leave_a_pool_open(void *unused)
{
    [[NSAutoreleasePool alloc] init];
    return unused;
}

BREAKS(thread_ends_with_a_pool, "a thread ended with an autorelease pool open")
{
    pthread_t thread;
    pthread_create(&thread, NULL, leave_a_pool_open, NULL);
    pthread_join(thread, NULL);
}

BREAKS(leak, "exit 99: leak: NSObject")
{
    [[NSObject alloc] init];
}

BREAKS(leak_of_a_pool, "exit 99: leak: NSAutoreleasePool")
{
    [[NSAutoreleasePool alloc] init];
}

KEEPS(leaks_can_be_allowed)
{
    fake_metal_set("leaks_allowed", 1);
    [[NSObject alloc] init];
}
