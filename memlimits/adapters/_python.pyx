"""Python's own memory from memlimits: the allocator of CPython's RAW domain, and that of arenas.

pymalloc stays where it is, in front of both: it asks RAW for what is longer than 512 bytes, and
cuts the rest from arenas. Our functions are called with the GIL or without, by any thread, also
while the interpreter starts one or ends: they run no Python and touch no object.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from memlimits._base.own cimport own_objects_governed
from memlimits._base.sync cimport (
    add_atomically, load_count, store_count, store_release, take_atomically,
)
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._engine.controls cimport controls_be_lean, controls_keep_back, controls_read
from memlimits._engine.failing cimport failing_follow, failing_refuses
from memlimits._engine.family cimport (
    family_calloc, family_capacity, family_free, family_malloc, family_resize, family_usable_size,
)
from memlimits._engine.refusals cimport refusals_told
from memlimits._heap.heap cimport heap_free
from memlimits._heap.pagemap cimport PageMap, pagemap_find_any
from memlimits._heap.resource cimport Resource, likely, unlikely
from memlimits._ledger.queue cimport PYTHON
from memlimits.adapters._governing cimport Governing, new_governing

import sys
from _thread import RLock

cdef extern from "Python.h" nogil:
    int PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ
    ctypedef struct PyMemAllocatorEx:
        void *ctx
        void *(*malloc)(void *ctx, size_t n) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t n) noexcept nogil
        void *(*realloc)(void *ctx, void *start, size_t n) noexcept nogil
        void (*free)(void *ctx, void *start) noexcept nogil
    ctypedef struct PyObjectArenaAllocator:
        void *ctx
        void *(*alloc)(void *ctx, size_t n) noexcept nogil
        void (*free)(void *ctx, void *start, size_t n) noexcept nogil
    void PyMem_GetAllocator(int domain, PyMemAllocatorEx *allocator)
    void PyMem_SetAllocator(int domain, PyMemAllocatorEx *allocator)
    void PyObject_GetArenaAllocator(PyObjectArenaAllocator *allocator)
    void PyObject_SetArenaAllocator(PyObjectArenaAllocator *allocator)
    void *PyMem_RawMalloc(size_t n)

cdef extern from *:
    """
    #include <dlfcn.h>

    #ifdef __APPLE__
    #include <malloc/malloc.h>
    #define malloc_usable_size malloc_size
    #else
    #include <malloc.h>
    #endif

    /* The file that an address was loaded from, or NULL. */
    static const char *file_of(const void *address)
    {
        Dl_info info;
        return dladdr(address, &info) != 0 ? info.dli_fname : NULL;
    }

    static int in_one_file(const void *one, const void *other)
    {
        Dl_info first, second;
        return dladdr(one, &first) != 0 && dladdr(other, &second) != 0 &&
               first.dli_fbase == second.dli_fbase;
    }

    static _Thread_local int arena_refused;     /* since this thread's last small request of RAW */
    static _Thread_local int aside;             /* how deep it is in what is not to be governed */
    """
    size_t malloc_usable_size(void *start) nogil
    const char *file_of(const void *address)
    bint in_one_file(const void *one, const void *other)
    bint arena_refused
    int aside

cdef enum:
    DOMAINS = 3
    # An arena has at least so many bytes; what else is asked of its allocator, pieces of the
    # interpreter's stack, has less.
    LEAST_ARENA = 256 << 10
    # What pymalloc cuts from arenas, 512 bytes, and what the debug hooks add to that.
    LONGEST_SMALL = 512 + 64
    # Of the memory limit, for the error that follows a refusal, its traceback, for which Python
    # imports modules from 3.13 on, of 3 MiB and on 3.15 of 5, and the report; and before one for
    # those who ask for little and look at no NULL: seven arenas.
    FOR_ERRORS = 7 << 20
    MOST_ERRORS = 1024

cdef Allocator allocator = get_default()
cdef const PageMap *pages = &allocator.core.pages

cdef int64_t open_governings = 0        # changed atomically
# Threads whose `arena_refused` is set, depths, and rules that have requests fail: changed
# atomically.
cdef int64_t apart = 0
# What was there before, once ours stand in their place.
cdef PyMemAllocatorEx plain
cdef PyObjectArenaAllocator plain_arenas
cdef bint plain_is_libcs                # so that libc knows how long its blocks are


# ---- a refused arena ----

# pymalloc takes it for no refusal: it asks RAW for the object instead, at once and on the same
# thread, and would do so for each small object from then on. So that request is refused, too.

cdef void note_refused_arena() noexcept nogil:
    global arena_refused
    if not arena_refused:
        arena_refused = True
        add_atomically(&apart, 1)


cdef bint is_for_refused_arena(size_t n) noexcept nogil:
    global arena_refused
    if n > LONGEST_SMALL or not arena_refused:
        return False
    arena_refused = False
    add_atomically(&apart, -1)
    return True


# Python keeps 16 MemoryErrors to spare. Where more threads than that raise one, and 3.11 can make
# none, it ends the process. So a few objects of their length are the C library's, in whose stead an
# arena was refused, until one is given again.
cdef size_t error_size = sys.getsizeof(MemoryError())
cdef int64_t errors_left = MOST_ERRORS      # atomic


cdef void *instead_of_arena(size_t n) noexcept nogil:
    if n == error_size and take_atomically(&errors_left, 1):
        return plain.malloc(plain.ctx, n)
    return NULL


# ---- what is not governed ----

# Ended before it was begun on a thread where what governs came in between.
cdef void aside_begin() noexcept nogil:
    global aside
    aside += 1
    add_atomically(&apart, 1)


cdef void aside_end() noexcept nogil:
    global aside
    if aside:
        aside -= 1
        add_atomically(&apart, -1)


cdef void *move_aside(void *ctx, void *start, size_t n) noexcept nogil:
    cdef void *new = plain.malloc(ctx, n)
    if new != NULL:
        memcpy(new, start, min(n, family_usable_size(start)))
        family_free(start)
    return new


# ---- what CPython calls ----

cdef inline void *told(void *start) noexcept nogil:
    return refusals_told(&allocator.core, start, PYTHON)


cdef bint fails(size_t n) noexcept nogil:
    """Whether a test wants that of a governed request; only where `apart` says so."""
    return load_count(&open_governings) != 0 and failing_refuses(&allocator.core, n, PYTHON)


cdef void follow_rules(int more) noexcept nogil:
    add_atomically(&apart, more)


cdef void *raw_malloc(void *ctx, size_t n) noexcept nogil:
    if unlikely(load_count(&apart) != 0):
        if aside:
            return plain.malloc(ctx, n)
        if is_for_refused_arena(n):
            return instead_of_arena(n)
        if fails(n):
            return told(NULL)
    if load_count(&open_governings) == 0:
        return plain.malloc(ctx, n)
    return told(family_malloc(n))


cdef void *raw_calloc(void *ctx, size_t count, size_t n) noexcept nogil:
    if unlikely(load_count(&apart) != 0):
        if aside:
            return plain.calloc(ctx, count, n)
        if is_for_refused_arena(count * n):
            return NULL
        if fails(count * n):
            return told(NULL)
    if load_count(&open_governings) == 0:
        return plain.calloc(ctx, count, n)
    return told(family_calloc(count, n))


cdef void raw_free(void *ctx, void *start) noexcept nogil:
    cdef Resource *resource = pagemap_find_any(pages, start)
    if resource != NULL:
        heap_free(start, resource)
    else:
        plain.free(ctx, start)


cdef bint is_longer(Resource *resource, void *start, size_t n) noexcept nogil:
    if resource != NULL:
        return n > family_capacity(resource)
    return not plain_is_libcs or n > malloc_usable_size(start)


cdef void *raw_realloc(void *ctx, void *start, size_t n) noexcept nogil:
    cdef Resource *resource
    if start == NULL:
        return raw_malloc(ctx, n)
    resource = pagemap_find_any(pages, start)
    if unlikely(load_count(&apart) != 0):
        if aside:
            return plain.realloc(ctx, start, n) if resource == NULL else move_aside(ctx, start, n)
        if is_longer(resource, start, n) and fails(n):
            return told(NULL)
    if likely(resource != NULL):
        return told(family_resize(resource, start, n))
    if load_count(&open_governings) == 0 or not plain_is_libcs or malloc_usable_size(start) >= n:
        return plain.realloc(ctx, start, n)
    return move(ctx, start, n)


cdef void *move(void *ctx, void *start, size_t n) noexcept nogil:
    """A block of libc's becomes a longer one of ours. NULL: it stays as it is."""
    cdef void *new = told(family_malloc(n))
    if new != NULL:
        memcpy(new, start, malloc_usable_size(start))
        plain.free(ctx, start)
    return new


