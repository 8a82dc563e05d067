"""The documented functions, against /proc and against sums that the test keeps itself."""

import json
import os
import resource
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy
import pytest

import memlimits
from memlimits import memory
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in
from memlimits._device import Device

pytestmark = pytest.mark.core

PAGE = os.sysconf("SC_PAGESIZE")
KIB, MIB = 1024, 1024 * 1024
UNLIMITED = 1 << 62  # version 1 control groups write "none" as a larger number
CAP_IPC_LOCK = 1 << 14

needs_mlock = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", "")
    or memlimits.device_info()["wired_capacity"] < 4 * MIB,
    reason="needs 4 MiB of RLIMIT_MEMLOCK, and an mlock that AddressSanitizer does not replace",
)


def proc_bytes(path, key):
    """A number that /proc gives in kB."""
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.removesuffix("kB")) * KIB
    raise LookupError(key)


def mapped_bytes(start, length):
    """How much of an address range the kernel has mapped."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split(maxsplit=1)[0].split("-"))
        total += max(0, min(last, start + length) - max(first, start))
    return total


def cgroup_limits():
    """The memory limits of this process's control group and all above it, versions 1 and 2."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split()[0], after.split()[2].split(",")
        root, mount = before.split()[3:5]
        if kind == "cgroup2":
            own = [path for _, controllers, path in groups if controllers == ""]
            name = "memory.max"
        elif kind == "cgroup" and "memory" in options:
            own = [path for _, controllers, path in groups if "memory" in controllers.split(",")]
            name = "memory.limit_in_bytes"
        else:
            continue
        for path in own:
            below = os.path.relpath(path, root)
            folder = Path(mount) if below.startswith("..") else Path(mount, below)
            for group in [folder, *folder.parents]:
                if group.is_relative_to(mount) and (group / name).exists():
                    text = (group / name).read_text().strip()
                    yield UNLIMITED if text == "max" else int(text)


@pytest.fixture(scope="module")
def memory_size():
    return min(proc_bytes("/proc/meminfo", "MemTotal"), *cgroup_limits(), UNLIMITED)


@pytest.fixture
def allocator():
    return Allocator()


def counts(allocator=memory):
    """Every counter but the number of refusals."""
    counters = allocator.counters()
    counters.pop("refusals")
    return counters


def limits():
    return (
        memlimits.get_memory_limit(),
        memlimits.get_cache_limit(),
        memlimits.get_wired_limit(),
        memory.get_memory_policy(),
    )


# ---- defaults and facts ----


def test_defaults_of_a_fresh_process(memory_size):
    getters = [
        "get_memory_limit",
        "get_cache_limit",
        "get_wired_limit",
        "get_active_memory",
        "get_cache_memory",
        "get_peak_memory",
        "get_wired_memory",
    ]
    program = "import json, memlimits; print(json.dumps([getattr(memlimits, name)() "
    program += f"for name in {getters}] + [memlimits.set_memory_policy('strict')]))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True
    )
    limit = int(0.95 * memory_size)
    assert json.loads(result.stdout) == [limit, limit, 0, 0, 0, 0, 0, "guideline"]
    assert result.stderr == b""


def test_device_info_says_what_the_system_says(memory_size):
    info = memlimits.device_info()
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    longest = memory_size + proc_bytes("/proc/meminfo", "SwapTotal")
    assert info["backend"] == "host"
    assert info["architecture"] == os.uname().machine
    assert info["device_name"] == (models[0] if models else os.uname().machine)
    assert info["memory_size"] == memory_size
    assert info["max_recommended_working_set_size"] == int(0.75 * memory_size)
    assert info["max_buffer_length"] == longest - longest % PAGE
    assert info["resource_limit"] == int(Path("/proc/sys/vm/max_map_count").read_text())
    assert len(info) == 8


