/* Metal does not survive fork. */
#include <sys/wait.h>
#include <unistd.h>

#include "selftest.h"

static void touch(volatile char *byte)
{
    *byte = 1;
}

KEEPS(a_clean_process_may_fork)
{
    pid_t child = fork();
    if (child == 0) {
        [a_buffer(MIB) release];
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(status == 0);
}

/* Whatever happens in the child is to happen here, too. */
static void in_a_child(void (*work)(id<MTLBuffer> buffer), bool clean)
{
    id<MTLBuffer> buffer = a_buffer(MIB);
    int status;
    pid_t child = fork();
    if (child == 0) {
        work(buffer);
        exit(0);
    }
    waitpid(child, &status, 0);
    [buffer release];
    if (WIFSIGNALED(status))
        abort();
    CHECK(clean && status == 0);
}

static void do_nothing(id<MTLBuffer> buffer)
{
    (void)buffer;
}

static void read_it(id<MTLBuffer> buffer)
{
    touch(fake_metal_contents(buffer));
}

static void release_it(id<MTLBuffer> buffer)
{
    [buffer release];
}

static void open_a_pool(id<MTLBuffer> buffer)
{
    (void)buffer;
    @autoreleasepool {
    }
}

static void open_a_device(id<MTLBuffer> buffer)
{
    (void)buffer;
    MTLCreateSystemDefaultDevice();
}

KEEPS(a_child_may_leave_metal_alone)
{
    in_a_child(do_nothing, true);
}

KEEPS(a_child_may_have_the_memory)
{
    fake_metal_set("fork_keeps_memory", 1);
    in_a_child(read_it, true);
}

BREAKS(child_touches_contents, "in a forked child, which does not have them")
{
    in_a_child(read_it, false);
}

BREAKS(child_releases, "release in a forked child")
{
    in_a_child(release_it, false);
}

BREAKS(child_opens_a_pool, "@autoreleasepool in a forked child")
{
    in_a_child(open_a_pool, false);
}

BREAKS(child_opens_a_device, "MTLCreateSystemDefaultDevice in a forked child")
{
    in_a_child(open_a_device, false);
}
