"""The order of things: hit, reserve, trim, make, wire.

`Residency.mutex` is held across wiring and taken first, then `Heaps.lock`, then those of heaps;
under the latter two there is arithmetic and list surgery only: no device call, no Python. "The
lock" is Heaps.lock; "stopped" means that every heap's is held, too. Functions are called without
any. No Python runs under one, and a caller from Python gives up the GIL around functions that call
the device, which can take long.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from memlimits._base.sync cimport load_count, pthread_cond_t
from memlimits._device.mlim cimport mlim_device, mlim_device_facts, mlim_process, mlim_sizes
from memlimits._heap.cache cimport cache_coarse
from memlimits._heap.checks cimport CHECKING
from memlimits._heap.heap cimport (
    BOUND, DONE, Heap, Heaps, Outcome, heap_try_alloc, heap_try_alloc_fine, heap_try_free,
)
from memlimits._heap.pagemap cimport PageMap, pagemap_find
from memlimits._heap.resource cimport Block, Resource
from memlimits._ledger.accounts cimport Accounts
from memlimits._ledger.limits cimport Limits
from memlimits._ledger.calls cimport CallTree
from memlimits._ledger.events cimport EventsHeader
from memlimits._ledger.pool cimport Pool
from memlimits._ledger.queue cimport MOST_HOLDERS, Holder, Refusal, Waiter
from memlimits._ledger.tickets cimport Ticket
from memlimits._ledger.traces cimport Traces
from memlimits._residency.plan cimport Residency

cdef enum:
    LONGEST_SPLIT = 4 << 20     # of what was not made to be split, while there is room to grow

# By samples, so in parts of a byte and of a block.
cdef struct Held:
    double bytes
    double blocks
    uint32_t next               # of those that hold any
    uint32_t call               # of a site: its call that holds most

cdef struct Core:
    mlim_device *device         # not owned
    uint64_t page_size
    bint purgeable_lingers      # as in mlim_device_facts
    PageMap pages
    Residency residency
    Heaps heaps                 # its lock guards all below
    Heap *stopper               # whose step stopped the heaps
    pthread_cond_t settled      # pending fell
    int64_t most_footprint      # limits_most_footprint, when the heaps stopped last; atomic
    int waiters                 # for settled
    int claims                  # readings of this process's that no other process is to cross
    Waiter *queue               # for memory, the next to be served first
    uint64_t wakes              # counts what may let a waiter go on
    Limits limits
    Pool pool                   # of processes; what others write is atomic
    Accounts accounts
    uint64_t max_buffer_length  # by the last reading; for core_longest
    mlim_process process        # likewise
    uint64_t purgeable          # idle bytes that the system may take; set while stopped only
    Resource *resources         # every resource held, the newest first
    uint64_t idle_timeout       # ns after which idle resources decay; UINT64_MAX: never; atomic
    bint idle_returns           # they go back then, instead of becoming purgeable
    int64_t pressure_due        # atomic: the last reading is to be looked at for pressure
    uint64_t clears             # counts controls_clear_cache
    Refusal latest              # of any thread
    bint tells                  # others may see what it holds, in the process's page
    # Where the process is recorded (_engine/record), atomic, or NULL; how often it was asked when
    # it answered last; and what is called for it while stopped, before the heaps go on.
    EventsHeader *recorded
    uint64_t answered
    void (*recorder)(Core *core) noexcept nogil
    Traces traces
    Ticket *tickets             # that are open
    # Who holds blocks: one is noted in so many bytes, 0 for never (atomic); how long it took when
    # they were last added up, and when that was, ns; and who held most.
    int64_t sample_every
    CallTree calls
    Held *held                  # by number of a call, as long as they are added up
    uint64_t survey_took
    uint64_t surveyed_at
    Holder holders[MOST_HOLDERS]

# -1 without memory. A core stays where it was opened: its parts point at each other. `set_cap` is
# how many bytes one residency set takes.
cdef extern int core_open(
    Core *core, mlim_device *device, const mlim_device_facts *facts,
    uint64_t set_cap) noexcept nogil
# Gives everything back, live blocks included: their holders keep the core open.
cdef extern void core_close(Core *core) noexcept nogil

# Under the lock: what a reading of the system said.
cdef extern void core_note_sizes(Core *core, const mlim_sizes *sizes) noexcept nogil
cdef extern void core_note_process(Core *core, const mlim_process *process) noexcept nogil

# What one buffer may be long, by the last reading. With the lock or without.
cdef inline uint64_t core_longest(const Core *core) noexcept nogil:
    return <uint64_t> load_count(<const int64_t *> &core.max_buffer_length)

# Serves n bytes from what this thread's heap has. False where nothing fits.
cdef inline bint core_hit(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef Outcome outcome = heap_try_alloc(&core.heaps, n, block)
    return outcome == DONE or (
        outcome == BOUND and core_hit_slow_path(core, cache_coarse(n), block))
# The same in steps of 16 bytes, as malloc's.
cdef inline bint core_hit_fine(Core *core, uint64_t n, Block *block) noexcept nogil:
    cdef Outcome outcome = heap_try_alloc_fine(&core.heaps, n, block)
    return outcome == DONE or (outcome == BOUND and core_hit_slow_path(core, n, block))
# One that the heaps have to stop for.
cdef extern bint core_hit_slow_path(Core *core, uint64_t n, Block *block) noexcept nogil

# Has a whole resource's block start at a multiple of `alignment`, which its bytes allow for. False
# without memory; then nothing is changed.
cdef extern bint core_align(Core *core, Block *block, uint64_t alignment) noexcept nogil

# Makes a block's first n bytes read as zeros. May call the device.
cdef extern void core_clear(Core *core, const Block *block, uint64_t n) noexcept nogil
# Takes a block back. What it returns goes to core_return, unless it is NULL.
cdef inline Resource *core_free(Core *core, Resource *resource, void *start) noexcept nogil:
    if heap_try_free(resource, start) == DONE:
        return NULL
    return core_free_slow_path(core, resource, start)
cdef extern Resource *core_free_slow_path(
    Core *core, Resource *resource, void *start) noexcept nogil
# The same of a whole resource, which does not stay in the cache.
cdef extern Resource *core_free_for_good(
    Core *core, Resource *resource, void *start) noexcept nogil
# Ends the process unless a caller holds a block that starts at an address, which C code gave to a
# function of that name.
cdef extern void core_check(Core *core, const char *function, const void *address) noexcept nogil

# Gives detached resources back. Calls the device.
cdef inline void core_return(Core *core, Resource *detached) noexcept nogil:
    if detached != NULL:
        core_give_back(core, detached, 0)
# The resource that an address handed out by this core lies in; NULL for one that is not.
cdef inline Resource *core_find(const Core *core, const void *address) noexcept nogil:
    return pagemap_find(&core.pages, address)

# Stops every heap, with no retained slab among them, and notes in `limits` what they hold; lets
# them go on within new bounds. `took` says that a block was taken: only that can make a peak. To
# leave without having changed anything, heaps_resume will do. What is taken while they stand still
# needs no headroom.
cdef extern void core_stop(Core *core) noexcept nogil
cdef extern void core_resume(Core *core, bint took) noexcept nogil
cdef extern void core_note(Core *core) noexcept nogil      # what the heaps hold, after a change
# In debug and sanitizer builds, while stopped and with what the heaps hold noted: ends the process
# with a sentence where the books or the queue do not agree with what there is.
cdef extern void core_check_books(const Core *core) noexcept nogil
cdef inline void check_books(const Core *core) noexcept nogil:
    if CHECKING:
        core_check_books(core)

# For growth and decay. Under the lock: a resource is the core's from now on.
cdef extern void core_hold(Core *core, Resource *resource) noexcept nogil
# Likewise: whether slabs are to be short, and what is idle is split.
cdef extern void core_note_tight(Core *core) noexcept nogil
# Likewise: descriptors for what a heap splits off, as many as it wants.
cdef extern void core_stock(Core *core, Heap *heap) noexcept nogil
# While stopped: takes the oldest idle resources, `enough` bytes of them or all there are, out of
# the cache, linked through `next`. They stay in limits.cache: that is for the caller to settle.
cdef extern Resource *core_take_out(Core *core, uint64_t enough, uint64_t *taken) noexcept nogil
cdef extern void core_set_aside(
    Core *core, Resource *resource, Resource **first) noexcept nogil   # one of them
# The same for core_return; and what the limits no longer allow to stay in the cache.
cdef extern Resource *core_detach(Core *core, uint64_t enough) noexcept nogil
cdef extern Resource *core_detach_excess(Core *core) noexcept nogil
# Without the lock, calls the device: destroys what was detached, then settles its bytes, less the
# `growth` that was reserved with them.
cdef extern void core_give_back(Core *core, Resource *detached, uint64_t growth) noexcept nogil
# Under the lock: what others see of it is as it is now.
cdef extern void core_tell(Core *core) noexcept nogil
# The same without a lock: for what changes under another, as what is wired does.
cdef extern void core_tell_now(Core *core) noexcept nogil
# Under the lock: memory came free, or a limit changed: wakes the next of the queue.
cdef extern void core_wake(Core *core) noexcept nogil
# Under the lock: likewise of another process, whose turn it is.
cdef extern void core_wake_others(Core *core) noexcept nogil
# Under the lock: a request waits for others to free memory; and did, for so many ns.
cdef extern void core_count_wait(Core *core) noexcept nogil
cdef extern void core_count_waited(Core *core, uint64_t ns) noexcept nogil
# Under the lock: wakes whoever waits for pending to fall. While stopped: waits for that.
cdef extern void core_settle(Core *core) noexcept nogil
cdef extern void core_wait(Core *core) noexcept nogil
