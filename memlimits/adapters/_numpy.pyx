"""NumPy's data memory from memlimits: the C side of NEP 49.

The functions below are called by NumPy, with the GIL or without; they never take it nor give it up.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport INT64_MAX, uint8_t, uint64_t
from libc.string cimport memcpy, strcpy

from memlimits._allocator cimport get_default, raise_refusal
from memlimits._core cimport Core, core_clear, core_find, core_free, core_hit, core_return
from memlimits._growth cimport core_miss, last_refusal
from memlimits._limits cimport NOTHING
from memlimits._resource cimport Block, Resource

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
    object PyDataMem_SetHandler(object handler)


cdef void *take(Core *core, uint64_t n, bint zeroed) noexcept nogil:
    cdef Block block
    n = max(n, <uint64_t> 1)        # NumPy takes NULL for a failure
    if not core_hit(core, n, &block) and core_miss(core, n, &block) != NOTHING:
        return NULL
    if zeroed:
        core_clear(core, &block, n)
    return block.start


cdef void *data_malloc(void *ctx, size_t size) noexcept nogil:
    return take(<Core *> ctx, min(<uint64_t> size, <uint64_t> INT64_MAX), False)


cdef void *data_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    # A product that overflows is longer than any buffer, and is refused as that.
    if size != 0 and count > <uint64_t> INT64_MAX // size:
        return take(<Core *> ctx, INT64_MAX, True)
    return take(<Core *> ctx, count * size, True)


cdef void data_free(void *ctx, void *start, size_t size) noexcept nogil:
    cdef Core *core = <Core *> ctx
    if start != NULL:
        core_return(core, core_free(core, core_find(core, start), start))


cdef void *data_realloc(void *ctx, void *start, size_t size) noexcept nogil:
    cdef Core *core = <Core *> ctx
    cdef Resource *resource
    cdef uint64_t capacity
    cdef void *moved
    if start == NULL:
        return data_malloc(ctx, size)
    resource = core_find(core, start)
    capacity = resource.block_size if resource.block_size else resource.bytes
    if capacity // 2 <= size <= capacity:
        return start
    moved = data_malloc(ctx, size)
    if moved == NULL:
        return start if size <= capacity else NULL
    memcpy(moved, start, min(capacity, <uint64_t> size))
    data_free(ctx, start, 0)
    return moved


cdef PyDataMem_Handler handler
cdef object capsule


def set_handler(new):
    """Make `new` NumPy's handler in this context; return the one it replaces."""
    return PyDataMem_SetHandler(new)


def own_handler():
    """The handler that allocates from memlimits."""
    return capsule


cdef object make_array(function, tuple arguments):
    """An array of NumPy's own making whose data is ours."""
    cdef uint64_t number = last_refusal().number
    previous = PyDataMem_SetHandler(capsule)
    try:
        return function(*arguments)
    except MemoryError:
        if last_refusal().number == number:
            raise
    finally:
        PyDataMem_SetHandler(previous)
    # NumPy's error has no numbers.
    raise_refusal(get_default())


def empty(shape, dtype=float, order="C"):
    """Return a new array of memlimits' memory, its elements not set.

    Parameters
    ----------
    shape : int or tuple of int
        Elements in each dimension.
    dtype : data-type, optional
        By default ``numpy.float64``.
    order : {"C", "F"}, optional
        Row-major or column-major.

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
    """
    return make_array(numpy.empty, (shape, dtype, order))


def zeros(shape, dtype=float, order="C"):
    """Return a new array of memlimits' memory, filled with zeros.

    Parameters, result and errors are those of `empty`.
    """
    return make_array(numpy.zeros, (shape, dtype, order))


_import_array()
strcpy(handler.name, "memlimits")
handler.version = 1
handler.allocator.ctx = &get_default().core
handler.allocator.malloc = data_malloc
handler.allocator.calloc = data_calloc
handler.allocator.realloc = data_realloc
handler.allocator.free = data_free
capsule = PyCapsule_New(&handler, "mem_handler", NULL)
