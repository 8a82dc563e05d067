"""The stand-in for Metal, asked and told from outside the library."""

import ctypes
from functools import cache
from pathlib import Path


@cache
def stand_in():
    """The library that this process is linked with; None on another device."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("/libfakemetal.so"):
            library = ctypes.CDLL(line.split()[-1])
            library.fake_metal_count.restype = ctypes.c_longlong
            library.fake_metal_fail.argtypes = [ctypes.c_char_p, ctypes.c_longlong]
            return library
    return None


def count(name):
    """A gauge or a number of calls, as tests/fake_metal/control.h lists them."""
    return stand_in().fake_metal_count(name.encode())


def fail(name, nth):
    """Let the nth call from now fail; 0 takes that back."""
    assert stand_in().fake_metal_fail(name.encode(), nth) == 0
