/* Autorelease pools: a stack for each thread. */
#import <Foundation/Foundation.h>
#include <pthread.h>
#include <stdlib.h>

#include "objects.h"
#include "rules.h"

struct pool {
    struct pool *below;
    NSAutoreleasePool *object;
    id *waiting; /* objects, released when the pool is drained */
    size_t count, capacity;
};

static _Thread_local struct pool *top;
static pthread_key_t threads_with_pools;

static void thread_ended(void *pools)
{
    (void)pools;
    if (top)
        fake_break("a thread ended with an autorelease pool open");
}

__attribute__((constructor)) static void watch_threads(void)
{
    pthread_key_create(&threads_with_pools, thread_ended);
}

void fake_need_pool(const char *what)
{
    if (!top)
        fake_break("%s with no autorelease pool open on this thread", what);
}

static void push(NSAutoreleasePool *object)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        fake_break("the stand-in itself is out of memory");
    pool->object = object;
    pool->below = top;
    top = pool;
    pthread_setspecific(threads_with_pools, pool);
}

static void pop(void)
{
    struct pool *pool = top;
    for (size_t i = 0; i < pool->count; i++) /* what is released may autorelease more */
        [pool->waiting[i] release];
    if (pool != top)
        fake_break("an autorelease pool was left open inside another one");
    top = pool->below;
    free(pool->waiting);
    free(pool);
}

id fake_autorelease(id object)
{
    fake_need_pool("autorelease");
    if (top->count == top->capacity) {
        top->capacity = top->capacity ? 2 * top->capacity : 16;
        top->waiting = realloc(top->waiting, top->capacity * sizeof(id));
        if (!top->waiting)
            fake_break("the stand-in itself is out of memory");
    }
    top->waiting[top->count++] = object;
    return object;
}

@implementation NSAutoreleasePool

+ (id)alloc
{
    fake_not_forked("@autoreleasepool");
    return fake_make(self);
}

- (id)init
{
    [super init];
    push(self);
    return self;
}

- (void)drain
{
    CALLED();
    if (!top || top->object != self)
        fake_break("an autorelease pool was drained that is not this thread's innermost one");
    pop();
    [super release];
}

- (id)retain
{
    fake_break("an autorelease pool cannot be retained");
}

- (id)autorelease
{
    fake_break("an autorelease pool cannot be autoreleased");
}

- (oneway void)release
{
    [self drain];
}

@end
