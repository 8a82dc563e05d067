"""NumPy's data memory from memlimits: the C side of NEP 49, and arrays that own such memory.

The data functions are called by NumPy, with the GIL or without; they never take it nor give it up.
"""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcpy, strcpy

from memlimits._base.python cimport FastFunction, PyCFunction, PyCFunctionObject, small_int
from memlimits._base.sync cimport (
    add_atomically, load_count, pthread_once, pthread_once_t, store_release,
)
from memlimits._bindings.allocator cimport Allocator, callers_level, get_default, raise_refusal
from memlimits._bindings.buffer cimport alloc_block
from memlimits._bindings.wait_hooks cimport c_wait_hooks_allow
from memlimits._engine.core cimport Core, core_tell_now
from memlimits._engine.failing cimport failing_follow, failing_pass, failing_refuses
from memlimits._engine.family cimport family_capacity
from memlimits._engine.refusals cimport refusals_last, refusals_told
from memlimits._heap.pagemap cimport PageMap, pagemap_find_any
from memlimits._heap.resource cimport Block, Resource, unlikely
from memlimits._ledger.queue cimport NUMPY
from memlimits._malloc cimport calloc, free, free_found, malloc, realloc
from memlimits._residency.pins cimport pins_change
from memlimits.adapters._governing cimport Governing, new_governing

import sys
import warnings

import numpy

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *start, size_t size) noexcept nogil
        void (*free)(void *ctx, void *start, size_t size) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator

    int _import_array() except -1
    void **PyArray_API
    object PyDataMem_SetHandler(object handler)
    object PyDataMem_GetHandler()
    PyObject *PyDataMem_DefaultHandler

    ctypedef Py_ssize_t npy_intp
    ctypedef struct PyArray_Descr:
        int type_num
    ctypedef struct PyArrayObject_fields:
        char *data
        int flags
        PyObject *mem_handler
    int NPY_CLONGDOUBLE, NPY_HALF, NPY_ARRAY_CARRAY, NPY_ARRAY_FARRAY, NPY_ARRAY_OWNDATA
    PyTypeObject PyArray_Type
    bint PyArray_DescrCheck(object op)
    npy_intp PyDataType_ELSIZE(const PyArray_Descr *descr)
    object PyArray_NewFromDescr(
        PyTypeObject *subtype, PyArray_Descr *descr, int nd, const npy_intp *dims,
        const npy_intp *strides, void *data, int flags, PyObject *obj)

cdef extern from *:
    """
    static pthread_once_t placed = PTHREAD_ONCE_INIT;
    static _Thread_local int spared;
    """
    pthread_once_t placed
    int spared                  # how often this thread is

cdef extern from *:
    """
    #define UNALIGNED ((int64_t)1 << 32)
    """
    int64_t UNALIGNED           # one that wants arrays unaligned, in a count of open ones

cdef extern from "Python.h":
    PyObject *PyTuple_GET_ITEM(object tuple, Py_ssize_t i)
    int PyTraceMalloc_Track(unsigned int domain, uintptr_t address, size_t size)

cdef Allocator allocator = get_default()
cdef Core *core = &allocator.core
cdef const PageMap *pages = &core.pages

cdef enum:
    MOST_DIMENSIONS = 32
    ALIGNMENT = 64              # of every block
    BEHIND = 32                 # a block's start, where data is to be unaligned
    TRACE_DOMAIN = 389047       # numpy.lib.tracemalloc_domain


cdef inline void *told(void *start) noexcept nogil:
    return refusals_told(core, start, NUMPY)


cdef inline bint fails(size_t size) noexcept nogil:
    """Whether a test wants that; only where `apart` says that anything is to be looked at."""
    return failing_refuses(core, size, NUMPY)


cdef void *passed(void *(*ask)(size_t count, size_t size) noexcept nogil,
                  size_t count, size_t size) noexcept nogil:
    """As it is, of what was looked at: it counts as no request of C code's."""
    cdef void *start
    failing_pass(1)
    start = ask(count, size)
    failing_pass(-1)
    return start


cdef void *data_malloc(void *ctx, size_t size) noexcept nogil:
    if unlikely(load_count(&apart) != 0):
        return told(NULL if fails(size) else passed(malloc_of, 1, size))
    return told(malloc(size))


cdef void *data_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    if unlikely(load_count(&apart) != 0):
        return told(NULL if fails(count * size) else passed(calloc, count, size))
    return told(calloc(count, size))