cdef void *arena_alloc(void *ctx, size_t n) noexcept nogil:
    cdef void *start
    cdef bint failed
    if load_count(&open_governings) == 0:
        return plain_arenas.alloc(ctx, n)
    # pymalloc asks RAW for each small object then: no arena is to be left to the program.
    if aside and n >= LEAST_ARENA:
        return NULL
    failed = unlikely(load_count(&apart) != 0) and failing_refuses(&allocator.core, n, PYTHON)
    start = told(NULL if failed else family_malloc(n))
    if n >= LEAST_ARENA:
        if start == NULL:
            note_refused_arena()
        elif load_count(&errors_left) != MOST_ERRORS:
            store_count(&errors_left, MOST_ERRORS)
    return start


cdef void arena_free(void *ctx, void *start, size_t n) noexcept nogil:
    if pagemap_find_any(pages, start) != NULL:
        family_free(start)
    else:
        plain_arenas.free(ctx, start, n)


# ---- where ours stand ----

# Beneath whatever else was put over CPython's own functions: a tool that ends puts back what it
# found, and the debug hooks see each block before us. Such a hook keeps what it found in a struct
# for all three domains, and its contexts point into it. Ours stay for good: a block of either owner
# may come back at any time, and the page map tells whose it is.

# As the debug hooks keep it.
cdef struct DebugHook:
    char domain
    PyMemAllocatorEx found

