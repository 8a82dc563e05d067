"""The Metal device over the stand-in, which ends the process where Apple's contract is broken."""

import ctypes
import os

import pytest

import memlimits
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in
from memlimits._device import Device
from support.blocks import place
from support.kernel import wholly_mapped
from support.metal import contents, count, fail, is_alive, setting, stand_in
from support.process import execute
from support.units import KIB, MIB

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal"),
]

NEW_SET = "newResidencySetWithDescriptor:error:"


@pytest.fixture
def allocator():
    return Allocator(Device(), residency_set_cap=2 * MIB)


def run(script, settings=""):
    source = "import memlimits\nfrom memlimits import memory\n" + script
    both = ",".join(filter(None, [os.environ["FAKE_METAL"], settings]))
    return execute(source, env={**os.environ, "FAKE_METAL": both})


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


def test_many_blocks_stay_within_32_sets(allocator):
    before = count("sets")
    allocator.set_wired_limit(256 * MIB)
    held = [allocate_in(allocator, 2 * MIB) for _ in range(64)]
    assert count("resident_bytes") == allocator.get_wired_memory() == 128 * MIB
    assert count("sets") - before == 32
    held.clear()
    allocator.clear_cache()
    assert count("resident_bytes") == 0
    held = [allocate_in(allocator, 2 * MIB) for _ in range(8)]
    assert count("sets") - before == 32  # emptied ones are filled again
    assert count("resident_bytes") == 16 * MIB
    allocator.set_wired_limit(0)
    assert count("resident_bytes") == 0
    assert len(held) == 8


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


def test_a_block_longer_than_a_set_is_still_wired(allocator):
    allocator.set_wired_limit(256 * MIB)
    block = allocate_in(allocator, 100 * MIB)
    assert count("resident_bytes") == allocator.get_wired_memory() == 100 * MIB
    block.release()


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
    done = run(
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
    done = run(
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


FORKING = """
import os, sys, traceback
from contextlib import contextmanager

@contextmanager
def device_error():
    try:
        yield
    except memlimits.DeviceError as error:
        assert "Metal does not work in a forked child" in str(error), error
        assert "'spawn'" in str(error), error
    else:
        raise AssertionError("no DeviceError")

def in_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 7
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def consistent():
    values = memory.counters()
    parts = [values[name] for name in ("active", "cache", "slack", "pending")]
    assert values["footprint"] == sum(parts) and min(parts) >= 0, values
"""


def run_forking(script, settings=""):
    done = run(FORKING + script, settings)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_gets_an_error_and_not_a_crash():
    """The stand-in ends a child that sends Metal a message, or touches memory it does not have."""
    run_forking("""
sizes = [100, 5000, 40_000, 1 << 20]
memlimits.set_wired_limit(1 << 30)
held = [memlimits.allocate(n) for n in sizes for _ in range(3)]
held.pop(1).release()
idle = memlimits.allocate(1 << 20)
idle.release()
wired, active = memlimits.get_wired_memory(), memlimits.get_active_memory()

def child():
    assert memlimits.get_wired_memory() == memlimits.get_wired_limit() == 0
    assert memlimits.get_cache_memory() == 0
    assert memlimits.get_active_memory() == active
    assert memlimits.device_info()["backend"] == "metal"
    before = memory.counters()
    for n in (1, 5000, 40_000, 1 << 20, 4 << 20):
        with device_error():
            memlimits.allocate(n)
        with device_error():
            memlimits.allocate(n, zeroed=True)
    for limit in (1, 1 << 30):
        with device_error():
            memlimits.set_wired_limit(limit)
    for _ in range(2):
        with device_error():
            held[0].metal_buffer
    with device_error():
        memlimits.metal.attach(0x1000)
    after = memory.counters()
    assert (before.pop("refusals"), after.pop("refusals")) == (0, 10)
    assert before == after
    assert memlimits.get_wired_limit() == memlimits.set_wired_limit(0) == 0
    assert len(memlimits.allocate(0)) == 0
    for block in held:
        block.release()
        consistent()
    assert memlimits.get_active_memory() == 0
    memlimits.set_cache_limit(1 << 20)
    memlimits.set_memory_limit(1)
    memlimits.clear_cache()
    consistent()
    assert memlimits.get_cache_memory() == 0
    in_child(grandchild)

def grandchild():
    with device_error():
        memlimits.allocate(100)

in_child(child)
assert memlimits.get_wired_memory() == wired
assert memlimits.get_active_memory() == active
memlimits.allocate(1 << 20)
assert memory.counters()["hits"] >= 1
""")


def test_numpy_in_a_forked_child():
    run_forking("""
import numpy
with memlimits.govern_numpy():
    arrays = [numpy.ones(n) for n in (3, 100, 1000, 100_000)]
    spare = numpy.ones(100_000)
    del spare

    def child():
        for make in (numpy.zeros, numpy.empty, numpy.ones):
            try:
                make(1000)
            except MemoryError as error:
                assert not isinstance(error, memlimits.MemoryLimitError)
            else:
                raise AssertionError
            refusal = memlimits.last_refusal()
            assert (refusal.requested, refusal.blocked_by) == (8000, "fork")
            assert "'spawn'" in str(refusal)
        for make in (memlimits.empty, memlimits.zeros):
            with device_error():
                make(1000)
        arrays.clear()
        consistent()
        assert memlimits.get_active_memory() == 0

    in_child(child)
    assert [array.sum() for array in arrays] == [3, 100, 1000, 100_000]
""")


def test_a_child_reads_what_it_inherited_where_the_system_lets_it():
    run_forking(
        """
block = memlimits.allocate(5000)
memoryview(block)[:] = b"p" * 5000

def child():
    assert bytes(block) == b"p" * 5000

in_child(child)
""",
        "fork_keeps_memory",
    )


def test_a_child_of_a_process_without_a_device_has_metal():
    run_forking("""
def child():
    memoryview(memlimits.allocate(100))[0] = 1

in_child(child)
""")
