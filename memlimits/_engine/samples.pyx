from libc.math cimport exp, log
from libc.stdint cimport int64_t
from libc.string cimport memset, strncpy

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport (
    pthread_mutex_lock, pthread_mutex_unlock, store_count, time_of,
)
from memlimits._heap.heap cimport Heap, heap_mine
from memlimits._heap.resource cimport RESIZING, is_taken, resource_given
from memlimits._ledger.accounts cimport account_holder, accounts_sample
from memlimits._ledger.calls cimport CALLS, LONGEST_TEXT, NO_CALL, calls_here, calls_open
from memlimits._ledger.queue cimport MOST_HOLDERS

cdef extern from *:
    """
    #include <time.h>

    static inline void set_holder(uint32_t *place, uint32_t holder)
    {
        __atomic_store_n(place, holder, __ATOMIC_RELEASE);
    }

    static inline uint32_t get_holder(const uint32_t *place)
    {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }
    """
    void set_holder(uint32_t *place, uint32_t holder) nogil
    uint32_t get_holder(const uint32_t *place) nogil
    int CLOCK_MONOTONIC

cdef enum:
    CALL_BITS = 16          # of a holder; the others are the logarithm of sample_every, or 0
    LOOKING_PART = 20       # of the time, at most


# ---- samples ----

cdef int64_t samples_take_every(
    Core *core, int64_t every, const char *standard, const char *ours
) noexcept nogil:
    cdef int64_t before
    pthread_mutex_lock(&core.heaps.lock)
    before = core.sample_every
    if every and core.held == NULL:
        strncpy(core.calls.standard, standard, LONGEST_TEXT - 1)
        strncpy(core.calls.ours, ours, LONGEST_TEXT - 1)
        if core.calls.calls != NULL or calls_open(&core.calls) == 0:
            core.held = <Held *> own_calloc(CALLS, sizeof(Held))
    if every and core.held == NULL:
        before = -1
    else:
        store_count(&core.sample_every, every)
        accounts_sample(&core.accounts, every != 0)
    pthread_mutex_unlock(&core.heaps.lock)
    return before


cdef int64_t next_sample(Heap *heap, int64_t every) noexcept nogil:
    """Bytes until then: `every` on average, and no pattern of sizes keeps step with it."""
    cdef uint64_t chance = <uint64_t> load_count(&heap.chance) or <uint64_t> heap
    chance ^= chance << 13
    chance ^= chance >> 7
    chance ^= chance << 17
    store_count(&heap.chance, <int64_t> chance)
    return <int64_t> (-log((<double> (chance >> 11) + 0.5) / 9007199254740992.0) * <double> every)


cdef bint samples_draw(Core *core, uint64_t n) noexcept nogil:
    cdef int64_t every = load_count(&core.sample_every)
    cdef Heap *heap
    cdef int64_t left
    cdef bint drawn
    if n >= <uint64_t> every:
        return True
    # Where a heap is several threads', some draws are lost, or made twice.
    heap = heap_mine(&core.heaps)
    left = load_count(&heap.until_sample)
    if load_count(&heap.chance) == 0:       # its first
        left = next_sample(heap, every)
    drawn = left < <int64_t> n
    store_count(&heap.until_sample, next_sample(heap, every) if drawn else left - <int64_t> n)
    return drawn


cdef uint32_t samples_here(Core *core, uint64_t n) noexcept nogil:
    cdef int64_t every = load_count(&core.sample_every)
    cdef uint32_t bits = 0
    # A long one counts for itself, however short it becomes.
    while n < <uint64_t> every and every >> bits > 1:
        bits += 1
    return bits << CALL_BITS | calls_here(&core.calls)


cdef void samples_set(Resource *resource, uint32_t holder) noexcept nogil:
    set_holder(&resource.holder, holder)


cdef uint32_t samples_call(const Resource *resource) noexcept nogil:
    return get_holder(&resource.holder) & ((1 << CALL_BITS) - 1)