# What serves a domain, and where that is kept: NULL for by the interpreter itself.
cdef struct Place:
    PyMemAllocatorEx *kept
    PyMemAllocatorEx now


cdef bint are_apart(const Place *places, size_t n) noexcept:
    """Whether the contexts are three neighbours of n bytes each."""
    cdef char *raw = <char *> places[PYMEM_DOMAIN_RAW].now.ctx
    cdef char *mem = <char *> places[PYMEM_DOMAIN_MEM].now.ctx
    cdef char *obj = <char *> places[PYMEM_DOMAIN_OBJ].now.ctx
    cdef char *first = min(raw, min(mem, obj))
    cdef char *last = max(raw, max(mem, obj))
    if raw == NULL or mem == NULL or obj == NULL:
        return False
    return <size_t> (last - first) == 2 * n and (
        <size_t> (raw - first) + <size_t> (mem - first) + <size_t> (obj - first) == 3 * n)


cdef bint go_beneath(Place *places) noexcept:
    """One hook; False where it is of no kind that is known."""
    cdef bint plainly = are_apart(places, sizeof(PyMemAllocatorEx))
    cdef int domain
    cdef void *ctx
    if not plainly and not are_apart(places, sizeof(DebugHook)):
        return False
    for domain in range(DOMAINS):
        ctx = places[domain].now.ctx
        places[domain].kept = (
            <PyMemAllocatorEx *> ctx if plainly else &(<DebugHook *> ctx).found)
        places[domain].now = places[domain].kept[0]
    return True


cdef bint is_pythons_own(const PyMemAllocatorEx *allocator) noexcept:
    return allocator.ctx == NULL and in_one_file(
        <void *> allocator.malloc, <void *> PyMem_RawMalloc)


cdef void place_functions(int domain, const Place *place) noexcept:
    """Who finds one that gives blocks of ours finds what takes them back."""
    cdef PyMemAllocatorEx ours = place.now
    if place.kept == NULL:
        ours.free, ours.realloc = raw_free, raw_realloc
        PyMem_SetAllocator(domain, &ours)
        ours.malloc, ours.calloc = raw_malloc, raw_calloc
        PyMem_SetAllocator(domain, &ours)
    else:
        store_release(<void **> &place.kept.free, <void *> raw_free)
        store_release(<void **> &place.kept.realloc, <void *> raw_realloc)
        store_release(<void **> &place.kept.calloc, <void *> raw_calloc)
        store_release(<void **> &place.kept.malloc, <void *> raw_malloc)


cdef int place_arenas() except -1:
    cdef PyObjectArenaAllocator ours
    PyObject_GetArenaAllocator(&plain_arenas)
    ours = plain_arenas
    ours.free = arena_free
    PyObject_SetArenaAllocator(&ours)
    ours.alloc = arena_alloc
    PyObject_SetArenaAllocator(&ours)
    return 0


cdef object owner_of(const PyMemAllocatorEx *allocator):
    """Whose functions these are, in words."""
    cdef const char *file = file_of(<void *> allocator.malloc)
    name = "a file that is not known" if file == NULL else file.decode(errors="replace")
    if "/memlimits/_modules" in name:
        return f"another copy of memlimits, {name}"
    return f"another library, {name}"


