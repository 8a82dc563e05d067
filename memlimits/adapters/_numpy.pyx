"""NumPy's data memory from memlimits: the C side of NEP 49.

The functions below are called by NumPy, with the GIL or without; they never take it nor give it up.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport strcpy

from memlimits._allocator cimport get_default, raise_refusal
from memlimits._growth cimport last_refusal
from memlimits._malloc cimport calloc, free, malloc, realloc

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


cdef void *data_malloc(void *ctx, size_t size) noexcept nogil:
    return malloc(size)


cdef void *data_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    return calloc(count, size)


cdef void *data_realloc(void *ctx, void *start, size_t size) noexcept nogil:
    return realloc(start, size)


cdef void data_free(void *ctx, void *start, size_t size) noexcept nogil:
    free(start)


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
handler.allocator.malloc = data_malloc
handler.allocator.calloc = data_calloc
handler.allocator.realloc = data_realloc
handler.allocator.free = data_free
capsule = PyCapsule_New(&handler, "mem_handler", NULL)
