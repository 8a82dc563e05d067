"""Refused allocations: what they say, and that nothing else has changed."""

import _thread
import threading

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import counts, made_strict, place, private, refusal_of, strict
from support.kernel import wholly_mapped, writable
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture
def allocator():
    return Allocator()


def test_a_refusal_says_exactly_what_was_in_use(allocator):
    live, small, idle = (allocate_in(allocator, size) for size in (320 * KIB, 100, 208 * KIB))
    idle.release()
    made_strict(allocator, MIB)
    refusal = refusal_of(allocator, MIB + 1)
    assert (refusal.requested, refusal.limit) == (MIB + 1, MIB)
    assert refusal.active == 320 * KIB + 128
    assert refusal.cache == 208 * KIB
    assert refusal.slack == 64 * KIB - 128
    assert refusal.footprint == 592 * KIB
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
        (too_long, "max_buffer_length"),
        (lambda _: 2**63 - 1, "max_buffer_length"),
        pytest.param(all_that_there_is, "system", marks=pytest.mark.host),
    ],
)
def test_a_refusal_moves_no_counter(allocator, policy, size, blocked_by):
    """The system has never all of its memory left, least of all 32 MiB more."""
    allocator.set_memory_limit(2**62)
    allocator.set_memory_policy(policy)
    held = allocate_in(allocator, MIB)
    idle = allocate_in(allocator, 2 * MIB)
    places = [place(held), place(idle)]
    idle.release()
    before, mapped = counts(allocator), writable()
    refusal = refusal_of(allocator, size(allocator))
    assert refusal.blocked_by == blocked_by
    assert refusal.requested == size(allocator)
    assert counts(allocator) == before
    assert wholly_mapped(places) == places
    assert writable() - mapped < 16 * MIB  # as a sanitizer's allocator takes for itself
    assert allocator.counters()["refusals"] == 1
    held.release()


@pytest.mark.parametrize("size", [1, 4096, 32 * KIB, 100_000, 64 * MIB])
def test_a_refusal_by_the_limit_moves_no_counter(allocator, size):
    held = allocate_in(allocator, MIB)
    made_strict(allocator, MIB)
    before = counts(allocator)
    assert refusal_of(allocator, size).requested == size
    assert counts(allocator) == before
    held.release()


def test_the_longest_buffer_of_a_device(allocator):
    allocator = Allocator(Device(max_buffer_length=MIB))
    assert allocate_in(allocator, MIB).capacity == MIB
    refusal = refusal_of(allocator, MIB + 1)
    assert refusal.blocked_by == "max_buffer_length"


def test_last_refusal_is_this_threads(allocator):
    made_strict(allocator, 0)
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


def without_refusals(counters):
    return {name: value for name, value in counters.items() if name != "refusals"}


@pytest.mark.parametrize(
    ("n", "error", "blocked_by"),
    [
        (5 * MIB, memlimits.MemoryLimitError, "limit"),
        (1 << 40, memlimits.MemoryLimitError, "max_buffer_length"),
        (2**63 - 1, memlimits.MemoryLimitError, "max_buffer_length"),
        (2**63, ValueError, None),
        (-1, ValueError, None),
        (1.0, TypeError, None),
        (True, TypeError, None),
        ("1", ValueError, None),
        (None, TypeError, None),
    ],
)
def test_a_failure_changes_no_counter(n, error, blocked_by):
    allocator = strict(8 * MIB)
    live, idle = allocate_in(allocator, 4 * MIB), allocate_in(allocator, MIB)
    idle.release()
    before = allocator.counters()
    with pytest.raises(error) as caught:
        allocate_in(allocator, n)
    after = allocator.counters()
    assert without_refusals(after) == without_refusals(before)
    assert after["refusals"] == before["refusals"] + (blocked_by is not None)
    if blocked_by:
        refusal = caught.value
        assert refusal.blocked_by == blocked_by
        assert (refusal.requested, refusal.limit) == (n, 8 * MIB)
        assert (refusal.footprint, refusal.active, refusal.cache) == (5 * MIB, 4 * MIB, MIB)
        assert memlimits.last_refusal().requested == n
    live.release()


def test_a_block_longer_than_a_buffer_may_be_leaves_the_cache_alone():
    allocator = private(max_buffer_length=16 * KIB)
    page = allocate_in(allocator, 4000)
    page.release()
    cached = allocator.get_cache_memory()
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 17 * KIB)
    assert caught.value.blocked_by == "max_buffer_length"
    assert allocator.get_cache_memory() == cached
    # A slab would be longer than the device allows; a smaller resource is not.
    assert allocate_in(allocator, 15 * KIB).capacity >= 15 * KIB


def test_the_thread_module_below_threading():
    """A thread that `threading` knows nothing of has refusals of its own."""
    finished = threading.Event()
    seen = []

    def work():
        seen.append(memlimits.last_refusal())
        try:
            memlimits.allocate(1 << 62)
        except memlimits.MemoryLimitError:
            seen.append(memlimits.last_refusal().requested)
        finished.set()

    with pytest.raises(memlimits.MemoryLimitError):
        memlimits.allocate(1 << 61)
    _thread.start_new_thread(work, ())
    assert finished.wait(10)
    assert seen == [None, 1 << 62]
    assert memlimits.last_refusal().requested == 1 << 61