cdef void *data_realloc(void *ctx, void *start, size_t size) noexcept nogil:
    cdef void *resized
    if unlikely(load_count(&apart) != 0) and is_longer(start, size) and fails(size):
        return told(NULL)
    c_wait_hooks_allow(False)    # as in governed_realloc
    failing_pass(1)
    resized = realloc(start, size)
    failing_pass(-1)
    c_wait_hooks_allow(True)
    return told(resized)


cdef void data_free(void *ctx, void *start, size_t size) noexcept nogil:
    free(start)


# Ours, for arrays that are our own.
cdef PyDataMem_Handler handler
cdef object capsule


def own_handler():
    """The handler that allocates from memlimits."""
    return capsule


# ---- NumPy's default handler ----

# NumPy takes its handler from a context variable whose default this is, so that whoever set nothing
# has it, on any thread and in any context. `govern` puts our functions in the place of its own, for
# good: from then on what comes back may be either's, and the page map tells. What is asked for is
# ours while any Governing is open.
cdef PyDataMem_Handler *default_handler
cdef PyDataMemAllocator plain           # its own functions, once ours stand in their place
# How many are open, and in the upper half how many of them want arrays unaligned: read and changed
# atomically.
cdef int64_t open_governings = 0
# Likewise: how many threads are spared, each as often as it is, and rules that have requests fail.
cdef int64_t apart = 0


cdef inline Resource *find(const void *start) noexcept nogil:
    """Of data that we gave; NULL for other data.

    NumPy's own may lie in a block of ours, too, which Python or malloc gave it: behind what the
    debug hooks put before it, or one of those that do not start at multiples of ALIGNMENT.
    """
    cdef Resource *resource = pagemap_find_any(pages, start)
    if resource != NULL and (
        <uintptr_t> start & (BEHIND - 1) or resource.block_size & (ALIGNMENT - 1)
    ):
        return NULL
    return resource


cdef inline bint is_unaligned(int64_t governings) noexcept nogil:
    return governings >= UNALIGNED


cdef inline void *behind(void *block) noexcept nogil:
    return NULL if block == NULL else <char *> block + BEHIND


cdef inline void *block_of(void *start) noexcept nogil:
    """Where the block starts that an array's data lies in: there, or BEHIND it."""
    return <void *> (<uintptr_t> start & ~<uintptr_t> (ALIGNMENT - 1))


cdef void *malloc_behind(size_t size) noexcept nogil:
    return behind(malloc(min(size, <size_t> INT64_MAX) + BEHIND))


cdef void *calloc_behind(size_t count, size_t size) noexcept nogil:
    if size != 0 and count > <size_t> INT64_MAX // size:
        return calloc(count, size)      # which is refused
    return behind(calloc(1, count * size + BEHIND))


cdef void *malloc_of(size_t _count, size_t size) noexcept nogil:
    return malloc(size)


cdef void *malloc_behind_of(size_t _count, size_t size) noexcept nogil:
    return malloc_behind(size)


cdef bint is_longer(void *start, size_t size) noexcept nogil:
    """Of a block of ours, or of nobody's as yet: whether that many bytes are more."""
    cdef Resource *resource = pagemap_find_any(pages, start)
    return resource == NULL or size > family_capacity(resource)


cdef void follow_rules(int more) noexcept nogil:
    add_atomically(&apart, more)


cdef void *governed_malloc(void *ctx, size_t size) noexcept nogil:
    cdef int64_t governings = load_count(&open_governings)
    if governings == 0:
        return plain.malloc(ctx, size)
    if unlikely(load_count(&apart) != 0):
        if spared:
            return plain.malloc(ctx, size)
        if fails(size):
            return told(NULL)
        return told(
            passed(malloc_behind_of if is_unaligned(governings) else malloc_of, 1, size))
    return told(malloc_behind(size) if is_unaligned(governings) else malloc(size))


cdef void *governed_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef int64_t governings = load_count(&open_governings)
    if governings == 0:
        return plain.calloc(ctx, count, size)
    if unlikely(load_count(&apart) != 0):
        if spared:
            return plain.calloc(ctx, count, size)
        if fails(count * size):
            return told(NULL)
        return told(
            passed(calloc_behind if is_unaligned(governings) else calloc, count, size))
    return told(
        calloc_behind(count, size) if is_unaligned(governings) else calloc(count, size))


cdef void governed_free(void *ctx, void *start, size_t size) noexcept nogil:
    cdef Resource *resource = find(start)
    if resource != NULL:
        free_found(resource, block_of(start))
    else:
        plain.free(ctx, start, size)