def test_wired_capacity_is_what_the_process_may_lock(memory_size):
    capabilities = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    )
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if capabilities & CAP_IPC_LOCK or hard == resource.RLIM_INFINITY:
        hard = memory_size
    assert memlimits.device_info()["wired_capacity"] == min(hard, memory_size)


def test_device_info_is_the_callers_own_dict():
    memlimits.device_info().clear()
    assert memlimits.device_info()["backend"] == "host"


def test_a_smaller_device_has_a_smaller_default_limit():
    allocator = Allocator(Device(memory_size=100 * MIB))
    assert allocator.get_memory_limit() == 95 * MIB
    assert allocator.device_info()["max_recommended_working_set_size"] == 75 * MIB


# ---- arguments ----


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


BAD = [
    pytest.param(-1, ValueError, "not -1", id="negative"),
    pytest.param(-(2**63) - 1, ValueError, str(-(2**63) - 1), id="very negative"),
    pytest.param(2**63, ValueError, str(2**63), id="2**63"),
    pytest.param(2**64, ValueError, str(2**64), id="2**64"),
    pytest.param(10**5000, ValueError, "16610 bits", id="10**5000"),
    pytest.param(-(10**5000), ValueError, "16610 bits", id="-10**5000"),
    pytest.param(numpy.uint64(2**63), ValueError, str(2**63), id="numpy.uint64"),
    pytest.param(Index(-7), ValueError, "not -7", id="negative __index__"),
    pytest.param(1.0, TypeError, "float", id="float"),
    pytest.param(float("nan"), TypeError, "float", id="nan"),
    pytest.param(numpy.float64(1), TypeError, "float64", id="numpy.float64"),
    pytest.param("1", TypeError, "str", id="str"),
    pytest.param(b"1", TypeError, "bytes", id="bytes"),
    pytest.param([1], TypeError, "list", id="list"),
    pytest.param(True, TypeError, "True", id="True"),
    pytest.param(False, TypeError, "False", id="False"),
    pytest.param(numpy.True_, TypeError, "bool", id="numpy.bool"),
    pytest.param(Index(ZeroDivisionError("own")), ZeroDivisionError, "own", id="raising"),
    pytest.param(Index(OverflowError("own")), OverflowError, "own", id="overflowing"),
    pytest.param(Index("1"), TypeError, "int", id="__index__ of str"),
]
TAKES_BYTES = [
    memlimits.set_memory_limit,
    memlimits.set_cache_limit,
    memlimits.set_wired_limit,
    memlimits.allocate,
]


@pytest.mark.parametrize(("value", "error", "words"), BAD)
def test_a_bad_number_is_an_error_and_nothing_else(value, error, words):
    before = (limits(), counts())
    for function in TAKES_BYTES:
        with pytest.raises(error, match=words) as caught:
            function(value)
        assert type(caught.value) is error
        assert len(str(caught.value)) < 200
        assert (limits(), counts()) == before


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_a_missing_or_second_argument_is_an_error(arguments):
    before = limits()
    for function in TAKES_BYTES:
        with pytest.raises(TypeError, match="argument"):
            function(*arguments)
    assert limits() == before


@pytest.mark.parametrize(
    "function", [memlimits.set_memory_limit, memlimits.set_wired_limit, memlimits.allocate]
)
def test_none_means_something_for_the_cache_limit_only(function):
    before = limits()
    with pytest.raises(TypeError, match="NoneType"):
        function(None)
    assert limits() == before


@pytest.mark.parametrize("value", [4096, Index(4096), numpy.int16(4096), numpy.uint64(4096)])
def test_anything_with_index_is_a_number_of_bytes(value):
    memlimits.set_memory_limit(value)
    assert memlimits.get_memory_limit() == 4096
    memlimits.set_memory_limit(MIB)
    memlimits.set_cache_limit(value)
    assert memlimits.get_cache_limit() == 4096
    memlimits.set_wired_limit(value)
    assert memlimits.get_wired_limit() == 4096
    assert memlimits.allocate(value).nbytes == 4096
    assert type(memlimits.get_cache_limit()) is int


