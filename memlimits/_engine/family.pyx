from libc cimport errno
from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy, memset

from memlimits._base.sync cimport load_acquire
from memlimits._engine.core cimport (
    core_align, core_check, core_clear, core_find, core_free, core_free_for_good,
    core_free_slow_path, core_hit_fine, core_return,
)
from memlimits._engine.charging cimport charging_alloc
from memlimits._engine.growth cimport growth_miss
from memlimits._engine.samples cimport samples_note_grown, samples_draws
from memlimits._engine.refusals cimport refusals_add
from memlimits._engine.resize cimport (
    REFUSED, RESIZED, Resized, resize_resource, resize_with_idle,
)
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.cache cimport LARGEST_SLAB_BLOCK
from memlimits._heap.heap cimport heap_free, heap_malloc_fine
from memlimits._heap.pagemap cimport PageMap, pagemap_find, pagemap_find_any
from memlimits._heap.resource cimport (
    Block, is_taken, likely, resource_given, slab_starts_block,
)
from memlimits._ledger.limits cimport DEVICE, NOTHING

cdef enum:
    LEAST_ALIGNMENT = 16        # of every block

cdef Core *core
cdef PageMap pages       # to look up: its root stays where it is
cdef HasGil holds_gil
cdef Free free_others


cdef void family_open(Core *opened, HasGil has_gil) noexcept nogil:
    global core, holds_gil, pages
    holds_gil = has_gil
    pages = opened.pages
    opened.heaps.free_slow_path = family_free_slow_path
    core = opened


# ---- of a block ----

cdef Resource *family_owner(const void *start) noexcept nogil:
    return pagemap_find_any(&pages, start)


cdef uint64_t family_capacity(Resource *resource) noexcept nogil:
    if resource.block_size:
        return resource.block_size
    # What is charged to an account is all that its holder may use.
    if load_acquire(&resource.charge) != NULL:
        return resource.charged - resource.shift
    return resource_given(resource) - resource.shift


cdef Resource *family_find_held(
    Core *core, const char *function, const void *start
) noexcept nogil:
    cdef Resource *resource = core_find(core, start)
    cdef bint held = False
    if resource != NULL and resource.block_size == 0:
        held = is_taken(resource) and start == resource.base + resource.shift
    elif resource != NULL:
        held = slab_starts_block(resource, start) and (<const void **> start)[1] != resource
    if not held:
        core_check(core, function, start)
    return resource


cdef uint64_t family_longer(const Core *core, uint64_t alignment, uint64_t n) noexcept nogil:
    # A byte at least, or the block might start where its resource ends.
    n = min(max(n, <uint64_t> 1), <uint64_t> INT64_MAX)
    n = max(n + (alignment - core.page_size), <uint64_t> LARGEST_SLAB_BLOCK + 1)
    return min(n, <uint64_t> INT64_MAX)


cdef void *family_align(
    Core *core, Block *block, uint64_t alignment, uint64_t n
) noexcept nogil:
    if core_align(core, block, alignment):
        return block.start
    core_return(core, core_free(core, block.resource, block.start))
    refusals_add(core, n, DEVICE)
    return NULL


cdef size_t family_usable_size(const void *start) noexcept nogil:
    return family_capacity(family_find_held(core, b"malloc_usable_size", start))


# ---- taking ----

cdef WaitHooks wait_hooks() noexcept nogil:
    cdef WaitHooks hooks
    memset(&hooks, 0, sizeof(WaitHooks))
    hooks.never_waits = holds_gil()
    hooks.fine = True
    return hooks


cdef inline void *answer(void *start, int before) noexcept nogil:
    """What a function returns. errno tells a refusal, or is as it was before."""
    errno.errno = before if start != NULL else errno.ENOMEM
    return start


cdef bint alloc(uint64_t n, Block *block) noexcept nogil:
    n = min(<uint64_t> n, <uint64_t> INT64_MAX)
    if samples_draws(core, n):
        return alloc_noted(n, block)
    return core_hit_fine(core, n, block) or miss(n, block)


cdef bint miss(uint64_t n, Block *block) noexcept nogil:
    cdef WaitHooks hooks = wait_hooks()
    # A refusal names at least a byte, since there is a block for none, too.
    return growth_miss(core, n or 1, &hooks, block) == NOTHING


cdef bint alloc_noted(uint64_t n, Block *block) noexcept nogil:
    cdef WaitHooks hooks = wait_hooks()
    return charging_alloc(core, NULL, n or 1, True, &hooks, block) == NOTHING


cdef void *alloc_block(uint64_t n) noexcept nogil:
    cdef Block block
    return block.start if alloc(n, &block) else NULL


