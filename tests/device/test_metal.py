"""The Metal device over the stand-in, which ends the process where Apple's contract is broken."""

import ctypes

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import place
from support.kernel import wholly_mapped
from support.metal import contents, count, fail, is_alive, run_with, setting, stand_in
from support.units import KIB, MIB

pytestmark = [
    pytest.mark.inside,
    pytest.mark.core,
    pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal"),
]

NEW_SET = "newResidencySetWithDescriptor:error:"


@pytest.fixture
def allocator():
    return Allocator(Device(), residency_set_cap=2 * MIB)


def test_facts():
    info = memlimits.device_info()
    assert info["backend"] == "metal"
    assert info["resource_limit"] == 499_000
    assert memlimits.get_memory_limit() == int(
        min(1.5 * info["max_recommended_working_set_size"], 0.95 * info["memory_size"])
    )


def test_a_wired_limit_of_zero_touches_no_set(allocator):
    commits, made = count("commit"), count(NEW_SET)
    held = [allocate_in(allocator, MIB) for _ in range(8)]
    allocator.set_wired_limit(0)
    held.clear()
    allocator.clear_cache()
    assert (count("commit"), count(NEW_SET)) == (commits, made)


def test_the_first_set_with_room_is_filled(allocator):
    before = count("sets")
    allocator.set_wired_limit(256 * MIB)
    held = [allocate_in(allocator, 512 * KIB) for _ in range(4)]
    assert count("sets") - before == 1
    held.append(allocate_in(allocator, 512 * KIB))
    assert count("sets") - before == 2
    held.pop(0)
    allocator.clear_cache()
    held.append(allocate_in(allocator, 512 * KIB))
    assert count("sets") - before == 2


def test_one_commit_for_each_touched_set(allocator):
    held = [allocate_in(allocator, MIB) for _ in range(8)]
    commits = count("commit")
    allocator.set_wired_limit(256 * MIB)
    assert count("commit") - commits == 4  # eight blocks, two a set
    allocator.set_wired_limit(0)
    assert count("commit") - commits == 8
    assert len(held) == 8


def test_nothing_of_metals_outlives_its_allocator():
    names = ("buffers", "sets", "objects", "resident_bytes")
    before = [count(name) for name in names]
    allocator = Allocator(Device(), residency_set_cap=2 * MIB)
    allocator.set_wired_limit(256 * MIB)
    held = [allocate_in(allocator, MIB) for _ in range(8)]
    held.pop().release()
    assert count("buffers") > before[0]
    del allocator, held
    assert [count(name) for name in names] == before


def test_where_no_set_can_be_made_no_allocation_fails(allocator):
    allocator.set_wired_limit(256 * MIB)
    fail(NEW_SET, -1)
    try:
        with pytest.warns(RuntimeWarning, match="could not be kept resident"):
            held = [allocate_in(allocator, 3 * MIB) for _ in range(3)]
    finally:
        fail(NEW_SET, 0)
    assert count("resident_bytes") == allocator.get_wired_memory() == 0
    assert allocator.counters()["wire_failures"] == len(held)


def test_where_no_further_set_can_be_made_the_emptiest_is_filled(allocator):
    before = count("sets")
    allocator.set_wired_limit(256 * MIB)
    fail(NEW_SET, -2)
    try:
        held = [allocate_in(allocator, 3 * MIB) for _ in range(3)]
    finally:
        fail(NEW_SET, 0)
    assert count("sets") - before == 1
    assert count("resident_bytes") == allocator.get_wired_memory() == 3 * MIB * len(held)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_buffer_that_metal_refuses(allocator, nth):
    allocate_in(allocator, MIB).release()
    before = allocator.counters()
    fail("newBufferWithLength:options:", -1 if nth == 2 else 1)
    try:
        if nth == 1:  # the second try, after the cache is returned, is granted
            allocate_in(allocator, 4 * MIB).release()
        else:
            with pytest.raises(memlimits.MemoryLimitError) as refusal:
                allocate_in(allocator, 4 * MIB)
            assert refusal.value.blocked_by == "device"
    finally:
        fail("newBufferWithLength:options:", 0)
    after = allocator.counters()
    assert after["active"] == before["active"] == after["pending"] == 0
    assert after["footprint"] == after["cache"] == (4 * MIB if nth == 1 else 0)


@pytest.fixture
def small_working_set():
    """An allocator whose growth trims above 95 MiB, and whose memory limit is 150."""
    with setting("working_set", 100 * MIB):
        yield Allocator(Device())


