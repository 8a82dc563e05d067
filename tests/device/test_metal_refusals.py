"""What the Metal device refuses: a further resource, memory, residency, a limit, all of Metal."""

import pytest

import memlimits
from support.metal import run_with, stand_in
from support.places import TESTS
from support.units import MIB

pytestmark = [
    pytest.mark.inside,
    pytest.mark.core,
    pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal"),
]

# What the programs below may use.
COMMON = f"""
import sys
sys.path.append({str(TESTS)!r})
from support.metal import count, fail
from support.threads import run_threads
MIB = 1 << 20
NEW_BUFFER = "newBufferWithLength:options:"

def refusal_of(n):
    before = memory.counters()
    try:
        memlimits.allocate(n)
    except memlimits.MemoryLimitError as error:
        after = memory.counters()
        assert after.pop("refusals") == before.pop("refusals") + 1
        assert before["cache"] or after == before, (before, after)
        consistent()
        return error
    raise AssertionError("it was granted")

def consistent():
    counters = memory.counters()
    parts = sum(counters[part] for part in ("active", "cache", "slack", "pending"))
    assert counters["footprint"] == parts == count("buffer_bytes"), counters
    assert counters["resources"] == count("buffers"), counters
    assert all(0 <= value < 2**63 for value in counters.values()), counters
"""


def run(script, settings):
    done = run_with(COMMON + script, settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_at_the_resource_limit_what_is_cached_goes_first():
    run(
        """
assert memlimits.device_info()["resource_limit"] == 20
blocks = [memlimits.allocate(MIB) for _ in range(20)]
del blocks[15:]
assert (count("buffers"), memlimits.get_cache_memory()) == (20, 5 * MIB)
blocks.append(memlimits.allocate(3 * MIB))
assert (count("buffers"), memlimits.get_cache_memory()) == (16, 0)
consistent()
""",
        "rsrc_limit=20",
    )


def test_one_resource_too_many():
    run(
        """
blocks = [memlimits.allocate(MIB) for _ in range(20)]
asked = count(NEW_BUFFER)
for n in (1, 5000, 40_000, MIB, 64 * MIB):
    error = refusal_of(n)
    assert (error.requested, error.blocked_by) == (n, "resources")
    assert "resource_limit" in str(error)
    assert memlimits.last_refusal().blocked_by == "resources"
assert count(NEW_BUFFER) == asked  # what Metal does then is not documented
blocks.pop()
blocks.append(memlimits.allocate(MIB))
blocks.pop()
blocks.append(memlimits.allocate(1))  # the place of what is cached
consistent()
assert count("buffers") == 20
assert refusal_of(MIB).blocked_by == "resources"
""",
        "rsrc_limit=20",
    )


def test_the_resources_of_all_allocators_count_together():
    run(
        """
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
other = Allocator()
blocks = [allocate_in(other, MIB) for _ in range(12)]
mine = [memlimits.allocate(MIB) for _ in range(8)]
assert memory.counters()["resources"] == 8
try:
    memlimits.allocate(MIB)
except memlimits.MemoryLimitError as error:
    assert error.blocked_by == "resources"
else:
    raise AssertionError
del blocks, other
mine += [memlimits.allocate(MIB) for _ in range(12)]
assert refusal_of(MIB).blocked_by == "resources"
""",
        "rsrc_limit=20",
    )


def test_numpy_at_the_resource_limit():
    run(
        """
import numpy
with memlimits.govern_numpy():
    arrays = []
    try:
        while True:
            arrays.append(numpy.ones(MIB))
    except MemoryError:
        pass
    refusal = memlimits.last_refusal()
    assert (refusal.blocked_by, count("buffers")) == ("resources", 20)
    consistent()
    del arrays[:3]
    assert numpy.ones(MIB).sum() == MIB
""",
        "rsrc_limit=20",
    )


def test_a_buffer_that_was_not_made_is_not_counted():
    run(
        """
for _ in range(3):
    fail(NEW_BUFFER, -1)
    for n in (1, MIB):
        assert refusal_of(n).blocked_by == "device"
    fail(NEW_BUFFER, 0)
    blocks = [memlimits.allocate(MIB) for _ in range(20)]
    assert refusal_of(MIB).blocked_by == "resources"
    del blocks
    memlimits.clear_cache()
    consistent()
""",
        "rsrc_limit=20",
    )


def test_threads_at_the_resource_limit():
    run(
        """
memlimits.set_cache_limit(0)
refused = set()

def work():
    for _ in range(200):
        blocks = []
        try:
            blocks += [memlimits.allocate(MIB) for _ in range(8)]
        except memlimits.MemoryLimitError as error:
            refused.add(error.blocked_by)

run_threads(*[work] * 4)
assert refused <= {"resources"}
assert count("buffers") == 0
consistent()
blocks = [memlimits.allocate(MIB) for _ in range(20)]
assert refusal_of(MIB).blocked_by == "resources"
""",
        "rsrc_limit=20",
    )


def test_no_memory_for_a_buffer():
    run(
        """
blocks = [memlimits.allocate(10 * MIB) for _ in range(10)]
del blocks[8:]
blocks.append(memlimits.allocate(15 * MIB))  # in place of what was cached
assert memlimits.get_cache_memory() == 0
assert refusal_of(6 * MIB).blocked_by == "device"
blocks.append(memlimits.allocate(5 * MIB))
assert refusal_of(1).blocked_by == "device"
""",
        f"buffer_memory={100 * MIB}",
    )


def test_a_virtual_machine_makes_no_residency_sets():
    run(
        """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    held = memlimits.allocate(MIB)
    memlimits.set_wired_limit(64 * MIB)
    blocks = [memlimits.allocate(n * MIB) for n in (1, 2, 3)]
(warning,) = caught
assert "could not be kept resident" in str(warning.message), warning
assert memlimits.get_wired_limit() == 64 * MIB
assert memlimits.get_wired_memory() == count("resident_bytes") == count("sets") == 0
assert memory.counters()["wire_failures"] == 4
memlimits.set_wired_limit(0)
consistent()
""",
        "residency_fails",
    )


def test_without_metal_every_call_that_needs_it_says_so():
    run(
        """
calls = [
    lambda: memlimits.allocate(1), memlimits.device_info, memlimits.get_memory_limit,
    lambda: memlimits.set_wired_limit(1), lambda: memlimits.govern_numpy(),
    lambda: memlimits.metal.attach(0x1000), lambda: memlimits.empty(3),
]
for call in calls + calls:
    try:
        call()
    except memlimits.DeviceError as error:
        assert "no Metal device" in str(error), error
    else:
        raise AssertionError(call)
""",
        "no_device",
    )


def test_a_wired_limit_above_the_working_set_names_the_systems_setting():
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    with pytest.raises(memlimits.WiredLimitError) as caught:
        memlimits.set_wired_limit(maximum + 1)
    for part in (str(maximum), str(maximum + 1), "sudo sysctl iogpu.wired_limit_mb="):
        assert part in str(caught.value)
    assert memlimits.get_wired_limit() == 0