@pytest.mark.parametrize("policy", ["", "STRICT", "wait", "strict "])
def test_an_unknown_policy_is_an_error(policy):
    with pytest.raises(ValueError, match=repr(policy)):
        memlimits.set_memory_policy(policy)
    assert memory.get_memory_policy() == "guideline"


@pytest.mark.parametrize("policy", [None, 0, b"strict", ["strict"]])
def test_a_policy_of_another_type_is_an_error(policy):
    with pytest.raises(TypeError, match="policy"):
        memlimits.set_memory_policy(policy)
    assert memory.get_memory_policy() == "guideline"


# ---- setters and what they return ----


@pytest.mark.parametrize("numbers", [[10, 0, 2**63 - 1, 1, 10 * MIB]])
def test_setters_return_the_previous_value(numbers):
    previous = memlimits.get_memory_limit()
    memlimits.set_cache_limit(previous)
    for number in numbers:
        assert memlimits.set_memory_limit(number) == previous
        assert memlimits.set_cache_limit(number) == previous
        assert memlimits.get_memory_limit() == memlimits.get_cache_limit() == number
        previous = number


def test_set_wired_limit_returns_the_previous_value():
    assert memlimits.set_wired_limit(8192) == 0
    assert memlimits.set_wired_limit(1) == 8192
    assert memlimits.get_wired_limit() == 1


def test_set_memory_policy_returns_a_value_that_it_accepts():
    assert memlimits.set_memory_policy("strict") == "guideline"
    previous = memlimits.set_memory_policy("strict")
    assert previous == "strict"
    assert memlimits.set_memory_policy(previous) == "strict"


def test_none_lets_the_cache_limit_follow_the_memory_limit():
    memlimits.set_memory_limit(10 * MIB)
    assert memlimits.set_cache_limit(MIB) == 10 * MIB
    memlimits.set_memory_limit(20 * MIB)
    assert memlimits.get_cache_limit() == MIB
    assert memlimits.set_cache_limit(None) == MIB
    assert memlimits.get_cache_limit() == 20 * MIB
    memlimits.set_memory_limit(30 * MIB)
    assert memlimits.set_cache_limit(0) == 30 * MIB


# ---- lower limits act before they return ----


def idle_ranges(*sizes):
    """Addresses of blocks that were just given back, the first of them first."""
    buffers = [memlimits.allocate(size) for size in sizes]
    ranges = [(buffer.ptr, buffer.capacity) for buffer in buffers]
    for buffer in buffers:
        buffer.release()
    assert [mapped_bytes(*block) for block in ranges] == list(sizes)
    return ranges


def unmapped(block):
    """Nearly nothing of it is mapped: something else may have settled in the hole meanwhile."""
    return mapped_bytes(*block) < block[1] // 4


def test_clear_cache_unmaps_what_is_idle_and_nothing_else():
    live = memlimits.allocate(8 * MIB)
    ranges = idle_ranges(8 * MIB, 16 * MIB)
    before = proc_bytes("/proc/self/status", "VmSize")
    assert memlimits.get_cache_memory() == 24 * MIB
    assert memlimits.clear_cache() is None
    assert memlimits.get_cache_memory() == 0
    assert all(unmapped(block) for block in ranges)
    assert mapped_bytes(live.ptr, live.capacity) == 8 * MIB
    assert 20 * MIB < before - proc_bytes("/proc/self/status", "VmSize") <= 24 * MIB


def test_a_lower_cache_limit_unmaps_the_oldest_just_enough():
    oldest, middle, newest = idle_ranges(8 * MIB, 16 * MIB, 32 * MIB)
    memlimits.set_cache_limit(48 * MIB)
    assert unmapped(oldest)
    assert not unmapped(middle)
    memlimits.set_cache_limit(48 * MIB - 1)
    assert unmapped(middle)
    assert mapped_bytes(*newest) == 32 * MIB
    assert memlimits.get_cache_memory() == 32 * MIB