def filled(allocator, live, idle):
    """Live blocks of so many MiB, and the places of idle ones of 1 MiB, the first freed first."""
    held = [allocate_in(allocator, 20 * MIB) for _ in range(live // 20)]
    blocks = [allocate_in(allocator, MIB) for _ in range(idle)]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
    return held, places


def test_growth_near_the_working_set_returns_just_enough_idle_memory(small_working_set):
    before = count("buffer_bytes")
    held, idle = filled(small_working_set, live=80, idle=10)
    held.append(allocate_in(small_working_set, 5 * MIB))  # 95 in all
    assert count("buffer_bytes") - before == 95 * MIB
    held.append(allocate_in(small_working_set, 3 * MIB))
    assert count("buffer_bytes") - before == 95 * MIB
    assert wholly_mapped(idle) == idle[3:]  # the oldest went
    assert small_working_set.counters()["overruns"] == 0


@pytest.mark.parametrize("policy", ["guideline", "strict"])
def test_growth_above_the_working_set_is_not_refused(small_working_set, policy):
    before = count("buffer_bytes")
    small_working_set.set_memory_policy(policy)
    held, _ = filled(small_working_set, live=80, idle=10)
    held.append(allocate_in(small_working_set, 40 * MIB))
    assert count("buffer_bytes") - before == 120 * MIB
    held.append(allocate_in(small_working_set, 30 * MIB))
    assert count("buffer_bytes") - before == 150 * MIB
    assert small_working_set.counters()["overruns"] == 0
    assert small_working_set.counters()["refusals"] == 0


def test_a_hit_above_the_working_set_returns_nothing(small_working_set):
    before = count("buffer_bytes")
    held, _ = filled(small_working_set, live=100, idle=0)
    for _ in range(2):
        block = allocate_in(small_working_set, 4 * MIB)
        assert count("buffer_bytes") - before == 104 * MIB
        block.release()
    assert small_working_set.counters()["hits"] == 1
    assert len(held) == 5


def test_the_memory_limit_may_trim_more_than_the_working_set(small_working_set):
    before = count("buffer_bytes")
    small_working_set.set_memory_limit(92 * MIB)
    held, _ = filled(small_working_set, live=80, idle=10)
    held.append(allocate_in(small_working_set, 8 * MIB))
    assert count("buffer_bytes") - before == 92 * MIB


@pytest.mark.parametrize("settings", ["older_macos=1", "no_residency_family"])
def test_without_residency_a_wired_limit_is_accepted_and_does_nothing(settings):
    done = run_with(
        """
import warnings
warnings.simplefilter("error")
assert memlimits.set_wired_limit(1 << 30) == 0
assert memlimits.get_wired_limit() == 1 << 30
block = memlimits.allocate(1 << 20)
assert memlimits.get_wired_memory() == 0
assert memlimits.get_active_memory() == 1 << 20
""",
        settings,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_device():
    done = run_with(
        """
try:
    memlimits.allocate(1)
except memlimits.DeviceError as error:
    assert "no Metal device" in str(error), error
else:
    raise AssertionError
""",
        "no_device",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("n", [1, 100, 5000, 32 * KIB, 40_000, 3 * MIB])
def test_a_block_names_its_metal_buffer(allocator, n):
    held = [allocate_in(allocator, n) for _ in range(3)]
    retains = count("retains")
    for number, block in enumerate(held):
        buffer, offset = block.metal_buffer
        memoryview(block)[:] = bytes([number + 1]) * n
        assert is_alive(buffer)
        assert offset % 64 == 0
        assert ctypes.string_at(contents(buffer) + offset, n) == bytes([number + 1]) * n
    assert count("retains") == retains
    assert len({block.metal_buffer for block in held}) == 3
    shared = n <= 32 * KIB
    assert len({block.metal_buffer[0] for block in held}) == (1 if shared else 3)


def test_the_metal_buffer_lives_while_the_block_is_held(allocator):
    block = allocate_in(allocator, MIB)
    buffer, _ = block.metal_buffer
    allocator.clear_cache()
    assert is_alive(buffer)
    with block, pytest.raises(BufferError), memoryview(block):
        block.release()
    with pytest.raises(ValueError, match="released"):
        block.metal_buffer  # noqa: B018
    allocator.clear_cache()
    assert not is_alive(buffer)


def test_no_bytes_are_in_no_metal_buffer(allocator):
    block = allocate_in(allocator, 0)
    assert block.metal_buffer == (0, 0)
    block.release()
    with pytest.raises(ValueError, match="released"):
        block.metal_buffer  # noqa: B018