cdef void *governed_realloc(void *ctx, void *start, size_t size) noexcept nogil:
    cdef void *resized
    if start == NULL:
        return governed_malloc(ctx, size)
    if unlikely(load_count(&apart) != 0) and is_governed_growth(start, size) and fails(size):
        return told(NULL)
    # The array points to the old data until NumPy has the new, and others read it as soon as the
    # GIL is given up: so nothing waits here.
    c_wait_hooks_allow(False)
    failing_pass(1)
    resized = resize(ctx, start, size)
    failing_pass(-1)
    c_wait_hooks_allow(True)
    return told(resized)


cdef bint is_governed_growth(void *start, size_t size) noexcept nogil:
    return is_longer(start, size) and (
        find(start) != NULL or load_count(&open_governings) != 0)


cdef void *resize(void *ctx, void *start, size_t size) noexcept nogil:
    if find(start) != NULL:
        if start == block_of(start):
            return realloc(start, size)
        return behind(realloc(block_of(start), min(size, <size_t> INT64_MAX) + BEHIND))
    if load_count(&open_governings) == 0:
        return plain.realloc(ctx, start, size)
    return move(ctx, start, size)


cdef void *move(void *ctx, void *start, size_t size) noexcept nogil:
    """A block of NumPy's own becomes one of ours. NULL: it stays as it is."""
    cdef void *old
    cdef void *new = governed_malloc(ctx, size)
    if new == NULL:
        return NULL
    # Nobody but its own functions knows how long it is: once it has the new length, all of it is
    # there to be copied.
    old = plain.realloc(ctx, start, size)
    if old == NULL:
        governed_free(ctx, new, size)
        return NULL
    memcpy(new, old, size)
    plain.free(ctx, old, size)
    return new


cdef void place_functions() noexcept nogil:
    global plain
    plain = default_handler.allocator
    # Other threads may be in NumPy without the GIL: who finds one of ours finds `plain` filled in,
    # and who has a block of ours finds what frees it.
    store_release(<void **> &default_handler.allocator.free, <void *> governed_free)
    store_release(<void **> &default_handler.allocator.realloc, <void *> governed_realloc)
    store_release(<void **> &default_handler.allocator.calloc, <void *> governed_calloc)
    store_release(<void **> &default_handler.allocator.malloc, <void *> governed_malloc)


cdef int follow_huge_pages() except -1:
    """Ask for huge pages where NumPy would (NUMPY_MADVISE_HUGEPAGE, and the kernel's version)."""
    allocator.device.use_huge_pages(numpy._core.multiarray._get_madvise_hugepage())
    return 0


cdef Governing govern(bint aligned):
    """One that is open."""
    pthread_once(&placed, place_functions)
    follow_huge_pages()
    sys.modules["memlimits._modules"].for_notes().put_on()
    # Whoever sees the count finds our functions in place, too: so no block of ours goes to `plain`.
    return new_governing(&open_governings, 1 if aligned else 1 + UNALIGNED)


def govern_numpy(*, aligned=None):
    """Let NumPy's data allocations go through memlimits.

    It takes effect at once, in all of the process: in every thread, however it was started and
    whether it runs already, and in every context. Arrays made before keep their memory until they
    are resized; arrays made meanwhile keep theirs for as long as they live. Any array may be freed
    at any time, on any thread.

    NumPy's default handler (NEP 49) gets memlimits' functions in place, so
    ``numpy.get_handler_name`` goes on to say ``default_allocator``.

    Parameters
    ----------
    aligned : bool, optional
        Whether arrays start at multiples of 64 bytes; by default they do unless JAX has been
        imported. While a Governing is open for which they do not, new arrays start 32 bytes behind
        one, and take 32 bytes more. JAX on the CPU copies such an array, where it would go on to
        read one that is aligned after a call has returned.

    Returns
    -------
    Governing
        A context manager with ``close``. While any is open NumPy is governed.

    Warns
    -----
    RuntimeWarning
        Another library has set a handler of its own in this context. It is left alone, and what it
        allocates is not seen.

    See Also
    --------
    govern_python : Python's objects, too.
    govern_malloc : whatever malloc gives.
    empty, zeros : arrays of memlimits' memory, where nothing is governed.

    Examples
    --------
    >>> import memlimits, numpy as np
    >>> with memlimits.govern_numpy():
    ...     array = np.ones(1 << 17)
    >>> memlimits.get_active_memory()
    1048576
    """
    if (name := other_handler()) is not None:
        message = (
            f"NumPy's arrays in this context are allocated by the handler {name!r} of another "
            "library, and stay outside the memory limit: end that before"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=callers_level())
    return govern("jaxlib" not in sys.modules if aligned is None else aligned)