def test_a_lower_memory_limit_unmaps_idle_blocks_and_leaves_live_ones():
    live = memlimits.allocate(8 * MIB)
    live_range = (live.ptr, live.capacity)
    oldest, newest = idle_ranges(16 * MIB, 32 * MIB)
    memlimits.set_cache_limit(64 * MIB)
    memlimits.set_memory_limit(memlimits.get_active_memory() + 32 * MIB)
    assert unmapped(oldest)
    assert mapped_bytes(*newest) == 32 * MIB
    memlimits.set_memory_limit(10)
    assert unmapped(newest)
    assert mapped_bytes(*live_range) == 8 * MIB
    memoryview(live)[-1] = 1


def test_a_block_given_back_above_the_memory_limit_is_unmapped_at_once():
    buffer = memlimits.allocate(8 * MIB)
    block = (buffer.ptr, buffer.capacity)
    memlimits.set_memory_limit(10)
    buffer.release()
    assert unmapped(block)


def test_a_cache_limit_of_0_keeps_nothing():
    memlimits.set_cache_limit(0)
    for size in [1, 4096, 100_000, 8 * MIB]:
        buffer = memlimits.allocate(size)
        block = (buffer.ptr, max(buffer.capacity, PAGE))
        buffer.release()
        assert memlimits.get_cache_memory() == 0
        assert size < 8 * MIB or unmapped(block)


@needs_mlock
def test_wired_limit_locks_what_lives_and_unlocks_before_it_returns():
    locked = proc_bytes("/proc/self/status", "VmLck")
    first, second = memlimits.allocate(MIB), memlimits.allocate(2 * MIB)
    memlimits.set_wired_limit(3 * MIB)
    assert proc_bytes("/proc/self/status", "VmLck") == locked + 3 * MIB
    memlimits.set_wired_limit(3 * MIB - 1)
    assert proc_bytes("/proc/self/status", "VmLck") in (locked + MIB, locked + 2 * MIB)
    memlimits.set_wired_limit(0)
    assert proc_bytes("/proc/self/status", "VmLck") == locked
    assert memlimits.get_wired_memory() == 0
    first.release()
    second.release()


@needs_mlock
def test_wired_memory_is_what_the_kernel_has_locked():
    locked = proc_bytes("/proc/self/status", "VmLck")
    memlimits.set_wired_limit(4 * MIB)
    buffers = [memlimits.allocate(size) for size in (MIB, 100_000, 200, MIB, 8 * MIB)]
    wired = memlimits.get_wired_memory()
    assert 2 * MIB < wired <= 4 * MIB
    assert proc_bytes("/proc/self/status", "VmLck") - locked == wired
    del buffers
    memlimits.clear_cache()
    assert proc_bytes("/proc/self/status", "VmLck") == locked


# ---- wired limits that cannot be ----


def test_a_wired_limit_above_the_maximum_is_an_error_with_both_numbers():
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    memlimits.set_wired_limit(4096)
    with pytest.raises(memlimits.WiredLimitError) as caught:
        memlimits.set_wired_limit(maximum + 1)
    assert isinstance(caught.value, ValueError)
    assert (caught.value.requested, caught.value.maximum) == (maximum + 1, maximum)
    assert str(maximum + 1) in str(caught.value)
    assert str(maximum) in str(caught.value).replace(str(maximum + 1), "")
    assert memlimits.get_wired_limit() == 4096


def test_the_highest_wired_limit_is_accepted():
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        memlimits.set_wired_limit(maximum)
    assert memlimits.get_wired_limit() == maximum


