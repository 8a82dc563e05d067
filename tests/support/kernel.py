"""What the kernel says of this process's memory: /proc and mincore."""

import ctypes
import mmap
import sys
from pathlib import Path

import pytest

from support.metal import count, is_resident_at, stand_in, watched_resident
from support.process import watched
from support.units import KIB, MACHINES_PAGE

# A test that finds out in its midst that there is no /proc, is skipped then.
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="macOS has no /proc")


def proc_file(path):
    if needs_proc.args[0]:
        pytest.skip(needs_proc.kwargs["reason"])
    return Path(path)


def proc_lines(path):
    return proc_file(path).read_text().splitlines()


def proc_bytes(key, path="/proc/self/status"):
    """A number that /proc gives in kB."""
    for line in proc_lines(path):
        name, _, value = line.partition(":")
        if name == key:
            return int(value.removesuffix("kB")) * KIB
    raise LookupError(key)


def with_shared_memory_of_its_own():
    """Lay a /dev/shm of their own over that of this process and its children, where root may."""
    new_mounts, recursive_private = 0x20000, 0x44000
    if sys.platform != "linux" or not Path("/dev/shm").is_dir():
        return
    libc = ctypes.CDLL(None)
    if libc.unshare(new_mounts) == 0:
        libc.mount(None, b"/", None, recursive_private, None)
        libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"mode=1777")


def meminfo(key):
    return proc_bytes(key, "/proc/meminfo")


def resident():
    """Resident bytes that belong to no file."""
    return proc_bytes("RssAnon")


def locked():
    """Bytes kept resident: what the kernel has locked, or what Metal was asked to keep."""
    return count("resident_bytes") if stand_in() else proc_bytes("VmLck")


def writable_ranges():
    """The address ranges of this process that can be written, neighbours joined."""
    joined = []
    for line in proc_lines("/proc/self/maps"):
        span, mode = line.split(maxsplit=2)[:2]
        if not mode.startswith("rw"):
            continue
        start, end = (int(address, 16) for address in span.split("-"))
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined


def writable():
    """Bytes mapped in all, less what malloc has only set aside for threads to come."""
    return sum(end - start for start, end in writable_ranges())


def mapped_bytes(start, length):
    """How much of an address range is mapped."""
    return sum(
        max(0, min(end, start + length) - max(first, start)) for first, end in writable_ranges()
    )


def wholly_mapped(places):
    """Which of the places, each an address and a length, are mapped from end to end."""
    ranges = writable_ranges()
    return [
        place
        for place in places
        if any(start <= place[0] and sum(place) <= end for start, end in ranges)
    ]


def bytes_wholly_mapped(places):
    return sum(length for _, length in wholly_mapped(places))


def unmapped(place):
    """Nearly nothing of it is mapped: something else may have settled in the hole meanwhile."""
    return mapped_bytes(*place) < place[1] // 4


def contents(address, length):
    """What stands at an address of this process; None where nothing is mapped."""
    with proc_file("/proc/self/mem").open("rb", buffering=0) as memory:
        try:
            memory.seek(address)
            return memory.read(length)
        except OSError:
            return None


def mapping_says(address, key):
    """The words behind a key of /proc/self/smaps, for the mapping that an address lies in."""
    inside = False
    for line in proc_lines("/proc/self/smaps"):
        name, *words = line.split()
        first, dash, last = name.partition("-")
        if dash:
            inside = int(first, 16) <= address < int(last, 16)
        elif inside and name == key + ":":
            return words
    raise AssertionError(f"{address:#x} is not mapped")


def is_locked(address):
    """Whether the mapping, or Metal's buffer, that an address lies in is kept resident."""
    return is_resident_at(address) if stand_in() else "lo" in mapping_says(address, "VmFlags")


def locked_ones(addresses):
    """Those of the addresses that is_locked says yes to, with one look."""
    if stand_in():
        return {address for address in addresses if is_resident_at(address)}
    found, start, end = set(), 0, 0
    for line in proc_lines("/proc/self/smaps"):
        name, *words = line.split()
        first, dash, last = name.partition("-")
        if dash:
            start, end = int(first, 16), int(last, 16)
        elif name == "VmFlags:" and "lo" in words:
            found.update(address for address in addresses if start <= address < end)
    return found


def lazily_free(address):
    """Bytes that the kernel may take without asking, in the mapping that an address lies in."""
    return int(mapping_says(address, "LazyFree")[0]) * KIB


def resident_pages(address, length):
    pages = -(-length // MACHINES_PAGE)
    flags = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(pages * MACHINES_PAGE), flags)
    assert result == 0, ctypes.get_errno()
    return sum(flag & 1 for flag in flags)


def in_ram(block):
    """Whether all of a block is kept there: by the stand-in for Metal, which pages in nothing, or
    by the kernel."""
    if stand_in():
        return is_locked(block.ptr) and is_locked(block.ptr + block.nbytes - 1)
    return resident_pages(block.ptr, block.nbytes) == -(-block.nbytes // MACHINES_PAGE)


def watched_locked():
    """Have what is locked watched by another process, or by the stand-in as it changes."""
    return watched_resident() if stand_in() else watched("VmLck")


def can_lock(n):
    """Whether n bytes can be locked. A sanitizer, for one, makes mlock do nothing."""
    if n == 0 or stand_in():
        return True
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    before = locked()
    pages = mmap.mmap(-1, n)
    held = ctypes.c_char.from_buffer(pages)
    libc.mlock(ctypes.addressof(held), n)
    seen = locked() - before >= n
    del held
    pages.close()
    return seen


def needs_lockable(n):
    return pytest.mark.skipif(
        not can_lock(n),
        reason=f"{n >> 10} KiB cannot be locked: RLIMIT_MEMLOCK, or a sanitizer's own mlock",
    )
