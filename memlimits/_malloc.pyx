from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport INT64_MAX, uint64_t
from libc.string cimport memcpy, memset

from memlimits._allocator cimport get_default
from memlimits._accounts cimport Account
from memlimits._callers cimport c_caller, c_caller_ends
from memlimits._charging cimport core_take_on
from memlimits._contexts cimport account_of_caller
from memlimits._core cimport (
    Core, core_check, core_clear, core_find, core_free_slowly, core_hit, core_return,
)
from memlimits._growth cimport core_miss
from memlimits._heap cimport heap_free, heaps_malloc
from memlimits._limits cimport NOTHING, Blocker
from memlimits._resize cimport NOT_RESIZED, RESIZED, Resized, core_resize
from memlimits._resource cimport TAKEN, Block, Resource, slab_cuts
from memlimits._sync cimport load_acquire
from memlimits._waiting cimport Caller

cdef extern from *:
    bint likely(bint condition) nogil
    bint unlikely(bint condition) nogil

cdef extern from "memlimits.h":
    ctypedef struct memlimits_functions:
        void *(*malloc)(size_t n) noexcept nogil
        void *(*calloc)(size_t count, size_t n) noexcept nogil
        void *(*realloc)(void *start, size_t n) noexcept nogil
        void (*free)(void *start) noexcept nogil
    const char *MEMLIMITS_CAPSULE

cdef enum:
    CLEARED_ANYWAY = 4096       # so few bytes are cleared sooner than it is known whether they are

# The default one is never freed.
cdef Core *core = &get_default().core


cdef bint take_slowly(Account *account, uint64_t n, Block *block) noexcept nogil:
    cdef Caller caller = c_caller()
    cdef Blocker blocker
    # A refusal names at least a byte, since there is a block for none, too.
    n = n or 1
    if account != NULL:
        blocker = core_take_on(core, account, n, &caller, block)
    else:
        blocker = core_miss(core, n, &caller, block)
    c_caller_ends(&caller)
    return blocker == NOTHING


cdef void *take(uint64_t n, bint zeroed) noexcept nogil:
    cdef Block block
    cdef Account *account = account_of_caller(core)
    if (account != NULL or not core_hit(core, n, &block)) and not take_slowly(account, n, &block):
        return NULL
    if zeroed:
        core_clear(core, &block, n)
    return block.start


cdef void *malloc_slowly(uint64_t n) noexcept nogil:
    return take(min(n, <uint64_t> INT64_MAX), False)


cdef void *malloc(size_t n) noexcept nogil:
    cdef Core *here = core
    if unlikely(load_acquire(&here.accounts.open) != NULL):
        return malloc_slowly(n)
    return heaps_malloc(n, &here.heaps, malloc_slowly)


cdef void *calloc(size_t count, size_t n) noexcept nogil:
    cdef void *start
    # A product that overflows is longer than any buffer, and is refused as that.
    if (count | n) >> 31 and n != 0 and count > <uint64_t> INT64_MAX // n:
        return take(INT64_MAX, True)
    n *= count
    if n > CLEARED_ANYWAY:
        return take(n, True)
    start = malloc(n)
    if start != NULL:
        memset(start, 0, n)
    return start


cdef void free_slowly(void *start) noexcept nogil:
    core_return(core, core_free_slowly(core, core_find(core, start), start))


cdef void free(void *start) noexcept nogil:
    cdef Resource *resource = core_find(core, start)
    if likely(resource != NULL):
        heap_free(start, resource, free_slowly)
    elif start != NULL:
        core_check(core, b"free", start)


cdef Resource *find_held(const char *function, void *start) noexcept nogil:
    """The resource of a block that a caller holds. Any other address ends the process."""
    cdef Resource *resource = core_find(core, start)
    cdef bint held = False
    if resource != NULL and resource.block_size == 0:
        held = resource.use == TAKEN and start == resource.base
    elif resource != NULL:
        held = slab_cuts(resource, start) and (<void **> start)[1] != resource
    if not held:
        core_check(core, function, start)
    return resource


cdef void free_found(void *resource, void *start) noexcept nogil:
    heap_free(start, <Resource *> resource, free_slowly)


cdef void *copy(void *start, uint64_t capacity, uint64_t n, void *new) noexcept nogil:
    """The new block in place of the old one; where it is NULL, what serves instead."""
    if new == NULL:
        return start if n <= capacity else NULL
    memcpy(new, start, min(capacity, n))
    free(start)
    return new


cdef void *realloc(void *start, size_t n) noexcept nogil:
    cdef Resource *resource
    cdef uint64_t capacity
    cdef bint on_account
    cdef Resized resized
    cdef Caller caller
    cdef Block block
    n = min(<uint64_t> n, <uint64_t> INT64_MAX)
    if start == NULL:
        return malloc(n)
    resource = find_held(b"realloc", start)
    capacity = resource.block_size if resource.block_size else resource.bytes
    on_account = load_acquire(&core.accounts.open) != NULL or (
        load_acquire(&resource.charge) != NULL)
    if on_account and resource.block_size == 0 and resource.charge != NULL:
        capacity = resource.charged
    if capacity // 2 <= n <= capacity:
        return start
    if on_account:
        # Charged or not, to whoever allocates here: it is another block.
        return copy(start, capacity, n, malloc(n))
    # What is to be copied into an idle block may be less than what would be new.
    if n // 2 <= capacity or not core_hit(core, n, &block):
        caller = c_caller()
        resized = core_resize(core, resource, n, &caller)
        c_caller_ends(&caller)
        if resized != NOT_RESIZED:
            return resource.base if resized == RESIZED else NULL
        block.start = <char *> malloc(n)
    return copy(start, capacity, n, block.start)


cdef memlimits_functions table = memlimits_functions(malloc, calloc, realloc, free)
functions = PyCapsule_New(&table, MEMLIMITS_CAPSULE, NULL)      # what memlimits.h asks for