def test_a_wired_limit_above_the_capacity_warns_once_with_the_way_out():
    allocator = Allocator(Device(wired_capacity=4 * PAGE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allocator.set_wired_limit(4 * PAGE)
    with pytest.warns(RuntimeWarning) as caught:
        allocator.set_wired_limit(4 * PAGE + 1)
    (warning,) = caught
    text = str(warning.message)
    assert f"{4 * PAGE + 1} bytes" in text
    assert f"{4 * PAGE} bytes" in text
    assert "ulimit -l" in text
    assert allocator.get_wired_limit() == 4 * PAGE + 1


def test_the_warning_names_the_callers_line():
    program = (
        "import sys, warnings, memlimits\n"
        "from memlimits import _allocator, _device, memory\n"
        "small = _allocator.Allocator(_device.Device(wired_capacity=4096))\n"
        "memory.default_allocator = lambda: small\n"
        "def caller():\n"
        "    memlimits.set_wired_limit(4097)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    caller()\n"
        "print([warning.lineno for warning in caught])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout == "[6]\n"


@needs_mlock
def test_what_is_above_the_capacity_stays_unlocked():
    allocator = Allocator(Device(wired_capacity=MIB))
    locked = proc_bytes("/proc/self/status", "VmLck")
    with pytest.warns(RuntimeWarning, match="wired_capacity"):
        allocator.set_wired_limit(64 * MIB)
    buffers = [allocate_in(allocator, 512 * KIB) for _ in range(4)]
    assert proc_bytes("/proc/self/status", "VmLck") == locked + MIB
    assert len(buffers) * 512 * KIB == allocator.get_active_memory()


# ---- active and peak ----


def test_active_and_peak_follow_what_is_handed_out(allocator):
    sizes = [64 * KIB, 5 * MIB, 128, 32 * KIB, 3 * MIB, 448]  # each a capacity as it is
    held, highest = [], 0
    for size in sizes:
        held.append((size, allocate_in(allocator, size)))
        highest = max(highest, sum(size for size, _ in held))
        assert allocator.get_active_memory() == sum(size for size, _ in held)
        if size == 3 * MIB:
            held.pop(1)[1].release()
            assert allocator.get_active_memory() == sum(size for size, _ in held)
        assert allocator.get_peak_memory() == highest
    assert highest == 8 * MIB + 96 * KIB + 128


def test_peak_reads_0_from_its_reset_to_the_next_allocation():
    base = memlimits.get_active_memory()
    first = memlimits.allocate(10 * MIB)
    assert memlimits.get_peak_memory() >= base + 10 * MIB
    assert memlimits.reset_peak_memory() is None
    assert memlimits.get_peak_memory() == 0
    first.release()
    memlimits.allocate(0)
    assert memlimits.get_peak_memory() == 0
    second = memlimits.allocate(MIB)
    assert memlimits.get_peak_memory() == base + MIB
    second.release()
    assert memlimits.get_peak_memory() == base + MIB


def test_peak_counts_a_block_that_came_from_the_cache(allocator):
    allocate_in(allocator, MIB).release()
    allocator.reset_peak_memory()
    held = allocate_in(allocator, MIB)
    assert allocator.get_peak_memory() == held.capacity == MIB


# ---- policies ----


def strict(allocator, limit):
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(limit)
    return allocator


def test_guideline_gives_past_the_limit_and_counts_it(allocator):
    allocator.set_memory_limit(2 * MIB)
    held = [allocate_in(allocator, MIB) for _ in range(2)]
    assert allocator.counters()["overruns"] == 0
    held.append(allocate_in(allocator, MIB))
    held.append(allocate_in(allocator, PAGE * 20))
    assert allocator.counters()["overruns"] == 2
    assert all(mapped_bytes(buffer.ptr, buffer.capacity) for buffer in held)


def test_guideline_returns_the_cache_before_it_goes_past_the_limit(allocator):
    idle = allocate_in(allocator, 8 * MIB)
    block = (idle.ptr, idle.capacity)
    idle.release()
    allocator.set_memory_limit(10 * MIB)
    held = allocate_in(allocator, 16 * MIB)
    assert unmapped(block) or held.ptr <= block[0] < held.ptr + held.capacity
    assert allocator.counters()["footprint"] == 16 * MIB


@pytest.mark.parametrize("pages", [9, 16, 256, 5000])
def test_strict_refuses_from_one_byte_below_the_pages_asked_for(allocator, pages):
    """Blocks above 32 KiB are whole pages."""
    size = pages * PAGE
    strict(allocator, size - 1)
    for asked in (size, size - PAGE + 1):
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, asked)
    assert allocate_in(allocator, size - PAGE).capacity == size - PAGE
    allocator.set_memory_limit(size)
    assert allocate_in(allocator, size).capacity == size
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, size + 1)


def test_strict_cuts_a_page_where_a_slab_does_not_fit(allocator):
    strict(allocator, PAGE - 1)
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 1)
    allocator.set_memory_limit(PAGE)
    blocks = [allocate_in(allocator, 1) for _ in range(PAGE // 64)]
    pages = {block.ptr // PAGE for block in blocks}
    assert len(pages) == 1
    assert len({block.ptr for block in blocks}) == PAGE // 64
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 1)
    blocks.pop()
    blocks.append(allocate_in(allocator, 64))


def test_strict_serves_small_blocks_up_to_the_last_page(allocator):
    strict(allocator, 64 * KIB + 3 * PAGE)  # one slab, and three single pages
    expected = 64 + 3 * (PAGE // 1024)
    blocks = [allocate_in(allocator, 1000) for _ in range(expected)]  # 1024 each
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 1)
    assert len({block.ptr for block in blocks}) == expected


def test_strict_returns_idle_blocks_for_a_new_one_just_enough(allocator):
    strict(allocator, 64 * MIB)
    held = [allocate_in(allocator, 16 * MIB) for _ in range(4)]
    ranges = [(buffer.ptr, buffer.capacity) for buffer in held]
    for buffer in held[:3]:
        buffer.release()
    large = allocate_in(allocator, 24 * MIB)
    new = set(range(large.ptr, large.ptr + large.capacity, PAGE))
    remain = [mapped_bytes(*block) == 16 * MIB and block[0] not in new for block in ranges]
    assert remain[2:] == [True, True]
    assert allocator.counters()["footprint"] == 24 * MIB + 32 * MIB


def test_strict_trims_nothing_for_what_it_refuses(allocator):
    strict(allocator, 64 * MIB)
    held, idle = allocate_in(allocator, 32 * MIB), allocate_in(allocator, 16 * MIB)
    block = (idle.ptr, idle.capacity)
    idle.release()
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 33 * MIB)
    assert mapped_bytes(*block) == 16 * MIB
    assert allocate_in(allocator, 16 * MIB).ptr == block[0]
    held.release()


def test_a_hit_is_never_refused(allocator):
    allocator.set_cache_limit(MIB)
    buffer, live = allocate_in(allocator, MIB), allocate_in(allocator, MIB)
    strict(allocator, 2 * MIB)
    pointer = buffer.ptr
    buffer.release()
    assert allocate_in(allocator, MIB).ptr == pointer
    live.release()


# ---- refusals ----


def refusal_of(allocator, size):
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, size)
    return caught.value


