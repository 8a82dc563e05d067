/* Buffers: shared memory between guard pages, which may be given up and taken back. */
#include "metal.h"

#define RESOURCES 499000 /* when iogpu.rsrc_limit reads 0 */

static FakeBuffer *first; /* every buffer alive; under the lock */

static uint64_t room_for_bytes(void)
{
    int64_t limit = fake_settings.buffer_memory;
    return limit ? (uint64_t)limit : fake_memory_size();
}

/* Counts the buffer in, unless that would be one resource or byte too many. */
static bool reserve(NSUInteger size)
{
    int64_t resources = fake_settings.rsrc_limit;
    uint64_t room = room_for_bytes();
    fake_lock();
    bool fits = fake_gauges.buffers < (resources > 0 ? resources : RESOURCES) &&
                (uint64_t)fake_gauges.buffer_bytes + size <= room;
    if (fits) {
        fake_gauges.buffers++;
        fake_gauge_raise(&fake_gauges.buffer_bytes, &fake_gauges.buffer_bytes_peak, (int64_t)size);
    }
    fake_unlock();
    return fits;
}

static void unreserve(NSUInteger size)
{
    fake_gauges.buffers--;
    fake_gauges.buffer_bytes -= (int64_t)size;
}

FakeBuffer *fake_buffer(FakeDevice *device, NSUInteger length)
{
    NSUInteger page = (NSUInteger)fake_settings.page_size;
    if (length == 0 || length > fake_max_buffer_length())
        return nil;
    NSUInteger size = (length + page - 1) / page * page;
    if (!reserve(size))
        return nil;
    fake_range *range = fake_range_map(length, page, "a buffer's contents");
    if (!range) {
        unreserve(size);
        return nil;
    }
    FakeBuffer *buffer = [fake_make(objc_getClass("FakeBuffer")) init];
    buffer->_device = [device retain];
    buffer->_range = range;
    buffer->_length = length;
    buffer->_allocatedSize = size;
    buffer->_state = MTLPurgeableStateNonVolatile;
    fake_lock();
    buffer->_next = first;
    if (first)
        first->_previous = buffer;
    first = buffer;
    fake_unlock();
    return buffer;
}

void fake_buffer_make_resident(FakeBuffer *buffer)
{
    if (buffer->_resident++ == 0)
        fake_gauge_raise(&fake_gauges.resident_bytes, &fake_gauges.resident_bytes_peak,
                         (int64_t)buffer->_allocatedSize);
}

void fake_buffer_drop_resident(FakeBuffer *buffer)
{
    if (--buffer->_resident == 0)
        fake_gauges.resident_bytes -= (int64_t)buffer->_allocatedSize;
}

/* Which gauge counts buffers in a state. */
static void count_state(FakeBuffer *buffer, int by)
{
    if (buffer->_state == MTLPurgeableStateVolatile) {
        fake_gauges.volatile_buffers += by;
        fake_gauges.volatile_bytes += by * (int64_t)buffer->_allocatedSize;
    } else if (buffer->_state == MTLPurgeableStateEmpty) {
        fake_gauges.empty_buffers += by;
    }
}

static void enter_state(FakeBuffer *buffer, MTLPurgeableState state)
{
    count_state(buffer, -1);
    buffer->_state = state;
    count_state(buffer, 1);
}

static void purge(FakeBuffer *buffer)
{
    fake_range_empty(buffer->_range);
    enter_state(buffer, MTLPurgeableStateEmpty);
    fake_gauges.purges++;
}

long long fake_metal_empty_volatile(void)
{
    long long count = 0;
    fake_lock();
    for (FakeBuffer *buffer = first; buffer; buffer = buffer->_next)
        if (buffer->_state == MTLPurgeableStateVolatile) {
            purge(buffer);
            count++;
        }
    fake_unlock();
    return count;
}

int fake_metal_is_resident(const void *buffer)
{
    fake_lock();
    bool alive = fake_is_alive(buffer, objc_getClass("FakeBuffer"));
    bool resident = alive && ((FakeBuffer *)buffer)->_resident > 0;
    fake_unlock();
    return resident;
}

int fake_metal_is_resident_at(const void *address)
{
    bool resident = false;
    fake_lock();
    for (FakeBuffer *buffer = first; buffer; buffer = buffer->_next) {
        const char *start = fake_range_start(buffer->_range);
        if (start <= (const char *)address && (const char *)address < start + buffer->_length)
            resident = buffer->_resident > 0;
    }
    fake_unlock();
    return resident;
}

void *fake_metal_contents(const void *buffer)
{
    fake_lock();
    bool alive = fake_is_alive(buffer, objc_getClass("FakeBuffer"));
    void *contents = alive ? fake_range_start(((FakeBuffer *)buffer)->_range) : NULL;
    fake_unlock();
    return contents;
}

long long fake_metal_state_at(const void *address)
{
    long long state = 0;
    fake_lock();
    for (FakeBuffer *buffer = first; buffer; buffer = buffer->_next)
        if (fake_range_start(buffer->_range) == address)
            state = (long long)buffer->_state;
    fake_unlock();
    return state;
}

@implementation FakeBuffer

- (void)dealloc
{
    fake_lock();
    if (_memberships)
        fake_break("a buffer was deallocated that is still in %ld residency sets", _memberships);
    if (_previous)
        _previous->_next = _next;
    else
        first = _next;
    if (_next)
        _next->_previous = _previous;
    count_state(self, -1);
    fake_unlock();
    fake_range_unmap(_range);
    unreserve(_allocatedSize);
    [_device release];
    [super dealloc];
}

- (void *)contents
{
    CALLED();
    return fake_range_start(_range);
}

- (NSUInteger)length
{
    CALLED();
    return _length;
}

- (NSUInteger)allocatedSize
{
    CALLED();
    return _allocatedSize;
}

/* What is empty stays empty until it is non-volatile again, and whoever makes it so is told. */
- (MTLPurgeableState)setPurgeableState:(MTLPurgeableState)state
{
    CALLED();
    fake_lock();
    MTLPurgeableState before = _state;
    switch (state) {
    case MTLPurgeableStateKeepCurrent:
        break;
    case MTLPurgeableStateNonVolatile:
        if (before != MTLPurgeableStateNonVolatile)
            fake_range_open(_range);
        enter_state(self, MTLPurgeableStateNonVolatile);
        break;
    case MTLPurgeableStateVolatile:
    case MTLPurgeableStateEmpty:
        if (_memberships)
            fake_break("setPurgeableState:%lu for a buffer in a residency set",
                       (unsigned long)state);
        if (before == MTLPurgeableStateNonVolatile)
            fake_range_close(_range, "volatile or empty");
        if (state == MTLPurgeableStateEmpty)
            fake_range_empty(_range);
        if (before != MTLPurgeableStateEmpty)
            enter_state(self, state);
        if (_state == MTLPurgeableStateVolatile && fake_settings.empty_at_once)
            purge(self);
        break;
    default:
        fake_break("setPurgeableState:%lu: no such state", (unsigned long)state);
    }
    fake_unlock();
    return before;
}

@end
