"""Many mappings, and as many as the system allows."""

import sys
import textwrap
from pathlib import Path

import pytest

from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.process import run

pytestmark = [pytest.mark.inside, pytest.mark.host]

if sys.platform != "linux":
    pytest.skip("of Linux's limit", allow_module_level=True)

LIMIT = int(Path("/proc/sys/vm/max_map_count").read_text())

needs_few_mappings = pytest.mark.skipif(
    LIMIT > 70_000, reason=f"vm.max_map_count is {LIMIT}: too many to fill it quickly"
)

# What the programs below may use beside the prelude.
FILLING = """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def take_all_mappings(limit):
        # Every second page of a range gets other rights, until there are too many mappings.
        pages = limit + 1000
        start = libc.mmap(None, pages * 4096, 0, 0x4022, -1, 0)
        page = 0
        while page < pages and libc.mprotect(start + page * 4096, 4096, 1) == 0:
            page += 2
        assert page < pages
        return start, pages * 4096
"""


def run_filling(script):
    return run(textwrap.dedent(FILLING) + textwrap.dedent(script))


@needs_few_mappings
def test_without_mappings_nothing_is_lost():
    """At vm.max_map_count an munmap that would split a mapping is refused as well."""
    run_filling(f"""
        n, fill = 256 << 10, b"x" * (256 << 10)
        blocks = [memlimits.allocate(n) for _ in range(64)]     # neighbours: one mapping
        for block in blocks:
            memoryview(block)[:] = fill
        taken = take_all_mappings({LIMIT})
        before = proc("RssAnon")
        del block
        blocks = blocks[::2]            # every second one goes: each would split a mapping
        gc.collect()
        memlimits.clear_cache()
        freed = 32 * n
        given_back = before - proc("RssAnon")
        held = memory.counters()["footprint"]
        # Bytes are either counted or given back.
        assert held - 32 * n >= freed - given_back - MIB, (held, freed, given_back)
        assert bytes(blocks[0]) == fill
        libc.munmap(*taken)
        blocks.clear()
        memlimits.clear_cache()
        assert memory.counters()["footprint"] == 0
    """)


@needs_few_mappings
def test_a_mapping_too_many_is_a_refusal_by_the_number_of_resources():
    run_filling(f"""
        # The page map has its nodes for the addresses below what takes all mappings.
        room = ({LIMIT} + 1000) * 4096
        start = libc.mmap(None, room, 0, 0x4022, -1, 0)
        held = [memlimits.allocate(MIB) for _ in range(110)]
        held.clear()
        memlimits.clear_cache()
        libc.munmap(start, room)
        # The library's own malloc must not be what lacks a mapping.
        for spare in [libc.malloc(1000) for _ in range(100)]:
            libc.free(spare)
        taken = take_all_mappings({LIMIT})
        held = []
        while (blocked_by := refused_by(MIB)) is None and len(held) < 100:
            held.append(memlimits.allocate(MIB))
        assert blocked_by == "resources", blocked_by
        active = len(held) * MIB
        libc.munmap(*taken)
        consistent(active)
        assert refused_by(MIB) is None
        # Nor is it the answer where bytes are what there is too little of.
        limit = proc("VmSize") + MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert refused_by(64 * MIB) == "device"
    """)


def test_many_small_resources():
    allocator = Allocator(Device())
    blocks = [allocate_in(allocator, 40_000) for _ in range(20_000)]
    assert allocator.counters()["resources"] in (20_000, 20_001)  # and what is mapped ahead
    assert len({block.ptr for block in blocks}) == 20_000
    del blocks[::2]
    allocator.clear_cache()
    assert allocator.get_active_memory() == sum(block.capacity for block in blocks)
    blocks.clear()
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0


def test_a_long_buffer_lies_where_the_last_one_did_if_that_is_free():
    """And if it is not, as far behind the boundary of a huge page."""
    run(f"""
        {FILLING}
        memlimits.set_cache_limit(0)
        n = 32 << 20

        def place():
            block = memlimits.allocate(n)
            start = block.ptr
            block.release()
            return start

        starts = {{place() for _ in range(20)}}
        assert len(starts) == 1, starts
        (start,) = starts
        assert start % (2 << 20) == 64 << 10
        MAP_FIXED_NOREPLACE = 0x100000
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        page = 4096
        there = libc.mmap(start + n // 2, page, mmap.PROT_READ, flags, -1, 0)
        assert there == start + n // 2
        others = {{place() for _ in range(20)}}
        assert len(others) == 1, others
        (other,) = others
        assert other != start and other % (2 << 20) == 64 << 10
    """)
