from libc.stdint cimport INT64_MAX, uint32_t
from libc.string cimport memset

from memlimits._base.sync cimport count_atomically, load_count
from memlimits._heap.cache cimport SIZE_CLASSES, cache_block_size, cache_idle
from memlimits._heap.checks cimport CHECKING, at_most, heaps_check_lists, holds, same
from memlimits._heap.heap cimport GROUPS, Heap, heap_of
from memlimits._heap.heaps cimport Totals, heaps_total
from memlimits._heap.pagemap cimport pagemap_find
from memlimits._heap.resource cimport (
    DETACHED, IDLE, INSIDE, LEAVING, OUTSIDE, PART, RESIZING, SPARE, slab_bound,
)
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport limits_cache_limit

cdef enum:
    VISITS_A_CHECK = 512    # of resources, about, if there are many
    MOST_ACCOUNTS = 64      # each is compared with each

cdef int64_t checks         # of all allocators


cdef bint is_due(uint64_t visits) noexcept nogil:
    """Whether this check is one that visits every resource. An odd step: stops come in pairs."""
    count_atomically(&checks, 1)
    return <uint64_t> load_count(&checks) % (2 * (visits // VISITS_A_CHECK) + 1) == 0


cdef int64_t books_checked() noexcept nogil:
    return load_count(&checks) if CHECKING else -1


# ---- sums ----

cdef void check_sums(const Limits *limits, const Totals *totals) noexcept nogil:
    cdef int64_t active = limits.footprint - limits.pending - totals.idle
    same(limits.active, active, b"active is what the heaps do not hold idle")
    same(limits.cache, totals.cached, b"the cache is what the heaps hold in idle resources")
    at_most(0, active, b"active is 0 or more")
    at_most(0, totals.cached, b"the cache is 0 or more")
    at_most(0, totals.idle - totals.cached, b"slack is 0 or more")
    at_most(0, limits.pending, b"pending is 0 or more")
    at_most(0, limits.returning, b"returning is 0 or more")
    at_most(limits.returning, limits.pending, b"what is returning is pending")
    at_most(limits.pending, limits.footprint, b"pending is in the footprint")
    at_most(active, limits.highest, b"active is at most the highest")
    at_most(limits.wired, limits.wired_limit, b"wired is within the wired limit")
    at_most(limits.trimmed + limits.pressure_trimmed, limits.evicted,
            b"what was trimmed was evicted")
    if not (limits.memory_follows and limits.cache_follows):
        # What follows the system is lowered first and seen to then.
        holds(<uint64_t> totals.cached <= limits_cache_limit(limits),
              b"the cache is within its limit", totals.cached, limits_cache_limit(limits))


cdef void check_claims(const Heaps *heaps, const Limits *limits) noexcept nogil:
    """No step of any heap makes a new peak unseen."""
    cdef const Heap *heap = &heaps.shared
    cdef int64_t headroom = 0, takers = 0
    cdef int i
    for i in range(GROUPS):
        at_most(0, heaps.groups[i].headroom, b"a group's headroom is 0 or more")
        headroom += heaps.groups[i].headroom
    while heap != NULL:
        headroom += heap.cache.headroom
        takers += heap != &heaps.shared and not heap.ended
        heap = heap.next
    same(heaps.claims.sum, limits.active + headroom, b"what is active and all headroom are claimed")
    same(heaps.claims.takers, takers, b"heaps that threads take from are counted")
    if heaps.claims.peak:
        at_most(heaps.claims.sum, heaps.claims.peak, b"what is claimed is at most the peak")
    else:
        same(headroom, 0, b"without a peak no heap has headroom")


cdef void check_room(const Heaps *heaps, const Limits *limits) noexcept nogil:
    """Within these bounds, no step of any heap brings the cache above its limit."""
    cdef const Heap *heap = &heaps.shared
    cdef uint64_t cache_limit = limits_cache_limit(limits)
    cdef int64_t most = 0
    cdef bint bound = False
    if limits.memory_follows and limits.cache_follows:
        return
    while heap != NULL:
        if heap.most_cached == INT64_MAX:
            holds(limits.footprint <= cache_limit, b"without a bound all may be cached",
                  limits.footprint, cache_limit)
        else:
            bound = True
            most += heap.most_cached
        heap = heap.next
    if bound:
        holds(most <= 0 or <uint64_t> most <= cache_limit,
              b"what the heaps may cache is within the limit", most, cache_limit)


# ---- resources ----

cdef bint is_partly_idle(const Resource *resource) noexcept nogil:
    return resource.block_size == 0 and (resource.use == PART or resource.use == RESIZING)


cdef void check_resource(const Resource *resource, const PageMap *pages) noexcept nogil:
    cdef const Resource *found
    at_most(1, resource.bytes, b"a resource has a length")
    at_most(resource.use, PART, b"a resource's use is one of five")
    at_most(resource.wiring, LEAVING, b"a resource's wiring is one of four")
    if resource.wiring == INSIDE:
        at_most(0, resource.residency_set, b"what is wired is in a set")
    if is_partly_idle(resource):
        at_most(resource.given, resource.bytes, b"what is given of a resource is within it")
    if resource.use == RESIZING:
        return
    found = pagemap_find(pages, resource.base)
    holds(found == resource, b"a resource is found at its first page",
          <int64_t> found, <int64_t> resource)
    found = pagemap_find(pages, resource.base + resource.shift)
    holds(found == resource, b"a block is found at its start", <int64_t> found, <int64_t> resource)


cdef void check_slab(const Resource *slab) noexcept nogil:
    same(slab.bound, slab_bound(slab), b"a slab has its bound")
    at_most(slab.live, slab.fresh, b"a slab's blocks in use were handed out")
    at_most(slab.fresh, slab.blocks, b"a slab handed out blocks that it has")
    at_most(<uint64_t> slab.blocks * slab.block_size, slab.bytes, b"a slab's blocks fit in it")
    at_most(slab.charged, slab.live, b"a slab's noted blocks are in use")
    same(slab.charge != NULL, slab.charged != 0, b"a slab lists what is noted of its blocks")
    same(cache_block_size(slab.block_size), slab.block_size, b"a slab's blocks are of a class")


# What the resources say themselves.
cdef struct Counted:
    int64_t resources
    int64_t held            # bytes in those that are not on their way to or from the device
    int64_t wired
    int64_t registered
    int64_t spares
    int64_t at_home         # resources whose home is one of the heaps


cdef void visit(
    const Resource *resource, const PageMap *pages, Counted *counted
) noexcept nogil:
    check_resource(resource, pages)
    if resource.block_size:
        check_slab(resource)
    else:
        same(resource.bound, 0, b"a whole resource has no bound")
        if resource.use in (IDLE, DETACHED):
            same(resource.holder, 0, b"nobody holds what is idle")
    if resource.use != DETACHED:
        counted.held += resource.bytes
    if resource.wiring != OUTSIDE:
        counted.wired += resource.bytes
    if resource.registered:
        counted.registered += resource.bytes


cdef void visit_all(
    const Resource *resource, const PageMap *pages, Counted *counted
) noexcept nogil:
    cdef const Resource *above = NULL
    while resource != NULL:
        holds(resource.above == above, b"a resource's newer one has it as its older one",
              <int64_t> resource.above, <int64_t> above)
        counted.resources += 1
        if resource.use == SPARE:
            same(resource.bytes, 0, b"a spare descriptor is of nothing")
            counted.spares += 1
        else:
            visit(resource, pages, counted)
        above = resource
        resource = resource.below


cdef void compare_heap(
    const Heap *heap, const Resource *resource, Counted *counted
) noexcept nogil:
    """A heap's sums, and what those say whose home it is."""
    cdef int64_t idle = 0, cached = 0
    cdef uint64_t parts = 0
    cdef uint32_t cut[SIZE_CLASSES]
    cdef int size_class
    memset(cut, 0, sizeof(cut))
    while resource != NULL:
        if is_partly_idle(resource) and (resource.taker or resource.home) == heap:
            parts += resource.bytes - resource.given
        if heap_of(resource) == heap:
            counted.at_home += 1
            if resource.use == IDLE:
                idle += resource.bytes
                cached += resource.bytes
            elif resource.block_size:
                cut[resource.size_class] += 1
                idle += resource.bytes - <uint64_t> resource.live * resource.block_size
                cached += 0 if resource.live else resource.bytes
        resource = resource.below
    same(heap.cache.parts, parts, b"a heap counts what is idle behind blocks")
    same(cache_idle(&heap.cache), idle + <int64_t> parts,
         b"a heap counts the bytes that are idle in it")
    same(heap.cache.cached, cached, b"a heap counts the bytes in its idle resources")
    for size_class in range(SIZE_CLASSES):
        same(heap.cache.carved[size_class], cut[size_class], b"a heap counts its slabs by class")


cdef void check_resources(
    const Heaps *heaps, const Limits *limits, const PageMap *pages, const Resource *resources
) noexcept nogil:
    cdef Counted counted = Counted(0, 0, 0, 0, 0, 0)
    cdef const Heap *heap = &heaps.shared
    cdef int64_t spares = 0
    visit_all(resources, pages, &counted)
    same(limits.resources, counted.resources, b"resources are counted")
    same(limits.footprint - limits.pending, counted.held,
         b"the footprint that is not pending is in resources")
    same(limits.wired, counted.wired, b"wired is what is in residency sets")
    same(limits.registered, counted.registered, b"registered is what a GPU's driver knows of")
    if heaps.lost:
        return
    while heap != NULL:
        compare_heap(heap, resources, &counted)
        spares += heap.cache.spares
        heap = heap.next
    same(spares, counted.spares, b"spare descriptors are a heap's")
    same(counted.at_home + spares, counted.resources, b"a resource's home is one of the heaps")
    heaps_check_lists(heaps)


# ---- accounts ----

cdef void check_account(const Accounts *accounts, const Account *account) noexcept nogil:
    """What is charged to it directly follows from its charge, and from its claim, too."""
    cdef const Account *below = accounts.first
    cdef int64_t claimed = account.claimed
    cdef int64_t active = account.active
    while below != NULL:
        if below.parent == account:
            claimed -= max(below.reservation, below.claimed)
            active -= below.active
        below = below.next
    at_most(0, active, b"what is charged below an account is charged to it")
    same(claimed, active, b"an account claims what is charged to it and what those below claim")


cdef void check_accounts(const Accounts *accounts, const Limits *limits) noexcept nogil:
    cdef const Account *account = accounts.first
    cdef int64_t claimed = 0, active = 0
    cdef int count = 0
    while account != NULL:
        if account.parent == NULL:
            claimed += max(account.reservation, account.claimed)
            active += account.active
        if count < MOST_ACCOUNTS:
            check_account(accounts, account)
        count += 1
        account = account.next
    # Who has charged bytes and does not have them yet has what was reserved for them.
    at_most(claimed - active, limits.reserved, b"what is claimed and not charged is reserved")
    at_most(limits.reserved, claimed, b"what is reserved is claimed")
    at_most(limits.kept_back, limits.wanted_back, b"what is kept back is wanted")
    same(limits.library, max(limits.admitted, limits.library_active + limits.library_cache),
         b"of what a library was admitted to hold and what it holds the larger counts")
    same(accounts.open != NULL, accounts.opened != 0, b"that an account is open is to be seen")
    same(accounts.noting != NULL, accounts.opened != 0 or accounts.samples,
         b"that blocks are noted is to be seen")


cdef void books_check(
    const Heaps *heaps, const Limits *limits, const Accounts *accounts, const PageMap *pages,
    const Resource *resources
) noexcept nogil:
    cdef const Heap *heap = &heaps.shared
    cdef Totals totals
    cdef uint64_t visits = 0
    heaps_total(heaps, &totals)
    check_sums(limits, &totals)
    check_accounts(accounts, limits)
    while heap != NULL:
        visits += limits.resources
        heap = heap.next
    if not heaps.lost:
        check_claims(heaps, limits)
        check_room(heaps, limits)
    if is_due(visits):
        check_resources(heaps, limits, pages, resources)
