"""A whole process: its malloc is ours.

What stands in for malloc is a library of its own (objc/interpose.c), which the loader has to put
before all others when the process starts. Here the core takes part in it.
"""

from libc cimport errno
from libc.stdint cimport uint64_t

from memlimits._base.own cimport OwnStep, own_interposed
from memlimits._base.sync cimport load_count, store_release
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._engine.controls cimport controls_be_lean
from memlimits._engine.core cimport Core
from memlimits._engine.failing cimport failing_follow, failing_refuses
from memlimits._engine.family cimport (
    Free, family_aligned_alloc, family_calloc, family_capacity, family_free_any,
    family_free_others_by, family_give_back, family_malloc, family_owner, family_realloc,
    family_usable_size,
)
from memlimits._engine.fork cimport (
    fork_hand_over, fork_handed_over, fork_prepare, fork_resume,
)
from memlimits._engine.refusals cimport refusals_told
from memlimits._heap.heap cimport heap_malloc_fine, heap_noting_needs_malloc
from memlimits._ledger.queue cimport MALLOC

import sys

cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_DEFAULT
    void *dlsym(void *handle, const char *name)

cdef extern from "interpose.h" nogil:
    unsigned int MEMLIMITS_INTERPOSE_VERSION
    const char *MEMLIMITS_INTERPOSE
    const char *MEMLIMITS_INTERPOSE_OTHER
    ctypedef struct memlimits_interposed:
        unsigned int version
        void *(*malloc)(size_t n) noexcept nogil
        void *(*calloc)(size_t count, size_t n) noexcept nogil
        void *(*aligned_alloc)(size_t alignment, size_t n) noexcept nogil
        void (*free)(void *start) noexcept nogil
        int (*is_own)(const void *start) noexcept nogil
        void *(*realloc)(void *start, size_t n) noexcept nogil
        size_t (*usable_size)(const void *start) noexcept nogil
        void (*give_back)(void *start) noexcept nogil
        void (*before_fork)() noexcept nogil
        void (*after_fork)(int child) noexcept nogil
    ctypedef struct memlimits_interposer:
        OwnStep begin
        OwnStep end
        Free free
    ctypedef bint (*memlimits_interpose_function)(
        const memlimits_interposed *functions, memlimits_interposer *out) noexcept nogil
    ctypedef const char *(*memlimits_interpose_other_function)() noexcept nogil

cdef Allocator allocator = get_default()
cdef Core *core = &allocator.core

# The process's for as long as it lives.
cdef memlimits_interposed table
cdef memlimits_interposer interposer
cdef bint takes_part = False
cdef int rules = 0          # that have requests fail


# ---- what the process calls ----

cdef inline void *told(void *start) noexcept nogil:
    return refusals_told(core, start, MALLOC)


cdef void *malloc_slow_path(uint64_t n) noexcept nogil:
    return told(family_malloc(n))


cdef void *malloc(size_t n) noexcept nogil:
    return heap_malloc_fine(n, &core.heaps, malloc_slow_path)


cdef void *calloc(size_t count, size_t n) noexcept nogil:
    return told(family_calloc(count, n))


cdef void *realloc(void *start, size_t n) noexcept nogil:
    return told(family_realloc(start, n))


cdef void *aligned_alloc(size_t alignment, size_t n) noexcept nogil:
    return told(family_aligned_alloc(alignment, n))


cdef int is_own(const void *start) noexcept nogil:
    return family_owner(start) != NULL


# ---- while a test wants some to fail ----

# These stand in the table's place then, so that malloc has nothing to look at else.

cdef void *failed() noexcept nogil:
    errno.errno = errno.ENOMEM
    return told(NULL)


cdef bint fails(uint64_t n) noexcept nogil:
    cdef int before = errno.errno
    cdef bint refused = failing_refuses(core, n, MALLOC)
    errno.errno = before
    return refused


cdef void *failing_malloc(size_t n) noexcept nogil:
    return failed() if fails(n) else malloc(n)


cdef void *failing_calloc(size_t count, size_t n) noexcept nogil:
    return failed() if fails(count * n) else calloc(count, n)


cdef void *failing_realloc(void *start, size_t n) noexcept nogil:
    if n > family_capacity(family_owner(start)) and fails(n):
        return failed()
    return realloc(start, n)


cdef void *failing_aligned_alloc(size_t alignment, size_t n) noexcept nogil:
    return failed() if fails(n) else aligned_alloc(alignment, n)


cdef void follow_rules(int more) noexcept nogil:
    """Under Heaps.lock."""
    global rules
    cdef bint any
    rules += more
    any = rules != 0
    store_release(<void **> &table.malloc, <void *> (failing_malloc if any else malloc))
    store_release(<void **> &table.calloc, <void *> (failing_calloc if any else calloc))
    store_release(<void **> &table.realloc, <void *> (failing_realloc if any else realloc))
    store_release(
        <void **> &table.aligned_alloc,
        <void *> (failing_aligned_alloc if any else aligned_alloc))


# ---- from Python ----


