"""A handler for NumPy's data (NEP 49) as another library would set it."""

import contextlib
import ctypes


def _fields(function):
    size, address = ctypes.c_size_t, ctypes.c_void_p
    return (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", address),
        ("malloc", function(address, address, size)),
        ("calloc", function(address, address, size, size)),
        ("realloc", function(address, address, address, size)),
        ("free", function(None, address, address, size)),
    )


class Handler(ctypes.Structure):
    """PyDataMem_Handler. NumPy's own functions need the GIL, which is kept around each call."""

    _fields_ = _fields(ctypes.PYFUNCTYPE)


class HandlerWithoutGIL(ctypes.Structure):
    """One whose functions are called without the GIL."""

    _fields_ = _fields(ctypes.CFUNCTYPE)


def of_capsule(capsule, kind=Handler):
    """The handler that a capsule of NumPy's holds."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return kind.from_address(get(capsule, b"mem_handler"))


def _numpys(number, result, *arguments):
    """A function of NumPy's C interface, by its number there, which does not change."""
    from numpy._core import _multiarray_umath

    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(get(_multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(result, *arguments)(table[number])


def current():
    """The capsule of the handler that NumPy has in this context."""
    return _numpys(305, ctypes.py_object)()


def set_handler(capsule):
    """Make a capsule's handler NumPy's in this context; return the one before."""
    return _numpys(304, ctypes.py_object, ctypes.py_object)(capsule)


_libc = ctypes.CDLL(None)
_keep = []


def named(name):
    """A capsule of a handler of that name over the C library."""
    types = dict(Handler._fields_)
    for function, result, arguments in (
        ("malloc", ctypes.c_void_p, [ctypes.c_size_t]),
        ("calloc", ctypes.c_void_p, [ctypes.c_size_t] * 2),
        ("realloc", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]),
        ("free", None, [ctypes.c_void_p]),
    ):
        c_function = getattr(_libc, function)
        c_function.restype, c_function.argtypes = result, arguments
    handler = Handler(
        name.encode(),
        1,
        None,
        types["malloc"](lambda _, n: _libc.malloc(n)),
        types["calloc"](lambda _, count, n: _libc.calloc(count, n)),
        types["realloc"](lambda _, start, n: _libc.realloc(start, n)),
        types["free"](lambda _, start, _n: _libc.free(start)),
    )
    _keep.append(handler)  # arrays may outlive the capsule
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    name_of_capsule = b"mem_handler"
    _keep.append(name_of_capsule)
    return make(ctypes.addressof(handler), name_of_capsule, None)


@contextlib.contextmanager
def other_library(name):
    """Another library's handler, in this context, for the block."""
    before = set_handler(named(name))
    try:
        yield
    finally:
        set_handler(before)