def test_a_refusal_says_exactly_what_was_in_use(allocator):
    live, small, idle = (allocate_in(allocator, size) for size in (300 * KIB, 100, 200 * KIB))
    idle.release()
    strict(allocator, MIB)
    refusal = refusal_of(allocator, MIB + 1)
    assert (refusal.requested, refusal.limit) == (MIB + 1, MIB)
    assert refusal.active == 300 * KIB + 128
    assert refusal.cache == 200 * KIB
    assert refusal.slack == 64 * KIB - 128
    assert refusal.footprint == 564 * KIB
    assert refusal.blocked_by == "limit"
    assert isinstance(refusal, MemoryError)
    for buffer in (live, small):
        buffer.release()


def too_long(allocator):
    return allocator.device_info()["max_buffer_length"] + 1


def all_that_there_is(allocator):
    return allocator.device_info()["max_buffer_length"]


@pytest.mark.parametrize("policy", ["guideline", "strict"])
@pytest.mark.parametrize(
    ("size", "blocked_by"),
    [
        (too_long, "length"),
        (lambda _: 2**63 - 1, "length"),
        (all_that_there_is, "system"),
    ],
)
def test_a_refusal_moves_no_counter(allocator, policy, size, blocked_by):
    """The system has never all of its memory left, least of all 32 MiB more."""
    allocator.set_memory_limit(2**62)
    allocator.set_memory_policy(policy)
    held = allocate_in(allocator, MIB)
    allocate_in(allocator, 2 * MIB).release()
    before, mapped = counts(allocator), proc_bytes("/proc/self/status", "VmSize")
    refusal = refusal_of(allocator, size(allocator))
    assert refusal.blocked_by == blocked_by
    assert refusal.requested == size(allocator)
    assert counts(allocator) == before
    assert abs(proc_bytes("/proc/self/status", "VmSize") - mapped) < MIB
    assert allocator.counters()["refusals"] == 1
    held.release()


