/* Command queues, which residency sets are attached to. */
#include "metal.h"

#include <string.h>

#define SETS 32

@interface FakeQueue : NSObject <MTLCommandQueue> {
@public
    FakeDevice *_device;
    id<MTLResidencySet> _sets[SETS]; /* retained; under the lock */
    size_t _count;
}
@end

id<MTLCommandQueue> fake_queue(FakeDevice *device)
{
    FakeQueue *queue = [fake_make(objc_getClass("FakeQueue")) init];
    queue->_device = [device retain];
    fake_gauges.queues++;
    return queue;
}

void *fake_metal_queue_create(void)
{
    FakeDevice *device = fake_device();
    id<MTLCommandQueue> queue = fake_queue(device);
    [device release];
    return queue;
}

void fake_metal_queue_destroy(void *queue)
{
    [(FakeQueue *)queue release];
}

long long fake_metal_queue_sets(void *queue)
{
    fake_check(queue, objc_getClass("FakeQueue"), "fake_metal_queue_sets");
    return (long long)((FakeQueue *)queue)->_count;
}

static size_t place_of(FakeQueue *queue, id set, const char *method)
{
    size_t i = 0;
    fake_check(set, objc_getClass("FakeResidencySet"), method);
    while (i < queue->_count && queue->_sets[i] != set)
        i++;
    return i;
}

static void attach(FakeQueue *queue, id<MTLResidencySet> set, const char *method)
{
    if (!fake_has_residency())
        fake_break("%s: not before macOS 15", method);
    fake_lock();
    if (place_of(queue, set, method) < queue->_count)
        fake_break("%s: the set is already attached to the queue", method);
    if (queue->_count == SETS)
        fake_break("%s: more than %d sets on one queue", method, SETS);
    queue->_sets[queue->_count++] = [set retain];
    fake_unlock();
}

static void detach(FakeQueue *queue, id<MTLResidencySet> set, const char *method)
{
    fake_lock();
    size_t place = place_of(queue, set, method);
    if (place == queue->_count)
        fake_break("%s: the set is not attached to the queue", method);
    queue->_sets[place] = queue->_sets[--queue->_count];
    [set release];
    fake_unlock();
}

static void check_sets(const id<MTLResidencySet> sets[], NSUInteger count, const char *method)
{
    if (!sets || count == 0)
        fake_break("%s: no sets", method);
}

@implementation FakeQueue

- (void)dealloc
{
    for (size_t i = 0; i < _count; i++)
        [_sets[i] release];
    fake_gauges.queues--;
    [_device release];
    [super dealloc];
}

- (BOOL)respondsToSelector:(SEL)selector
{
    if (!fake_has_residency() && strstr(sel_getName(selector), "ResidencySet"))
        return NO;
    return [super respondsToSelector:selector];
}

- (void)addResidencySet:(id<MTLResidencySet>)set
{
    CALLED();
    attach(self, set, "addResidencySet:");
}

- (void)addResidencySets:(const id<MTLResidencySet>[])sets count:(NSUInteger)count
{
    CALLED();
    check_sets(sets, count, "addResidencySets:count:");
    for (NSUInteger i = 0; i < count; i++)
        attach(self, sets[i], "addResidencySets:count:");
}

- (void)removeResidencySet:(id<MTLResidencySet>)set
{
    CALLED();
    detach(self, set, "removeResidencySet:");
}

- (void)removeResidencySets:(const id<MTLResidencySet>[])sets count:(NSUInteger)count
{
    CALLED();
    check_sets(sets, count, "removeResidencySets:count:");
    for (NSUInteger i = 0; i < count; i++)
        detach(self, sets[i], "removeResidencySets:count:");
}

@end