cdef void samples_note_grown(Core *core, Resource *resource) noexcept nogil:
    cdef uint64_t every = <uint64_t> load_count(&core.sample_every)
    if every and resource.block_size == 0 and resource_given(resource) >= every and (
        get_holder(&resource.holder) == 0
    ):
        samples_set(resource, samples_here(core, resource_given(resource)))


# ---- sums ----

cdef void add(
    Held *held, uint32_t *first, uint32_t call, double bytes, double blocks
) noexcept nogil:
    cdef Held *one = &held[call]
    if one.blocks == 0:
        one.next = first[0]
        first[0] = call
    one.bytes += bytes
    one.blocks += blocks


cdef void add_block(Held *held, uint32_t *first, uint32_t holder, uint64_t n) noexcept nogil:
    cdef double every = <double> (<int64_t> 1 << (holder >> CALL_BITS))
    cdef double noted = 1 if n >= every else 1 - exp(-<double> n / every)
    if holder and n:
        add(held, first, holder & ((1 << CALL_BITS) - 1), <double> n / noted, 1 / noted)


cdef uint32_t samples_add_up(Core *core) noexcept nogil:
    cdef const Resource *resource = core.resources
    cdef uint32_t first = NO_CALL
    cdef int block
    while resource != NULL:
        if resource.block_size == 0:
            if is_taken(resource) or resource.use == RESIZING:
                add_block(
                    core.held, &first, get_holder(&resource.holder), resource_given(resource))
        elif resource.charge != NULL:
            for block in range(resource.blocks):
                add_block(
                    core.held, &first, account_holder(resource, block), resource.block_size)
        resource = resource.below
    return first


cdef void samples_forget(Core *core, uint32_t first) noexcept nogil:
    cdef Held *one
    while first != NO_CALL:
        one = &core.held[first]
        first = one.next
        memset(one, 0, sizeof(Held))


cdef uint32_t samples_collect(Core *core, Holder *holders) noexcept nogil:
    cdef uint32_t call, first, count = 0
    if core.held == NULL:
        return 0
    call = first = samples_add_up(core)
    while call != NO_CALL:
        holders[count] = Holder(
            call, <uint64_t> core.held[call].bytes, <uint64_t> (core.held[call].blocks + 0.5))
        count += 1
        call = core.held[call].next
    samples_forget(core, first)
    return count


cdef uint32_t add_up_sites(Core *core, uint32_t calls) noexcept nogil:
    """Of calls, which are others than sites. Returns the first of these."""
    cdef uint32_t sites = NO_CALL
    cdef uint32_t site
    cdef const Held *one
    cdef Held *its
    while calls != NO_CALL:
        one = &core.held[calls]
        site = core.calls.calls[calls].site
        its = &core.held[site]
        add(core.held, &sites, site, one.bytes, one.blocks)
        if its.call == NO_CALL or one.bytes > core.held[its.call].bytes:
            its.call = calls
        calls = one.next
    return sites


cdef void samples_rank(
    const Core *core, uint32_t first, Holder *holders, int room
) noexcept nogil:
    cdef const Held *one
    cdef int place
    memset(holders, 0, room * sizeof(Holder))
    while first != NO_CALL:
        one = &core.held[first]
        place = room
        while place and <uint64_t> one.bytes > holders[place - 1].bytes:
            if place < room:
                holders[place] = holders[place - 1]
            place -= 1
        if place < room:
            holders[place] = Holder(
                one.call or first, <uint64_t> one.bytes, <uint64_t> (one.blocks + 0.5))
        first = one.next


cdef void samples_look(Core *core) noexcept nogil:
    cdef uint64_t start
    cdef uint32_t calls, sites
    if core.held == NULL:
        return
    start = time_of(CLOCK_MONOTONIC)
    if start - core.surveyed_at < LOOKING_PART * core.survey_took:
        return
    calls = samples_add_up(core)
    sites = add_up_sites(core, calls)
    samples_rank(core, sites, core.holders, MOST_HOLDERS)
    samples_forget(core, sites)
    samples_forget(core, calls)
    core.surveyed_at = time_of(CLOCK_MONOTONIC)
    core.survey_took = core.surveyed_at - start