@pytest.mark.parametrize("size", [1, 4096, 32 * KIB, 100_000, 64 * MIB])
def test_a_refusal_by_the_limit_moves_no_counter(allocator, size):
    held = allocate_in(allocator, MIB)
    strict(allocator, MIB)
    before = counts(allocator)
    assert refusal_of(allocator, size).requested == size
    assert counts(allocator) == before
    held.release()


def test_the_longest_buffer_of_a_device(allocator):
    allocator = Allocator(Device(max_buffer_length=MIB))
    assert allocate_in(allocator, MIB).capacity == MIB
    refusal = refusal_of(allocator, MIB + 1)
    assert refusal.blocked_by == "length"


def test_last_refusal_is_this_threads(allocator):
    strict(allocator, 0)
    refusal_of(allocator, 111)
    seen = []

    def other():
        seen.append(memlimits.last_refusal())
        refusal_of(allocator, 222)
        seen.append(memlimits.last_refusal())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen[0] is None
    assert seen[1].requested == 222
    assert memlimits.last_refusal().requested == 111
    assert allocator.latest_refusal().requested == 222
    assert isinstance(memlimits.last_refusal(), memlimits.MemoryLimitError)


def test_latest_refusal_is_the_newest_of_the_default_allocator():
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(0)
    for size in (10_000_001, 10_000_002):
        with pytest.raises(memlimits.MemoryLimitError):
            memlimits.allocate(size)
        assert memory.latest_refusal().requested == size
        assert memlimits.last_refusal().limit == 0


def test_a_device_refusal_moves_no_counter():
    """With the address space used up mmap refuses; the memory limit plays no part."""
    program = (
        "import json, resource, memlimits\n"
        "from memlimits import memory\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20),) * 2)\n"
        "held = memlimits.allocate(1 << 20)\n"
        "memlimits.set_memory_limit(10)\n"
        "before = memory.counters()\n"
        "try:\n"
        "    memlimits.allocate(1 << 30)\n"
        "except memlimits.MemoryLimitError as error:\n"
        "    print(json.dumps([before, memory.counters(), error.blocked_by, error.requested]))\n"
        "del held\n"
        "memlimits.allocate(16 << 20).release()\n"
    )
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer needs the address space")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True
    )
    before, after, blocked_by, requested = json.loads(result.stdout)
    assert (blocked_by, requested) == ("device", 1 << 30)
    assert after.pop("refusals") == before.pop("refusals") + 1
    assert after == before


# ---- the module ----


def test_all_lists_what_is_there():
    assert set(memlimits.__all__) <= set(dir(memlimits))
    for name in memlimits.__all__:
        assert getattr(memlimits, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = memlimits.nonsense


def test_import_imports_no_numpy():
    program = (
        "import sys, memlimits, memlimits.memory\n"
        "memlimits.allocate(100, zeroed=True).release()\n"
        "print('numpy' in sys.modules, 'empty' in dir(memlimits))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout == "False True\n"
