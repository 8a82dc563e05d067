"""The stand-in for Metal, asked and told from outside the library."""

import ctypes
import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from support.places import TESTS
from support.process import Watcher, execute

# What takes one address.
ADDRESS = ("queue_sets", "queue_destroy", "is_alive", "contents", "state_at", "is_resident_at")


@cache
def stand_in():
    """The library that this process is linked with; None on another device."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        if line.endswith("/libfakemetal.so"):
            library = ctypes.CDLL(line.split()[-1])
            for name in ("count", "get", "queue_sets", "state_at"):
                getattr(library, f"fake_metal_{name}").restype = ctypes.c_longlong
            library.fake_metal_queue_create.restype = ctypes.c_void_p
            for name in ADDRESS:
                getattr(library, f"fake_metal_{name}").argtypes = [ctypes.c_void_p]
            library.fake_metal_contents.restype = ctypes.c_void_p
            for name in ("fake_metal_set", "fake_metal_fail"):
                getattr(library, name).argtypes = [ctypes.c_char_p, ctypes.c_longlong]
            return library
    return None


def page_size():
    """The stand-in's page; None without it."""
    return stand_in() and stand_in().fake_metal_get(b"page_size")


def count(name):
    """A gauge or a number of calls, as tests/fake_metal/control.h lists them."""
    return stand_in().fake_metal_count(name.encode())


def empty_volatile():
    """Let the system take every buffer that is volatile. Returns how many."""
    return stand_in().fake_metal_empty_volatile()


def fail(name, nth):
    """Let the nth call from now fail; 0 takes that back."""
    assert stand_in().fake_metal_fail(name.encode(), nth) == 0


@contextmanager
def setting(name, value):
    """Have the stand-in's setting at another value."""
    before = stand_in().fake_metal_get(name.encode())
    assert stand_in().fake_metal_set(name.encode(), value) == 0
    try:
        yield
    finally:
        stand_in().fake_metal_set(name.encode(), before)


@contextmanager
def command_queue():
    """The address of a command queue that the test holds a reference to."""
    queue = stand_in().fake_metal_queue_create()
    try:
        yield queue
    finally:
        stand_in().fake_metal_queue_destroy(queue)


def attached_sets(queue):
    """How many residency sets a command queue has."""
    return stand_in().fake_metal_queue_sets(queue)


def is_alive(object):
    """Whether an object is there, by its address."""
    return bool(stand_in().fake_metal_is_alive(object))


def contents(buffer):
    """Where the contents of the buffer at an address are."""
    return stand_in().fake_metal_contents(buffer)


def has_buffer_at(address):
    """Whether the contents of a buffer begin there."""
    return stand_in().fake_metal_state_at(address) != 0


def is_purgeable_at(address):
    """Whether the buffer whose contents begin there is volatile, or empty already."""
    return stand_in().fake_metal_state_at(address) in (3, 4)


def is_resident_at(address):
    """Whether the buffer that an address lies in is kept resident."""
    return bool(stand_in().fake_metal_is_resident_at(address))


@contextmanager
def watched_resident():
    """Afterwards `highest` is the most bytes that were resident at any instant."""
    watcher = Watcher()
    stand_in().fake_metal_reset()
    yield watcher
    watcher.highest = count("resident_bytes_peak")


def run_with(script, settings=""):
    """Run a program of its own over the stand-in, with more settings than the tests have."""
    source = "import memlimits\nfrom memlimits import memory\n" + script
    both = ",".join(filter(None, [os.environ["FAKE_METAL"], settings]))
    return execute(source, env={**os.environ, "FAKE_METAL": both})


# What such a program begins with that has a command queue, and a block that can be wired.
MAKE_QUEUE = f"""
import sys
sys.path.append({str(TESTS)!r})
from support.metal import attached_sets, is_alive, stand_in
block = memlimits.allocate(1 << 20)
queue = stand_in().fake_metal_queue_create()
"""