cdef void *malloc_slow_path(uint64_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef Block block
    n = min(<uint64_t> n, <uint64_t> INT64_MAX)
    return answer(
        block.start if core_hit_fine(core, n, &block) or miss(n, &block) else NULL, before)


cdef void *malloc_noted(uint64_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef Block block
    n = min(<uint64_t> n, <uint64_t> INT64_MAX)
    return answer(block.start if alloc_noted(n, &block) else NULL, before)


cdef void *family_malloc(size_t n) noexcept nogil:
    if samples_draws(core, n):
        return malloc_noted(n)
    return heap_malloc_fine(n, &core.heaps, malloc_slow_path)


cdef void *family_calloc(size_t count, size_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef Block block
    # A product that overflows is longer than any buffer, and is refused as that.
    if (count | n) >> 31 and n != 0 and count > <uint64_t> INT64_MAX // n:
        n, count = INT64_MAX, 1
    if not alloc(count * n, &block):
        return answer(NULL, before)
    core_clear(core, &block, count * n)
    return answer(block.start, before)


cdef void *alloc_aligned(uint64_t alignment, uint64_t n) noexcept nogil:
    cdef Block block
    if not alloc(family_longer(core, alignment, n), &block):
        return NULL
    return family_align(core, &block, alignment, n)


cdef void *family_aligned_alloc(size_t alignment, size_t n) noexcept nogil:
    cdef int before = errno.errno
    if alignment <= LEAST_ALIGNMENT:
        return family_malloc(n)
    if alignment <= core.page_size:
        # A slab's blocks start at multiples of their length, which is one of the alignment here.
        n = min(<uint64_t> n or 1, <uint64_t> INT64_MAX)
        return family_malloc((n + alignment - 1) & ~(alignment - 1))
    return answer(alloc_aligned(alignment, n), before)


# ---- giving back ----

cdef void family_free_slow_path(void *start) noexcept nogil:
    cdef int before = errno.errno
    core_return(core, core_free_slow_path(core, core_find(core, start), start))
    errno.errno = before


cdef void family_free(void *start) noexcept nogil:
    heap_free(start, pagemap_find(&pages, start))


cdef void family_give_back(void *start) noexcept nogil:
    cdef int before = errno.errno
    core_return(core, core_free_for_good(core, core_find(core, start), start))
    errno.errno = before


cdef void family_free_others_by(Free others) noexcept nogil:
    global free_others
    free_others = others


cdef void family_free_any(void *start) noexcept nogil:
    cdef Resource *resource = pagemap_find_any(&pages, start)
    if likely(resource != NULL):
        heap_free(start, resource)
    else:
        free_others(start)


# ---- longer and shorter ----

cdef void *copy(void *start, uint64_t capacity, uint64_t n, void *new) noexcept nogil:
    """The new block in place of the old one; where there is none, what serves instead."""
    if new == NULL:
        return start if n <= capacity else NULL
    memcpy(new, start, min(capacity, n))
    family_free(start)
    samples_note_grown(core, core_find(core, new))
    return new


cdef void *resize(void *start, uint64_t n) noexcept nogil:
    cdef Resource *resource = family_find_held(core, b"realloc", start)
    cdef uint64_t capacity = family_capacity(resource)
    cdef uint64_t _before
    cdef Resized resized
    cdef WaitHooks hooks
    cdef Block block
    if capacity // 2 <= n <= capacity:
        return start
    if n > capacity and load_acquire(&resource.charge) == NULL and (
        resize_with_idle(core, resource, start, n, &block)
    ):
        if block.start != start:
            return copy(start, capacity, n, block.start)
        samples_note_grown(core, resource)
        return start
    # What is to be copied into an idle block may be less than what would be new.
    if n // 2 > capacity and core_hit_fine(core, n, &block):
        return copy(start, capacity, n, block.start)
    if load_acquire(&resource.charge) == NULL:
        hooks = wait_hooks()
        resized = resize_resource(core, resource, n, &hooks, &_before)
        if resized == RESIZED:
            samples_note_grown(core, resource)
            return resource.base
        if resized == REFUSED:
            return NULL
    return copy(start, capacity, n, alloc_block(n))


cdef void *realloc_slow_path(void *start, uint64_t n) noexcept nogil:
    cdef int before = errno.errno
    return answer(resize(start, min(n, <uint64_t> INT64_MAX)), before)


cdef inline bint stays(Resource *resource, const void *start, uint64_t n) noexcept nogil:
    """Whether a block surely is one that is held, on no account, and long enough, but not twice."""
    cdef uint64_t capacity = resource.block_size
    if capacity:
        return capacity // 2 <= n <= capacity and slab_starts_block(resource, start) and (
            (<const void **> start)[1] != resource)
    capacity = resource_given(resource)
    return capacity // 2 <= n <= capacity and is_taken(resource) and start == resource.base and (
        load_acquire(&resource.charge) == NULL and resource.shift == 0)


cdef void *family_resize(Resource *resource, void *start, size_t n) noexcept nogil:
    return start if likely(stays(resource, start, n)) else realloc_slow_path(start, n)


cdef void *family_realloc(void *start, size_t n) noexcept nogil:
    return realloc_slow_path(start, n) if start != NULL else family_malloc(n)
