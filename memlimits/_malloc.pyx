from cpython.pycapsule cimport PyCapsule_New
from cpython.unicode cimport PyUnicode_AsUTF8
from libc cimport errno
from libc.stdint cimport INT64_MAX, uint64_t
from libc.string cimport memcpy, memset

from memlimits._base.python cimport attached_thread
from memlimits._base.sync cimport load_acquire
from memlimits._bindings.allocator cimport get_default
from memlimits._bindings.contexts cimport account_of_caller
from memlimits._bindings.wait_hooks cimport c_wait_hooks, c_wait_hooks_end
from memlimits._engine.charging cimport charging_alloc
from memlimits._engine.core cimport Core, core_check, core_clear, core_find, core_hit
from memlimits._engine.failing cimport failing_refuses
from memlimits._engine.family cimport (
    family_align, family_capacity, family_find_held, family_longer, family_open,
)
from memlimits._engine.growth cimport growth_miss
from memlimits._engine.samples cimport samples_note_grown, samples_draws
from memlimits._engine.refusals cimport refusals_last, refusals_restore, refusals_tell
from memlimits._engine.resize cimport (
    REFUSED, RESIZED, Resized, resize_resource, resize_with_idle,
)
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.cache cimport cache_block_size, cache_coarse
from memlimits._heap.heap cimport Heaps, heap_free, heap_malloc, heap_malloc_else
from memlimits._heap.pagemap cimport PageMap, pagemap_find
from memlimits._heap.resource cimport Block, Resource, likely, unlikely
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport BLOCKERS, NOTHING, Blocker
from memlimits._ledger.queue cimport C_CODE, Refusal

from memlimits._bindings.allocator import BLOCKED_BY

cdef extern from "memlimits.h":
    ctypedef struct memlimits_refusal_handler:
        pass
    ctypedef struct memlimits_functions:
        unsigned int version
        unsigned int size
        void *(*malloc)(size_t n) noexcept nogil
        void *(*calloc)(size_t count, size_t n) noexcept nogil
        void *(*realloc)(void *start, size_t n) noexcept nogil
        void (*free)(void *start) noexcept nogil
        void *(*aligned_alloc)(size_t alignment, size_t n) noexcept nogil
        size_t (*usable_size)(const void *start) noexcept nogil
        void *(*rezalloc)(void *start, size_t n) noexcept nogil
        const memlimits_refusal_handler *(*set_refusal_handler)(
            const memlimits_refusal_handler *handler) noexcept nogil
    const char *MEMLIMITS_CAPSULE
    unsigned int MEMLIMITS_VERSION

cdef extern from *:
    """
    static const void *refusal_handler;     /* atomic */

    static inline const void *swap_handler(const void *handler)
    {
        return __atomic_exchange_n(&refusal_handler, handler, __ATOMIC_ACQ_REL);
    }

    static inline const void *handler_now(void)
    {
        return __atomic_load_n(&refusal_handler, __ATOMIC_ACQUIRE);
    }

    static _Thread_local int in_handler;    /* whether this thread runs it */
    """
    const void *swap_handler(const void *handler) nogil
    const void *handler_now() nogil
    bint in_handler

cdef enum:
    CLEARED_ANYWAY = 4096       # so few bytes are cleared sooner than it is known whether they are
    LEAST_ALIGNMENT = 64        # of every block

# The default one is never freed.
cdef Core *core = &get_default().core
# What the quick path needs of it, at hand.
cdef Heaps *heaps = &core.heaps
cdef void **noting = &core.accounts.noting
cdef PageMap pages = core.pages     # to look up: its root stays where it is

cdef const char *causes[<int> BLOCKERS]     # by Blocker


# ---- refusals ----

cdef bint is_tried_again(unsigned int *attempt) noexcept nogil:
    """After an attempt that was refused: asks the handler, if there is one and this is not it."""
    global in_handler
    cdef const RefusalHandler *handler = <const RefusalHandler *> handler_now()
    cdef Refusal refusal
    cdef Refused refused
    cdef bint again
    attempt[0] += 1
    if handler == NULL or in_handler:
        return False
    refusal = refusals_last()
    refused.requested = refusal.requested
    refused.blocked_by = causes[<int> refusal.blocked_by]
    refused.attempt = attempt[0]
    in_handler = True
    again = handler.refused(handler.state, &refused) != 0
    in_handler = False
    refusals_restore(core, &refusal)   # not what the handler itself was refused
    return again


cdef const RefusalHandler *set_refusal_handler(const RefusalHandler *handler) noexcept nogil:
    return <const RefusalHandler *> swap_handler(handler)


cdef inline void *answer(void *start, int before) noexcept nogil:
    """What a function returns. errno tells a refusal, or is as it was before."""
    errno.errno = before
    if start == NULL:
        refusals_tell(core, C_CODE)
        errno.errno = errno.ENOMEM
    return start


# ---- one attempt ----