def other_handler():
    """The name of the handler that another library has set in this context; None without one."""
    cdef PyDataMem_Handler *current
    cdef object here = PyDataMem_GetHandler()
    current = <PyDataMem_Handler *> PyCapsule_GetPointer(here, "mem_handler")
    if current == &handler or (
        current == default_handler and (
            plain.malloc == NULL or current.allocator.malloc == governed_malloc)
    ):
        return None
    return current.name.decode(errors="replace")


def governs(extension):
    """Whether a Governing is open, and that for the NumPy whose extension module this is.

    A program may replace NumPy by another one, and the first stays with us.
    """
    if load_count(&open_governings) == 0:
        return False
    return PyCapsule_GetPointer(extension._ARRAY_API, NULL) == PyArray_API


# ---- arrays ----

# Plain types are booleans and numbers: nothing to initialise, no length, no fields.
cdef dict KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}


cdef dict named_types():
    """The plain types by the classes and strings that name them.

    A NumPy whose first import failed has no `dtype.name` after the second.
    """
    types = {name: numpy.dtype(name) for name in (bool, int, float, complex)}
    for dtype in map(numpy.dtype, "?bBhHiIlLqQefdgFDG"):
        bits = "" if dtype.kind == "b" else str(8 * dtype.itemsize)
        named = KINDS[dtype.kind] + bits
        for name in (dtype.type, dtype.char, dtype.str, dtype.str[1:], named):
            types[name] = numpy.dtype(name)
    return types


cdef inline bint is_plain(const PyArray_Descr *descr) noexcept:
    return 0 <= descr.type_num <= NPY_CLONGDOUBLE or descr.type_num == NPY_HALF


cdef PyArray_Descr *plain_descr(object dtype) except? NULL:
    """A borrowed reference; NULL for any other type, and for names that only NumPy knows."""
    if dtype is None or dtype is float:
        return float64
    if type(dtype) is type or type(dtype) is str:
        return <PyArray_Descr *> PyDict_GetItemWithError(types_by_name, dtype)
    if PyArray_DescrCheck(dtype) and is_plain(<PyArray_Descr *> dtype):
        return <PyArray_Descr *> dtype
    return NULL


cdef int small_shape(object shape, npy_intp *dims) noexcept:
    """The number of dimensions, each from 1 to 2^30 - 1; -1 for any other shape."""
    cdef Py_ssize_t i, nd
    dims[0] = small_int(<PyObject *> shape)
    if dims[0] > 0:
        return 1
    if not PyTuple_CheckExact(shape):
        return -1
    nd = PyTuple_GET_SIZE(shape)
    if nd > MOST_DIMENSIONS:
        return -1
    for i in range(nd):
        dims[i] = small_int(PyTuple_GET_ITEM(shape, i))
        if dims[i] <= 0:
            return -1
    return <int> nd


# Ours, so that references can be borrowed.
cdef dict types_by_name = named_types()
cdef PyArray_Descr *float64 = <PyArray_Descr *> types_by_name[float]
cdef object numpy_empty = numpy.empty, numpy_zeros = numpy.zeros
cdef object C_ORDER = "C", F_ORDER = "F"


cdef object make_plain(object shape, PyArray_Descr *descr, int flags, bint zeroed):
    """The array that NumPy would make under our handler; None for what only NumPy can make."""
    cdef npy_intp dims[MOST_DIMENSIONS]
    cdef int i, nd = small_shape(shape, dims)
    cdef uint64_t n = PyDataType_ELSIZE(descr)
    cdef Block block
    cdef PyArrayObject_fields *fields
    if nd < 0:
        return None
    # Until it has its block the array owns nothing, so that a refusal leaves nothing behind.
    Py_INCREF(<object> descr)
    array = PyArray_NewFromDescr(
        &PyArray_Type, descr, nd, dims, NULL, <void *> ALIGNMENT, flags, NULL)
    for i in range(nd):     # a product that does not fit was NumPy's error just now
        n *= dims[i]
    alloc_block(allocator, n, zeroed, &block)
    fields = <PyArrayObject_fields *> array
    fields.data = block.start
    fields.flags |= NPY_ARRAY_OWNDATA
    fields.mem_handler = <PyObject *> capsule
    Py_INCREF(capsule)
    PyTraceMalloc_Track(TRACE_DOMAIN, <uintptr_t> block.start, n)
    return array


