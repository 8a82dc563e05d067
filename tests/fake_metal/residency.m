/* Residency sets: what is staged, what is committed, and what of that is resident. */
#include "metal.h"
#include "text.h"

struct member {
    FakeBuffer *buffer; /* retained until a commit lets it go */
    bool wanted;        /* not staged to leave */
    bool committed;
    bool resident;
};

@interface FakeResidencySet : NSObject <MTLResidencySet> {
@public
    FakeDevice *_device;
    struct member *_members;
    size_t _count, _capacity;
    uint64_t _allocatedSize; /* as of the last commit */
    bool _staged, _committed, _requested;
    bool _busy; /* a method is running: no other may */
}
@end

@implementation MTLResidencySetDescriptor

+ (id)alloc
{
    if (!fake_has_residency())
        fake_break("+[MTLResidencySetDescriptor alloc]: not before macOS 15");
    return [super alloc];
}

- (void)dealloc
{
    [_label release];
    [super dealloc];
}

- (NSString *)label
{
    CALLED();
    fake_need_pool("-[MTLResidencySetDescriptor label]");
    return [[_label retain] autorelease];
}

- (void)setLabel:(NSString *)label
{
    CALLED();
    [label retain];
    [_label release];
    _label = label;
}

- (NSUInteger)initialCapacity
{
    CALLED();
    return _initialCapacity;
}

- (void)setInitialCapacity:(NSUInteger)capacity
{
    CALLED();
    _initialCapacity = capacity;
}

@end

id<MTLResidencySet> fake_residency_set(FakeDevice *device, MTLResidencySetDescriptor *descriptor)
{
    FakeResidencySet *set = [fake_make(objc_getClass("FakeResidencySet")) init];
    set->_device = [device retain];
    set->_capacity = descriptor.initialCapacity + 4;
    set->_members = calloc(set->_capacity, sizeof *set->_members);
    if (!set->_members)
        fake_break("the stand-in itself is out of memory");
    fake_gauges.sets++;
    return set;
}

/* Apple: the methods of residency sets are not thread-safe. */
static void begin(FakeResidencySet *set, const char *method)
{
    if (__atomic_exchange_n(&set->_busy, true, __ATOMIC_SEQ_CST))
        fake_break("-[MTLResidencySet %s] while another thread uses the set", method);
    fake_lock();
}

static void end(FakeResidencySet *set)
{
    fake_unlock();
    __atomic_store_n(&set->_busy, false, __ATOMIC_SEQ_CST);
}

static struct member *find(FakeResidencySet *set, id allocation, const char *method)
{
    fake_check(allocation, objc_getClass("FakeBuffer"), method);
    for (size_t i = 0; i < set->_count; i++)
        if (set->_members[i].buffer == allocation)
            return &set->_members[i];
    return NULL;
}

static void append(FakeResidencySet *set, FakeBuffer *buffer)
{
    if (set->_count == set->_capacity) {
        set->_capacity *= 2;
        set->_members = realloc(set->_members, set->_capacity * sizeof *set->_members);
        if (!set->_members)
            fake_break("the stand-in itself is out of memory");
    }
    set->_members[set->_count++] = (struct member){.buffer = [buffer retain], .wanted = true};
    buffer->_memberships++;
}

static void make_resident(struct member *member)
{
    if (!member->resident)
        fake_buffer_make_resident(member->buffer);
    member->resident = true;
}

static void drop_resident(struct member *member)
{
    if (member->resident)
        fake_buffer_drop_resident(member->buffer);
    member->resident = false;
}

/* Lets go of what was staged to leave, and counts what stays. */
static void remove_unwanted(FakeResidencySet *set)
{
    size_t kept = 0;
    set->_allocatedSize = 0;
    for (size_t i = 0; i < set->_count; i++) {
        struct member member = set->_members[i];
        if (member.wanted) {
            set->_allocatedSize += member.buffer->_allocatedSize;
            set->_members[kept++] = member;
        } else {
            drop_resident(&member);
            member.buffer->_memberships--;
            [member.buffer release];
        }
    }
    set->_count = kept;
    if (kept)
        set->_allocatedSize += (uint64_t)fake_settings.set_overhead;
}