cdef int place_all() except -1:
    global plain, plain_is_libcs
    cdef Place places[DOMAINS]
    cdef int domain
    for domain in range(DOMAINS):
        places[domain].kept = NULL
        PyMem_GetAllocator(domain, &places[domain].now)
    while not is_pythons_own(&places[PYMEM_DOMAIN_RAW].now):
        if not go_beneath(places):
            raise RuntimeError(
                "Python's memory cannot be governed: it is allocated by "
                f"{owner_of(&places[PYMEM_DOMAIN_RAW].now)}; govern it before that starts, or "
                "after it has ended")
    plain = places[PYMEM_DOMAIN_RAW].now
    # mimalloc has one function for MEM, and another one for OBJ.
    plain_is_libcs = places[PYMEM_DOMAIN_MEM].now.malloc == places[PYMEM_DOMAIN_OBJ].now.malloc
    place_arenas()
    for domain in range(DOMAINS):
        # All three are RAW's where there is no pymalloc (PYTHONMALLOC=malloc).
        if places[domain].now.malloc == plain.malloc:
            place_functions(domain, &places[domain])
    return 0


cdef void after_one_closed() noexcept nogil:
    controls_be_lean(&allocator.core, -1)
    if load_count(&open_governings) == 0:
        controls_keep_back(&allocator.core, 0)


cdef object placing = RLock()
cdef bint placed = False


def govern_python():
    """Let the memory of Python's own objects be allocated by memlimits.

    It takes effect at once, in every thread and interpreter of the process. What Python asks the
    system for is allocated by memlimits: blocks of more than 512 bytes, and the arenas of 1 MiB
    that smaller ones are cut from. What was there before stays where it is until it is freed or
    grows; what is allocated meanwhile stays valid afterwards.

    Where an allocation is refused, Python raises `MemoryError`, and `last_refusal` has the numbers:
    those of the arena, where a small object was the first that did not fit.

    Of the memory limit 7 MiB, but a quarter at most, are kept back until something is refused, so
    that the error can be raised, printed and logged, and again once there is room. Blocks of more
    than 1 MiB never get any of it, and those of 512 KiB and less may have a quarter before.

    Less is kept idle then, of arrays and buffers, too: growth returns what is above a thirty-second
    of the most that was in use and 2 MiB, and 4 MiB for each further thread.

    Budgets do not charge any of it, reservations are not drawn on for it, and under the ``"wait"``
    policy it does not wait. A thread that starts may have what is kept back.

    Tools that replace Python's allocators, such as `tracemalloc` and memray, and the hooks of
    ``PYTHONMALLOC=debug`` go on to see each allocation, whichever starts or ends first.

    Returns
    -------
    Governing
        A context manager with ``close``. While any is open Python's memory is governed. Its
        ``ungoverned`` says what is not where mimalloc serves objects, in free-threaded builds and
        with ``PYTHONMALLOC=mimalloc``: that has nothing to hook.

    Raises
    ------
    RuntimeError
        Another library, or another copy of memlimits, allocates Python's memory in a way that is
        not known, so that ending it could not be survived. Or memory is Metal's, which a forked
        child loses: Python's objects are to be there in it.

    See Also
    --------
    govern_numpy : arrays.
    govern_children : the Pythons that are started from here.
    memlimits.errors.is_refusal : whether a MemoryError was one of ours.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=64 << 20, policy="strict"), memlimits.govern_python():
    ...     try:
    ...         numbers = list(range(100_000_000))
    ...     except MemoryError as error:
    ...         print(memlimits.errors.is_refusal(error))
    True
    """
    global placed
    cdef Governing governing
    if allocator.is_metal():
        raise RuntimeError(
            "a forked child would lose its objects, which would lie in Metal's buffers: "
            "on this device only NumPy's arrays can be governed (govern_numpy)")
    with placing:
        if not placed:
            place_all()
            placed = True
            own_objects_governed(aside_begin, aside_end)
            failing_follow(&allocator.core, follow_rules)
    sys.modules["memlimits._modules"].for_notes().put_on()
    governing = new_governing(&open_governings, 1)
    governing.closed = after_one_closed
    controls_be_lean(&allocator.core, 1)
    controls_keep_back(&allocator.core, FOR_ERRORS)
    governing.ungoverned = ungoverned()
    return governing


def keep_back(uint64_t nbytes):
    """Have so much be kept back for errors, while anything is governed; return how much was."""
    cdef uint64_t before = controls_read(&allocator.core, &allocator.core.limits.wanted_back)
    controls_keep_back(&allocator.core, nbytes)
    return before


def ungoverned():
    """Say what of Python's memory is not governed while a Governing is open; None for nothing."""
    if plain_is_libcs or not placed:
        return None
    return (
        "Python's objects are allocated by mimalloc here (free-threaded, or PYTHONMALLOC=mimalloc) "
        "and count towards no limit")


def governs():
    """Whether a Governing is open."""
    return load_count(&open_governings) != 0