def why_malloc_is_not_governed():
    """Say why no core can take part in this process's malloc; None where one can."""
    cdef void *found = dlsym(RTLD_DEFAULT, MEMLIMITS_INTERPOSE_OTHER)
    cdef const char *other
    if found == NULL and (" " in library() or ":" in library()):
        return (
            f"the loader takes the path of {library()!r} for several, for its spaces or colons: "
            "install memlimits in another folder")
    if found == NULL:
        return "the library that stands in for malloc was not loaded when the process started"
    other = (<memlimits_interpose_other_function> found)()
    if other != NULL and other[0] == 0:
        return (
            "calls of malloc do not reach the library that stands in for it: a tool takes them, as "
            "valgrind's memcheck and massif do")
    if other != NULL:
        return f"malloc is that of {other.decode(errors='replace')!r}"
    if heap_noting_needs_malloc():
        return "the process had 32 keys for threads' own values before memlimits was imported"
    return None


def take_part():
    """Have this process's malloc be ours from now on, for good.

    Returns
    -------
    str or None
        Why it is not; None where it is.
    """
    global takes_part
    cdef memlimits_interpose_function interpose
    if takes_part:
        return None
    if (reason := why_malloc_is_not_governed()) is not None:
        return reason
    interpose = <memlimits_interpose_function> dlsym(RTLD_DEFAULT, MEMLIMITS_INTERPOSE)
    table.version = MEMLIMITS_INTERPOSE_VERSION
    table.malloc = malloc
    table.calloc = calloc
    table.aligned_alloc = aligned_alloc
    table.free = family_free_any
    table.is_own = is_own
    table.realloc = realloc
    table.usable_size = family_usable_size
    table.give_back = family_give_back
    table.before_fork = fork_prepare
    table.after_fork = fork_resume
    # All is to be known before the first block comes back.
    interpose(NULL, &interposer)
    own_interposed(interposer.begin, interposer.end)
    family_free_others_by(interposer.free)
    # It tells of forks, too: this process's handlers came after those of libraries loaded before.
    fork_hand_over()
    takes_part = interpose(&table, &interposer) != 0
    fork_handed_over(takes_part)
    if not takes_part:
        return "another memlimits governs malloc in this process"
    controls_be_lean(core, 1)
    failing_follow(core, follow_rules)
    return None


def govern_malloc():
    """Let whatever any library gets from malloc be allocated by memlimits, for good.

    It takes effect at once, in every thread: ``malloc``, ``calloc``, ``realloc``, ``free`` and the
    rest of their family, C++'s operators, which call them, and mappings of 1 MiB and more that come
    from jemalloc, which polars and duckdb bring along. What was there before stays where it is
    until it is freed or grows. Called again, it does nothing.

    Arrays of NumPy's and Python's long objects come from malloc, too: `govern_numpy` has arrays
    charged to budgets besides, and `govern_python` adds Python's small objects.

    Where an allocation is refused, malloc returns NULL: what a library makes of that is its own.
    `memlimits.errors.is_refusal` tells of an exception whether that was behind it. Budgets do not
    charge any of it, reservations are not drawn on for it, and a thread that holds the GIL does not
    wait under the ``"wait"`` policy.

    pyarrow allocates by malloc if ``ARROW_DEFAULT_MEMORY_POOL`` is ``system`` at its import.

    Raises
    ------
    RuntimeError
        The process was not started with the library that stands in for malloc, as ``memlimits run
        --govern all`` starts it; or another allocator does, or another copy of memlimits; or CUDA
        is attached. The message says what to do.

    See Also
    --------
    set_memory_count : programs ask malloc for more than they touch; ``"resident"`` counts what is.

    Notes
    -----
    On Linux only.

    Examples
    --------
    In a program that was started by ``LD_PRELOAD=.../memlimits/lib/libinterpose.so python
    program.py``::

        memlimits.set_memory_limit(8 << 30)
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_count("resident")
        memlimits.govern_malloc()
        memlimits.govern_python()
        memlimits.govern_numpy()
    """
    modules = sys.modules["memlimits._modules"]
    if allocator.is_metal():
        raise RuntimeError(
            "a forked child would lose what malloc gave it, which would lie in Metal's buffers: "
            "on this device only NumPy's arrays can be governed (govern_numpy)")
    if not takes_part and load_count(&core.residency.registers):
        raise RuntimeError(
            "malloc cannot be governed while CUDA is attached, whose driver asks it for memory "
            "with locks of its own held: close the attachment first")
    if (reason := take_part()) is not None:
        raise RuntimeError(f"malloc cannot be governed: {reason}. {way_out()}")
    modules.for_notes().put_on()


cdef str library():
    return f"{sys.modules['memlimits'].__path__[0]}/lib/libinterpose.so"


cdef str way_out():
    if not sys.platform.startswith("linux"):
        return "Only Linux has the library for it; govern_python and govern_numpy work without"
    return (
        "Start the program as `memlimits run --govern all PROGRAM`, or with "
        f"LD_PRELOAD={library()} and no other allocator there")


def governs():
    """Whether the process's malloc is ours."""
    return takes_part