cdef object make_array(object function, object shape, object dtype, object order):
    cdef PyArray_Descr *descr = plain_descr(dtype)
    if descr != NULL and (order is C_ORDER or order is F_ORDER):
        array = make_plain(
            shape, descr, NPY_ARRAY_CARRAY if order is C_ORDER else NPY_ARRAY_FARRAY,
            function is numpy_zeros)
        if array is not None:
            return array
    return make_by_numpy(function, (shape, dtype, order))


cdef object make_by_numpy(function, tuple arguments):
    """An array of NumPy's own making whose data is ours."""
    cdef uint64_t number = refusals_last().number
    previous = PyDataMem_SetHandler(capsule)
    try:
        return function(*arguments)
    except MemoryError:
        if refusals_last().number == number:
            raise
    finally:
        PyDataMem_SetHandler(previous)
    # NumPy's error has no numbers.
    raise_refusal(get_default())


cdef object make_wired(object array, bint wired):
    cdef Core *core = &get_default().core
    cdef const char *data
    if wired and array.nbytes:
        data = <const char *> <uintptr_t> array.__array_interface__["data"][0]
        with nogil:
            pins_change(&core.residency, data, True)
            core_tell_now(core)
        get_default().report_wire_failures()
    return array


def empty(shape, dtype=None, order="C", *, bint wired=False):
    """Return a new array of memlimits' memory, its elements not set.

    Parameters
    ----------
    shape : int or tuple of int
        Elements in each dimension.
    dtype : data-type, optional
        By default ``numpy.float64``.
    order : {"C", "F"}, optional
        Row-major or column-major.
    wired : bool, optional
        Whether its memory is kept resident ahead of others, as by `wire`, until it is freed.

    Returns
    -------
    numpy.ndarray
        It owns its data and has no base: a block aligned to 64 bytes, given back with the array.

    Raises
    ------
    MemoryLimitError
        The memory was refused.
    DeviceError
        In a forked child of a process that uses Metal.
    TypeError, ValueError
        As ``numpy.empty``.

    See Also
    --------
    zeros : filled with zeros.
    allocate : a block of bytes.
    govern_numpy : have all new arrays be so.

    Examples
    --------
    >>> import memlimits, numpy as np
    >>> array = memlimits.empty((512, 512), np.float32)
    >>> array.nbytes, memlimits.get_active_memory()
    (1048576, 1048576)
    """
    return make_wired(make_array(numpy_empty, shape, dtype, order), wired)


def zeros(shape, dtype=None, order="C", *, bint wired=False):
    """Return a new array of memlimits' memory, filled with zeros.

    Parameters
    ----------
    shape : int or tuple of int
        Elements in each dimension.
    dtype : data-type, optional
        By default ``numpy.float64``.
    order : {"C", "F"}, optional
        Row-major or column-major.
    wired : bool, optional
        Whether its memory is kept resident ahead of others, as by `wire`, until it is freed.

    Returns
    -------
    numpy.ndarray
        As of `empty`.

    Raises
    ------
    MemoryLimitError, DeviceError, TypeError, ValueError
        As of `empty`.

    See Also
    --------
    empty : the elements not set.

    Examples
    --------
    >>> import memlimits
    >>> float(memlimits.zeros((2, 3)).sum())
    0.0
    """
    return make_wired(make_array(numpy_zeros, shape, dtype, order), wired)


cdef PyObject *empty_quickly(
    PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords
) except? NULL:
    """`empty` of a shape alone, without what Cython does for arguments."""
    if nargs == 1 and keywords == NULL:
        array = make_plain(<object> args[0], float64, NPY_ARRAY_CARRAY, False)
        if array is not None:
            Py_INCREF(array)
            return <PyObject *> array
    return empty_slowly(module, args, nargs, keywords)


cdef FastFunction empty_slowly = <FastFunction> (<PyCFunctionObject *> empty).m_ml.ml_meth
(<PyCFunctionObject *> empty).m_ml.ml_meth = <PyCFunction> empty_quickly

_import_array()
follow_huge_pages()
default_handler = <PyDataMem_Handler *> PyCapsule_GetPointer(
    <object> PyDataMem_DefaultHandler, "mem_handler")
strcpy(handler.name, "memlimits")
handler.version = 1
handler.allocator.malloc = data_malloc
handler.allocator.calloc = data_calloc
handler.allocator.realloc = data_realloc
handler.allocator.free = data_free
capsule = PyCapsule_New(&handler, "mem_handler", NULL)
failing_follow(core, follow_rules)


def spare_thread(bint is_to_be):
    """Have new arrays of this thread governed no more, or again. It nests."""
    global spared
    spared += 1 if is_to_be else -1
    add_atomically(&apart, 1 if is_to_be else -1)
