"""A resource: one thing the device made, whole or cut into a slab of equal blocks.

The functions touch one resource and are called under the lock of the allocator that holds it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from memlimits._device.mlim cimport mlim_buffer

cdef extern from *:
    bint likely(bint condition) nogil
    bint unlikely(bint condition) nogil     # keeps what seldom happens out of the way

cdef enum Use:
    TAKEN       # a caller holds it, or blocks of it
    IDLE        # in the cache
    DETACHED    # out of the cache for a device call: nobody takes it, and most go back
    RESIZING    # a caller's, while the device makes it longer or shorter: nobody touches it
    PART        # whole: a caller holds its first bytes, and may get the others, which are idle
    SPARE       # a descriptor of nothing, for what its heap splits off

cdef enum Wiring:
    OUTSIDE     # in no residency set
    JOINING     # being put into one; counted as wired from then on
    INSIDE      # in one, and committed
    LEAVING     # being taken out; counted until it is

cdef struct Resource:
    # A line of the processor's cache: what the fast path touches of a slab.
    # The Cache that it, or what is free of it, lies in. It may change when a thread ends.
    void *home
    void *free_blocks       # handed back, linked through their first bytes
    Resource *previous      # idle: others of its bin; slab with a free block: others of its class;
    Resource *next          # detached: the next to destroy
    char *base
    uint64_t inverse        # slab: tells its blocks' starts from other addresses (slab_place)
    uint64_t bound          # slab: slab_bound; else 0
    uint16_t block_size     # 0: the resource is one block
    uint16_t blocks         # how many the slab is cut into
    uint16_t live           # how many of them callers hold
    uint16_t fresh          # the first that was never handed out; all after it neither

    # And one more of a whole resource.
    uint64_t bytes
    Resource *older         # idle: by the time it became so
    Resource *newer
    uint64_t idle_at        # by the clock of its cache
    uint64_t idle_since     # ns; 0: its cache notes no times
    uint32_t bin            # by its length: which of its cache's, when it is idle
    uint8_t size_class
    uint8_t zeros           # whole: all of it; slab: what lies beyond `fresh` was never written
    uint8_t mixed           # from what serves blocks of any length: it was split, or coalesced
    Use use
    Wiring wiring
    int residency_set       # which of the residency's sets it is in
    # Whole: who holds it (_engine/samples); 0: nobody knows. Its caller sets it, without a lock.
    uint32_t holder
    mlim_buffer *buffer     # owned

    # How often it was asked to be wired ahead of others. Changed while stopped; 0 once nobody holds
    # a block of it.
    uint32_t pinned
    bint wire_refused       # counted as a wire failure under this wired limit
    bint registered         # INSIDE, and with a GPU's driver
    bint grew               # was a PART when it last came back as one
    bint purgeable          # idle, and the system may take its pages
    bint moves              # RESIZING, and in the device's hands: its pages may be another's
    bint looked_at          # for what of it is untouched, which Limits.untouched has
    bint inherited          # by this forked child: it is its parent's, too
    bint lingers            # was purgeable, and the system still counts its bytes as available
    Resource *above         # every resource the allocator holds
    Resource *below
    Resource *held_before   # every resource of one home
    Resource *held_after
    Resource *next_wiring   # one wiring operation's list
    # Whose account pays: of a whole resource its Account, for so many bytes; of a slab a list of
    # its blocks' Accounts and their takers, of which so many are not NULL.
    void *charge
    uint64_t charged
    # Of a whole resource that was put apart, the home that it had, and is still listed in: the slow
    # way alone leads to it.
    void *taker
    uint64_t shift          # of one that is put apart: its block starts so far behind `base`
    uint64_t cleared        # whole, of calloc or rezalloc: so many bytes were asked for
    # PART: so many bytes its caller holds. Changed for its caller alone, under the heap's lock.
    uint64_t given

# What a caller holds.
cdef struct Block:
    Resource *resource
    char *start
    uint64_t capacity       # bytes that are the caller's, from start
    bint zeros              # reads as zeros without being cleared

# NULL without memory for the descriptor. The buffer is filled in by resource_adopt. A descriptor is
# never freed: its next use is another resource's, so that who finds it in the page map may see
# whether it is in a heap whose lock it holds.
cdef extern Resource *resource_new() noexcept nogil
cdef extern void resource_adopt(Resource *resource, mlim_buffer *buffer, uint64_t n) noexcept nogil
# It keeps its first n bytes; the others are those of `rest`, a descriptor of nothing. False: the
# device refuses, and nothing was changed.
cdef extern bint resource_split(Resource *resource, uint64_t n, Resource *rest) noexcept nogil
# Ends the descriptor, if it is not NULL, and frees the buffer, if there is one. Calls the device:
# not under a lock.
cdef extern void resource_destroy(Resource *resource) noexcept nogil
# All that are linked through `next`. Returns their bytes.
cdef extern uint64_t resource_destroy_all(Resource *first) noexcept nogil
# In a forked child.
cdef extern void resources_after_fork() noexcept nogil

# Whether callers hold it, or blocks of it, and the device has nothing to do with it.
cdef inline bint is_taken(const Resource *resource) noexcept nogil:
    return resource.use == TAKEN or resource.use == PART


cdef inline uint64_t resource_given(const Resource *resource) noexcept nogil:
    """How many bytes of a whole one its caller holds, for that caller."""
    return resource.given if resource.use == PART else resource.bytes

# Lists through `previous` and `next`.
cdef inline void link(Resource **first, Resource *resource) noexcept nogil:
    resource.previous = NULL
    resource.next = first[0]
    if first[0] != NULL:
        first[0].previous = resource
    first[0] = resource


cdef inline void unlink(Resource **first, Resource *resource) noexcept nogil:
    if resource.previous != NULL:
        resource.previous.next = resource.next
    else:
        first[0] = resource.next
    if resource.next != NULL:
        resource.next.previous = resource.previous

cdef extern void slab_carve(Resource *slab, uint32_t block_size, uint32_t size_class) noexcept nogil

cdef inline bint slab_is_full(const Resource *slab) noexcept nogil:
    return slab.live == slab.blocks


cdef inline char *slab_alloc(Resource *slab) noexcept nogil:
    cdef char *start = <char *> slab.free_blocks
    slab.live += 1
    if likely(start != NULL):
        slab.free_blocks = (<void **> start)[0]
    else:
        start = slab.base + <uint64_t> slab.fresh * slab.block_size
        slab.fresh += 1
        slab.bound += slab.block_size * slab.inverse
        if slab.zeros:
            return start
    (<void **> start)[1] = NULL
    return start


# A block that was handed back has its slab's descriptor in its second word: whoever hands it back
# once more is found out. Contents may be anything, so the list of free blocks has the last word.
cdef inline void slab_free(Resource *slab, void *start) noexcept nogil:
    (<void **> start)[0] = slab.free_blocks
    (<void **> start)[1] = slab
    slab.free_blocks = start
    slab.live -= 1


cdef inline void link_freed(Resource **first, Resource *slab) noexcept nogil:
    """One that was full, among those of its class that have free blocks.

    Behind the first, which is used up meanwhile: then it has more than the one free block when its
    turn comes, and is not full again at once. Before what was never handed out, though: using that
    would touch it.
    """
    cdef Resource *used = first[0]
    if used == NULL or used.fresh < used.blocks:
        link(first, slab)
        return
    link(&used.next, slab)
    slab.previous = used


cdef inline uint64_t slab_place(const Resource *slab, const void *address) noexcept nogil:
    """A number that rises by less than 2^17 from one block to the next.

    `inverse` is odd and a little more than 2^64 divided by block_size, so the product wraps to
    little more than 0 where a block starts. Any other address of 64 bits gives 2^48 and more.
    """
    return (<uint64_t> address - <uint64_t> slab.base) * slab.inverse


cdef inline uint64_t slab_bound(const Resource *slab) noexcept nogil:
    """The place of the first block that was never handed out."""
    return <uint64_t> slab.fresh * slab.block_size * slab.inverse


cdef inline bint slab_lends(const Resource *slab, const void *start) noexcept nogil:
    """Whether a caller holds a block that starts there.

    False: perhaps, by what stands there. For a whole resource it is False, too.
    """
    return slab_place(slab, start) < slab.bound and (<const void **> start)[1] != slab


cdef inline bint slab_starts_block(const Resource *slab, const void *start) noexcept nogil:
    """Whether one of its blocks starts there, handed out or not. Needs no lock."""
    return slab_place(slab, start) < <uint64_t> 1 << 48

# Whether a block was handed back, and not handed out since.
cdef extern bint slab_has_free(const Resource *slab, const void *start) noexcept nogil
# Whether a caller holds a block that starts at an address within the resource: for sure.
cdef extern bint resource_lends(const Resource *resource, const void *start) noexcept nogil
