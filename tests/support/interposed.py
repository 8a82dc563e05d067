"""A process of tests whose malloc is memlimits', and what all others there hold of it.

Started with `environment()`, whose books (c_interface/books.c) see every call of malloc's family.
"""

import ctypes
import os
import time
from pathlib import Path

import memlimits
from support.storms import GIL

PYTHONS_ARENA = (1 << 30) + (32 << 20)  # bytes: aligned to a segment
LIBRARY = Path(memlimits.__file__).parent / "lib" / "libinterpose.so"

# The path of the books; only where malloc is to be governed.
_VARIABLE = "MEMLIMITS_TESTS_BOOKS"


class Books:
    """What the callers of malloc hold, the interpreter among them, and held at most."""

    def __init__(self, path):
        self._library = ctypes.CDLL(path)
        self._out = (ctypes.c_int64 * 4)()

    def held(self):
        """Bytes, once nobody is in a call: a thread that starts may be."""
        end = time.monotonic() + 60
        while True:
            self._library.books_held(self._out)
            low, high, _, _ = self._out
            if low == high:
                return low
            assert time.monotonic() < end, (low, high)

    def peak_bounds(self):
        """What the peak is between."""
        self._library.books_held(self._out)
        return self._out[2:]

    def reset_peak(self):
        self._library.books_reset_peak()


def _take_part():
    path = os.environ.get(_VARIABLE)
    if path is None:
        return None
    from memlimits.adapters import _process

    assert _process.take_part() is None
    return Books(path)


BOOKS = _take_part()


def active():
    """What is active and was asked of memlimits itself."""
    if BOOKS is None:
        return memlimits.get_active_memory()
    held = None
    # What comes in between, such as a collection, is in the books before and after.
    while held != BOOKS.held():
        held = BOOKS.held()
        active = memlimits.get_active_memory()
    more = active - held
    # Without the GIL, Python maps one when its own allocator needs it, whatever runs then.
    return more if GIL or more < PYTHONS_ARENA else more % PYTHONS_ARENA


def environment(books):
    """Variables for a process whose malloc is governed from the start of the tests on."""
    preload = f"{books}:{LIBRARY}"
    return {**os.environ, "LD_PRELOAD": preload, _VARIABLE: str(books)}
