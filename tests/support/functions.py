"""malloc, realloc and free as C has them, and blocks of known contents.

ctypes drops the GIL around each call; `WithGil` has all functions, called as Python's own C code
calls them: only then is a block charged to the account that is open.
"""

import ctypes
from ctypes import c_size_t as size_t
from ctypes import c_void_p as pointer

from memlimits import _malloc, memory

_get = ctypes.pythonapi.PyCapsule_GetPointer
_get.restype, _get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_table = (ctypes.c_void_p * 4).from_address(_get(_malloc.functions, b"memlimits.functions"))

malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(_table[0])
realloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(_table[2])
free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_table[3])


class WithGil:
    """A pointer that is NULL is 0."""

    _table = (pointer * 9).from_address(
        _get(_malloc.functions_with_size, b"memlimits.functions_with_size")
    )
    malloc = ctypes.PYFUNCTYPE(size_t, size_t)(_table[1])
    calloc = ctypes.PYFUNCTYPE(size_t, size_t, size_t)(_table[2])
    realloc = ctypes.PYFUNCTYPE(size_t, pointer, size_t)(_table[3])
    free = ctypes.PYFUNCTYPE(None, pointer)(_table[4])
    aligned_alloc = ctypes.PYFUNCTYPE(size_t, size_t, size_t)(_table[5])
    usable_size = ctypes.PYFUNCTYPE(size_t, pointer)(_table[6])
    rezalloc = ctypes.PYFUNCTYPE(size_t, pointer, size_t)(_table[7])


PATTERN = bytes(range(251))


def pattern(n):
    return (PATTERN * (n // len(PATTERN) + 1))[:n]


def write(address, n):
    ctypes.memmove(address, pattern(n), n)


def holds(address, n):
    return ctypes.string_at(address, n) == pattern(n)


def changed(before):
    """Which counters have other values, and by how much."""
    return {name: n - before[name] for name, n in memory.counters().items() if n != before[name]}


class Blocks:
    """Blocks made and resized; what is left at the end is freed."""

    def __init__(self):
        self.addresses = []

    def make(self, n):
        address = malloc(n)
        self.addresses.append(address)
        write(address, n)
        return address

    def resize(self, address, n):
        resized = realloc(address, n)
        if resized is not None:
            self.addresses[self.addresses.index(address)] = resized
        return resized

    def free(self):
        for address in self.addresses:
            free(address)