cdef bint alloc_slow_path(
    Account *account, bint sampled, uint64_t n, Block *block
) noexcept nogil:
    cdef WaitHooks hooks = c_wait_hooks()
    cdef Blocker blocker
    # A refusal names at least a byte, since there is a block for none, too.
    n = n or 1
    if account != NULL or sampled:
        blocker = charging_alloc(core, account, n, sampled, &hooks, block)
    else:
        blocker = growth_miss(core, n, &hooks, block)
    c_wait_hooks_end(&hooks)
    return blocker == NOTHING


cdef bint alloc(uint64_t n, Block *block) noexcept nogil:
    cdef bint looks = load_acquire(&core.accounts.open) != NULL
    cdef Account *account = account_of_caller(core) if looks else NULL
    cdef bint sampled = samples_draws(core, n)
    if looks and failing_refuses(core, n, C_CODE):
        return False
    if account == NULL and not sampled and core_hit(core, n, block):
        return True
    return alloc_slow_path(account, sampled, n, block)


cdef void *alloc_plain(uint64_t n) noexcept nogil:
    cdef Block block
    return block.start if alloc(n, &block) else NULL


cdef void *alloc_sampled(uint64_t n) noexcept nogil:
    cdef Block block
    return block.start if alloc_slow_path(NULL, True, n, &block) else NULL


cdef void *alloc_unsampled(uint64_t n) noexcept nogil:
    cdef Block block
    if core_hit(core, n, &block) or alloc_slow_path(NULL, False, n, &block):
        return block.start
    return NULL


cdef void clear(Block *block, uint64_t n) noexcept nogil:
    """All of a slab's block reads as zeros; of others n bytes, and rezalloc sees to the rest."""
    if block.resource.block_size:
        core_clear(core, block, block.capacity)
    else:
        core_clear(core, block, n)
        block.resource.cleared = n


cdef void *alloc_zeroed(uint64_t n) noexcept nogil:
    cdef Block block
    if not alloc(n, &block):
        return NULL
    clear(&block, n)
    return block.start


# ---- as often as the handler of refusals wants it ----

ctypedef void *(*Alloc)(uint64_t n) noexcept nogil