static void add_wanted(FakeResidencySet *set)
{
    bool resident = set->_requested && !fake_settings.resident_at_request;
    for (size_t i = 0; i < set->_count; i++) {
        set->_members[i].committed = true;
        if (resident)
            make_resident(&set->_members[i]);
    }
}

@implementation FakeResidencySet

- (void)dealloc
{
    begin(self, "dealloc");
    if (_staged)
        fake_gauges.sets_dropped_staged++;
    if (_requested && _count)
        fake_gauges.sets_dropped_resident++;
    for (size_t i = 0; i < _count; i++)
        _members[i].wanted = false;
    remove_unwanted(self);
    fake_gauges.sets--;
    end(self);
    free(_members);
    [_device release];
    [super dealloc];
}

- (void)addAllocation:(id<MTLAllocation>)allocation
{
    CALLED();
    begin(self, "addAllocation:");
    struct member *member = find(self, allocation, "addAllocation:");
    FakeBuffer *buffer = (FakeBuffer *)allocation;
    if (member && member->wanted)
        fake_break("addAllocation: of a buffer that is already in the set");
    if (buffer->_state != MTLPurgeableStateNonVolatile)
        fake_break("addAllocation: of a buffer that is volatile or empty");
    if (member)
        member->wanted = true;
    else
        append(self, buffer);
    _staged = true;
    end(self);
}

- (void)removeAllocation:(id<MTLAllocation>)allocation
{
    CALLED();
    begin(self, "removeAllocation:");
    struct member *member = find(self, allocation, "removeAllocation:");
    if (!member || !member->wanted)
        fake_break("removeAllocation: of a buffer that is not in the set");
    member->wanted = false;
    _staged = true;
    end(self);
}

- (void)removeAllAllocations
{
    CALLED();
    begin(self, "removeAllAllocations");
    for (size_t i = 0; i < _count; i++) {
        _staged |= _members[i].wanted;
        _members[i].wanted = false;
    }
    end(self);
}

- (BOOL)containsAllocation:(id<MTLAllocation>)allocation
{
    CALLED();
    begin(self, "containsAllocation:");
    struct member *member = find(self, allocation, "containsAllocation:");
    BOOL contains = member && member->wanted;
    end(self);
    return contains;
}

- (NSUInteger)allocationCount
{
    CALLED();
    NSUInteger count = 0;
    begin(self, "allocationCount");
    for (size_t i = 0; i < _count; i++)
        count += _members[i].wanted;
    end(self);
    return count;
}

- (uint64_t)allocatedSize
{
    CALLED();
    begin(self, "allocatedSize");
    uint64_t size = _allocatedSize;
    end(self);
    return size;
}

- (void)commit
{
    CALLED();
    begin(self, "commit");
    if (!_staged)
        fake_gauges.commits_empty++;
    remove_unwanted(self);
    add_wanted(self);
    _staged = false;
    _committed = true;
    end(self);
}

- (void)requestResidency
{
    CALLED();
    begin(self, "requestResidency");
    if (!_committed)
        fake_gauges.requests_before_commit++;
    if (_requested)
        fake_gauges.requests_repeated++;
    _requested = true;
    for (size_t i = 0; i < _count; i++)
        if (_members[i].committed)
            make_resident(&_members[i]);
    end(self);
}

- (void)endResidency
{
    CALLED();
    begin(self, "endResidency");
    if (!_requested)
        fake_break("endResidency without requestResidency");
    _requested = false;
    for (size_t i = 0; i < _count; i++)
        drop_resident(&_members[i]);
    end(self);
}

@end