cdef void *alloc_retrying(Alloc attempt, uint64_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef unsigned int attempts = 0
    cdef void *start
    n = min(n, <uint64_t> INT64_MAX)
    while True:
        start = attempt(n)
        if start != NULL or not is_tried_again(&attempts):
            return answer(start, before)


cdef void *malloc_slow_path(uint64_t n) noexcept nogil:
    return alloc_retrying(alloc_plain, n)


cdef void *unsampled_slow_path(uint64_t n) noexcept nogil:
    return alloc_retrying(alloc_unsampled, n)


cdef void *malloc_noting(uint64_t n) noexcept nogil:
    if load_acquire(&core.accounts.open) != NULL:
        return malloc_slow_path(n)
    if samples_draws(core, n):
        return alloc_retrying(alloc_sampled, n)
    return heap_malloc_else(n, heaps, unsampled_slow_path)


cdef void *malloc(size_t n) noexcept nogil:
    if unlikely(load_acquire(noting) != NULL):
        return malloc_noting(n)
    return heap_malloc(n, heaps)


cdef void *calloc(size_t count, size_t n) noexcept nogil:
    cdef void *start
    # A product that overflows is longer than any buffer, and is refused as that.
    if (count | n) >> 31 and n != 0 and count > <uint64_t> INT64_MAX // n:
        return alloc_retrying(alloc_zeroed, INT64_MAX)
    n *= count
    if n > CLEARED_ANYWAY:
        return alloc_retrying(alloc_zeroed, n)
    start = malloc(n)
    if start != NULL:
        memset(start, 0, cache_block_size(cache_coarse(n)))
    return start


# ---- back ----

cdef void free(void *start) noexcept nogil:
    cdef Resource *resource = pagemap_find(&pages, start)
    if likely(resource != NULL):
        heap_free(start, resource)
    elif start != NULL:
        core_check(core, b"free", start)


cdef void free_found(void *resource, void *start) noexcept nogil:
    heap_free(start, <Resource *> resource)


# ---- blocks that are held ----

cdef size_t usable_size(const void *start) noexcept nogil:
    return family_capacity(family_find_held(core, b"usable_size", start)) if start != NULL else 0


# ---- longer and shorter ----

cdef void clear_rest(Resource *resource, char *start, uint64_t n, uint64_t capacity) noexcept nogil:
    """A block of calloc's or rezalloc's has n bytes now, those that are new up to `capacity`."""
    if resource.block_size:
        memset(start + n, 0, capacity - n)
        return
    if n > resource.cleared:
        memset(start + resource.cleared, 0, min(n, capacity) - resource.cleared)
    resource.cleared = n


cdef void *copy(
    Resource *resource, void *start, uint64_t n, bint zeroed, void *new
) noexcept nogil:
    """The new block in place of the old one; where it is NULL, what serves instead."""
    cdef uint64_t capacity = family_capacity(resource)
    cdef uint64_t kept = capacity
    if new == NULL:
        if n > capacity:
            return NULL
        if zeroed:
            clear_rest(resource, <char *> start, n, capacity)
        return start
    if zeroed and resource.block_size == 0:
        kept = min(capacity, resource.cleared)
    memcpy(new, start, min(kept, n))
    free(start)
    samples_note_grown(core, core_find(core, new))
    return new


cdef void *resize(
    const char *function, void *start, uint64_t n, bint zeroed
) noexcept nogil:
    """One attempt."""
    cdef Resource *resource = family_find_held(core, function, start)
    cdef uint64_t capacity = family_capacity(resource)
    cdef uint64_t before
    cdef Alloc again = alloc_zeroed if zeroed else alloc_plain
    cdef Resized resized
    cdef WaitHooks hooks
    cdef Block block
    if capacity // 2 <= n <= capacity:
        if zeroed:
            clear_rest(resource, <char *> start, n, capacity)
        return start
    # Charged or not, to whoever allocates here: it is another block.
    if load_acquire(&core.accounts.open) != NULL or load_acquire(&resource.charge) != NULL:
        return copy(resource, start, n, zeroed, again(n))
    if n > capacity and resize_with_idle(core, resource, start, n, &block):
        if block.start == start:
            if zeroed:
                clear_rest(resource, <char *> start, n, n)
            samples_note_grown(core, resource)
            return start
        if zeroed:
            clear(&block, n)
        return copy(resource, start, n, zeroed, block.start)
    # What is to be copied into an idle block may be less than what would be new.
    if n // 2 > capacity and core_hit(core, n, &block):
        if zeroed:
            clear(&block, n)
        return copy(resource, start, n, zeroed, block.start)
    hooks = c_wait_hooks()
    resized = resize_resource(core, resource, n, &hooks, &before)
    c_wait_hooks_end(&hooks)
    if resized == REFUSED:
        return NULL
    if resized == RESIZED:
        if zeroed:
            clear_rest(resource, resource.base, n, before)
        samples_note_grown(core, resource)
        return resource.base
    return copy(resource, start, n, zeroed, again(n))


cdef void *resize_retrying(
    const char *function, void *start, uint64_t n, bint zeroed
) noexcept nogil:
    cdef int before = errno.errno
    cdef unsigned int attempts = 0
    cdef void *resized
    n = min(n, <uint64_t> INT64_MAX)
    while True:
        resized = resize(function, start, n, zeroed)
        if resized != NULL or not is_tried_again(&attempts):
            return answer(resized, before)


cdef void *realloc(void *start, size_t n) noexcept nogil:
    return resize_retrying(b"realloc", start, n, False) if start != NULL else malloc(n)


cdef void *rezalloc(void *start, size_t n) noexcept nogil:
    return resize_retrying(b"rezalloc", start, n, True) if start != NULL else calloc(1, n)


# ---- aligned ----

cdef void *alloc_aligned(uint64_t alignment, uint64_t n) noexcept nogil:
    """One attempt, above the page."""
    cdef Block block
    if not alloc(family_longer(core, alignment, n), &block):
        return NULL
    return family_align(core, &block, alignment, n)


cdef void *aligned_alloc(size_t alignment, size_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef unsigned int attempts = 0
    cdef void *start
    if alignment == 0 or alignment & (alignment - 1):
        errno.errno = errno.EINVAL
        return NULL
    n = min(<uint64_t> n, <uint64_t> INT64_MAX)
    if alignment <= LEAST_ALIGNMENT:
        return malloc(n)
    if alignment <= core.page_size:
        # A slab's blocks start at multiples of their length, which is one of the alignment here.
        return malloc((max(n, <size_t> 1) + alignment - 1) & ~(alignment - 1))
    while True:
        start = alloc_aligned(alignment, n)
        if start != NULL or not is_tried_again(&attempts):
            return answer(start, before)


# ---- for C ----

cdef bint has_gil() noexcept nogil:
    return attached_thread() != NULL


cdef int list_causes() except -1:
    cdef int i
    for i in range(<int> BLOCKERS):
        causes[i] = PyUnicode_AsUTF8(BLOCKED_BY[i] or "")       # which live as long as the tuple
    return 0

list_causes()
heaps.malloc_slow_path = malloc_slow_path
family_open(core, has_gil)
cdef memlimits_functions table
table.version = MEMLIMITS_VERSION
table.size = sizeof(table)
table.malloc = malloc
table.calloc = calloc
table.realloc = realloc
table.free = free
table.aligned_alloc = aligned_alloc
table.usable_size = usable_size
table.rezalloc = rezalloc
table.set_refusal_handler = <const memlimits_refusal_handler *(*)(
    const memlimits_refusal_handler *handler) noexcept nogil> set_refusal_handler
functions_with_size = PyCapsule_New(&table, MEMLIMITS_CAPSULE, NULL)    # memlimits.h asks for it
# What the header of 0.1.0 asks for: the first four functions.
functions = PyCapsule_New(&table.malloc, "memlimits.functions", NULL)
