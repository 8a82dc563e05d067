"""Idle memory that the system may take: its pages, as the kernel sees them, and its use again."""

import ctypes
import threading
import time

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import place, private, with_room
from support.cgroup import needs_groups
from support.kernel import lazily_free, locked, needs_lockable, wholly_mapped
from support.metal import empty_volatile, has_buffer_at, is_purgeable_at, stand_in
from support.process import run
from support.threads import run_threads
from support.units import KIB, MIB

pytestmark = pytest.mark.inside

SIZE = 8 * MIB


def purgeable_bytes(block):
    """By the stand-in for Metal, or by the kernel in the block's mapping.

    The kernel takes note of a batch of pages at a time, of up to 31 on each processor that the
    thread ran on: a last few may be missing.
    """
    if stand_in():
        return block[1] if is_purgeable_at(block[0]) else 0
    found = lazily_free(block[0])
    return block[1] if block[1] - 512 * KIB <= found < block[1] else found


def held(places):
    """Which of the places the device has: over the stand-in nobody can touch what is purgeable."""
    if stand_in():
        return [place for place in places if has_buffer_at(place[0])]
    return wholly_mapped(places)


def written_and_idle(allocator, n=SIZE):
    block = allocate_in(allocator, n)
    memoryview(block)[:] = b"x" * n
    where = place(block)
    block.release()
    return where


def slow_step(allocator):
    """A request that no cache serves."""
    return allocate_in(allocator, 3 * MIB)


@pytest.mark.core
def test_nothing_becomes_purgeable_by_itself():
    allocator = private()
    where = written_and_idle(allocator)
    slow_step(allocator)
    assert purgeable_bytes(where) == 0
    assert memlimits.get_idle_timeout() is None


@pytest.mark.core
def test_idle_memory_becomes_purgeable_and_stays_in_the_cache():
    allocator = private()
    where = written_and_idle(allocator)
    assert allocator.set_idle_timeout(0) is None
    assert purgeable_bytes(where) == SIZE
    assert held([where]) == [where]
    assert allocator.get_cache_memory() == SIZE


@pytest.mark.core
def test_what_is_live_does_not_become_purgeable():
    allocator = private()
    live = allocate_in(allocator, SIZE)
    memoryview(live)[:] = b"y" * SIZE
    small = [allocate_in(allocator, 1000) for _ in range(100)]
    del small[1:]
    allocator.set_idle_timeout(0)
    assert purgeable_bytes(place(live)) == 0
    assert bytes(live) == b"y" * SIZE
    assert len(small) == 1


TICK = 0.03  # more than the clock's step


def decayed(allocator):
    return allocator.counters()["decayed"]


def slab_blocks(allocator):
    """In more than one slab."""
    return [allocate_in(allocator, 1000) for _ in range(300)]


@pytest.mark.core
@pytest.mark.parametrize("action", ["purge", "return"])
def test_a_slow_step_finds_what_was_not_used_for_the_time(action):
    allocator = private()
    allocator.set_idle_timeout(0.05, action)
    written_and_idle(allocator)
    small = slab_blocks(allocator)
    cached = allocator.get_cache_memory() + sum(block.capacity for block in small)
    small.clear()
    time.sleep(0.05 + TICK)
    slow_step(allocator).release()  # the first since
    assert decayed(allocator) >= cached


@pytest.mark.core
@pytest.mark.parametrize("again", [written_and_idle, slab_blocks])
def test_the_time_counts_from_the_last_use(again):
    """Two things are left idle, one a while after the other, and one look comes between."""
    for _ in range(100):
        allocator = with_room(private())
        allocator.set_idle_timeout(1000)
        first = written_and_idle(allocator, 5 * MIB)
        again(allocator)
        before = time.monotonic()
        time.sleep(4 * TICK)
        after = time.monotonic()
        again(allocator)
        allocator.set_idle_timeout(time.monotonic() - before - TICK)
        if time.monotonic() - after < 2 * TICK:  # else this thread did not run for a while
            break
    assert purgeable_bytes(first) == decayed(allocator) == 5 * MIB


@pytest.mark.core
def test_the_time_counts_from_the_last_use_on_any_thread():
    allocator = private()
    allocator.set_idle_timeout(1000)
    blocks = [allocate_in(allocator, SIZE), *slab_blocks(allocator)]
    run_threads(blocks.clear, lambda: allocate_in(allocator, 5 * MIB).release())
    time.sleep(2 * TICK)
    allocator.set_idle_timeout(TICK)
    assert decayed(allocator) == allocator.counters()["footprint"] > 13 * MIB


@pytest.mark.core
def test_what_was_idle_when_a_time_is_set_counts_from_then():
    allocator = private()
    written_and_idle(allocator)
    time.sleep(2 * TICK)
    allocator.set_idle_timeout(TICK)
    assert decayed(allocator) == 0
    time.sleep(2 * TICK)
    slow_step(allocator).release()
    assert decayed(allocator) == SIZE


@pytest.mark.core
def test_another_time_counts_from_the_last_use_all_the_same():
    allocator = private()
    allocator.set_idle_timeout(1000)
    written_and_idle(allocator)
    time.sleep(2 * TICK)
    allocator.set_idle_timeout(None)
    allocator.set_idle_timeout(TICK)
    assert decayed(allocator) == SIZE


@pytest.mark.core
@pytest.mark.parametrize("emptied", [False, True])
def test_purgeable_memory_is_used_again(emptied):
    allocator = private()
    where = written_and_idle(allocator)
    allocator.set_idle_timeout(0)
    if emptied and stand_in():
        assert empty_volatile() == 1
    allocator.set_idle_timeout(None)
    block = allocate_in(allocator, SIZE)
    assert place(block) == where
    assert allocator.counters()["hits"] == 1
    memoryview(block)[:] = b"z" * SIZE
    assert purgeable_bytes(where) == 0
    assert bytes(block) == b"z" * SIZE
    assert allocator.get_cache_memory() == 0
    assert allocator.get_active_memory() == SIZE


@pytest.mark.core
@pytest.mark.parametrize("n", [100, 5000, SIZE])
def test_purgeable_memory_used_as_zeroed_is_zero(n):
    allocator = private()
    block = allocate_in(allocator, n)
    memoryview(block)[:] = b"x" * n
    block.release()
    allocator.set_idle_timeout(0)
    block = allocate_in(allocator, n, zeroed=True)
    assert bytes(block) == bytes(n)
    assert allocator.counters()["misses"] == 1


@pytest.mark.core
def test_purgeable_memory_becomes_a_slab():
    allocator = private()
    where = written_and_idle(allocator, 64 * KIB)
    allocator.set_idle_timeout(0)
    blocks = [allocate_in(allocator, 100) for _ in range(100)]
    assert all(where[0] <= block.ptr < sum(where) for block in blocks)
    for i, block in enumerate(blocks):
        memoryview(block)[:] = bytes([i]) * 100
    assert all(bytes(block) == bytes([i]) * 100 for i, block in enumerate(blocks))


@pytest.mark.core
@pytest.mark.parametrize("how", ["clear", "cache limit", "memory limit"])
def test_purgeable_memory_goes_back_like_other_idle_memory(how):
    allocator = private()
    where = written_and_idle(allocator)
    allocator.set_idle_timeout(0)
    if how == "clear":
        allocator.clear_cache()
    elif how == "cache limit":
        allocator.set_cache_limit(SIZE - 1)
    else:
        allocator.set_memory_limit(SIZE - 1)
    assert held([where]) == []
    assert allocator.counters()["footprint"] == 0


@pytest.mark.core
def test_the_purgeable_are_the_first_to_go():
    allocator = with_room(private())
    first = written_and_idle(allocator, 5 * MIB)
    allocator.set_idle_timeout(0)
    allocator.set_idle_timeout(None)
    second = written_and_idle(allocator, SIZE)
    allocator.set_cache_limit(SIZE)
    assert held([first, second]) == [second]


@pytest.mark.host
@needs_lockable(SIZE)
def test_what_the_system_refuses_to_take_is_not_counted():
    """Nor is it purgeable. The program locked these pages itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    allocator = with_room(private())
    block = allocate_in(allocator, SIZE)
    where = place(block)
    assert libc.mlock(ctypes.c_void_p(where[0]), ctypes.c_size_t(SIZE)) == 0
    written_and_idle(allocator, 5 * MIB)
    block.release()
    allocator.set_idle_timeout(0)
    allocate_in(allocator, 9 * MIB).release()
    assert purgeable_bytes(where) == 0
    counters = allocator.counters()
    assert (counters["decays"], counters["decayed"]) == (1, 5 * MIB)
    assert counters["cache"] == SIZE + 5 * MIB + 9 * MIB
    allocator.set_idle_timeout(0, "return")
    counters = allocator.counters()
    assert (counters["decays"], counters["decayed"]) == (4, (5 + 8 + 5 + 9) * MIB)
    assert counters["cache"] == 0


@needs_lockable(SIZE)
def test_wired_memory_does_not_become_purgeable():
    before = locked()
    allocator = Allocator(Device(memory_size=1 << 30))
    allocator.set_wired_limit(SIZE)
    wired, other = allocate_in(allocator, SIZE), allocate_in(allocator, 5 * MIB)
    memoryview(other)[:] = b"x" * (5 * MIB)
    places = place(wired), place(other)
    wired.release()
    other.release()
    allocator.set_idle_timeout(0)
    assert locked() - before == SIZE
    assert purgeable_bytes(places[1]) == 5 * MIB
    assert purgeable_bytes(places[0]) == 0
    assert allocator.counters()["decays"] == 1
    allocator.set_wired_limit(0)


@needs_lockable(SIZE)
def test_purgeable_memory_that_is_used_again_is_wired():
    before = locked()
    allocator = Allocator(Device(memory_size=1 << 30))
    written_and_idle(allocator)
    allocator.set_idle_timeout(0)
    allocator.set_wired_limit(SIZE)
    assert locked() == before
    block = allocate_in(allocator, SIZE)
    assert locked() - before == SIZE
    memoryview(block)[:] = b"x" * SIZE
    allocator.set_wired_limit(0)


@pytest.mark.core
def test_threads():
    """What a thread wrote into its blocks stays, whatever becomes purgeable around them."""
    allocator = private()
    allocator.set_idle_timeout(0)
    done = threading.Event()

    def work(seed):
        for i in range(400):
            n = (seed * 7 + i * 13) % 40 * 64 * KIB + 64
            block = allocate_in(allocator, n, zeroed=i % 3 == 0)
            view = memoryview(block)
            if i % 3 == 0:
                assert view[0] == view[n // 2] == view[n - 1] == 0
            view[0] = view[n // 2] = view[n - 1] = seed
            assert view[0] == view[n // 2] == view[n - 1] == seed
            view.release()
            block.release()

    def clear():
        while not done.wait(0.001):
            allocator.clear_cache()

    def all_work():
        try:
            run_threads(lambda: work(1), lambda: work(2), lambda: work(3))
        finally:
            done.set()

    run_threads(all_work, clear)
    allocator.clear_cache()
    counters = allocator.counters()
    assert [counters[name] for name in ("footprint", "active", "cache", "pending")] == [0] * 4


@pytest.mark.host
@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        ("memlimits.get_cache_memory()", SIZE),
        ("memlimits.clear_cache()", 0),
        ("memlimits.set_cache_limit(SIZE - 1)", 0),
        ("memlimits.set_memory_limit(SIZE - 1)", 0),
    ],
)
def test_what_happens_while_memory_becomes_purgeable_is_heeded_afterwards(gate, meanwhile, left):
    run(
        f"""
        SIZE = {SIZE}
        gate = ctypes.CDLL(os.environ["LD_PRELOAD"])
        milliseconds = ctypes.c_int.in_dll(gate, "milliseconds")
        is_held = ctypes.c_bool.in_dll(gate, "is_held")
        ctypes.c_size_t.in_dll(gate, "held_length").value = SIZE
        milliseconds.value = 10_000
        memlimits.allocate(SIZE).release()
        thread = threading.Thread(target=memlimits.set_idle_timeout, args=(0,))
        thread.start()
        while not is_held.value:
            assert thread.is_alive()
        counters = memory.counters()
        assert (counters["cache"], counters["pending"]) == (0, SIZE), counters
        {meanwhile}
        milliseconds.value = 0
        thread.join()
        assert memlimits.get_cache_memory() == memory.counters()["footprint"] == {left}
        consistent()
        """,
        words=("env", f"LD_PRELOAD={gate}"),
    )


@pytest.mark.core
def test_round_trip():
    allocator = private()
    assert allocator.set_idle_timeout(1.5) is None
    assert allocator.set_idle_timeout(0) == 1.5
    assert allocator.set_idle_timeout(10**9) == 0
    assert allocator.set_idle_timeout(None) == 10**9
    assert allocator.get_idle_timeout() is None


@pytest.mark.core
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (10**400, ValueError),
        (1e9 + 1, ValueError),
        ("1", TypeError),
        (True, TypeError),
        (1j, TypeError),
        ([], TypeError),
    ],
)
def test_bad_times(value, error):
    allocator = private()
    allocator.set_idle_timeout(2)
    with pytest.raises(error, match="seconds must be"):
        allocator.set_idle_timeout(value)
    assert allocator.get_idle_timeout() == 2


IN_A_GROUP = """
    import mmap
    memlimits.set_memory_limit(1 << 40)
    def fill(memory):
        for start in range(0, len(memory), MIB):
            memory[start : start + MIB] = b"x" * MIB
    cached = memlimits.allocate(152 * MIB)
    fill(memoryview(cached))
    where = cached.ptr
    cached.release()
"""


@pytest.mark.host
@needs_groups
def test_the_system_takes_purgeable_memory_where_it_would_have_killed(in_group):
    script = (
        IN_A_GROUP
        + """
    memlimits.set_idle_timeout({timeout})
    other = mmap.mmap(-1, 160 * MIB, flags=mmap.MAP_PRIVATE)
    fill(other)
    assert memlimits.get_cache_memory() == 152 * MIB
    assert proc("RssAnon") < 256 * MIB
    other.close()
    again = memlimits.allocate(152 * MIB, zeroed=True)
    assert again.ptr == where
    with memoryview(again) as view:
        assert all(view[i : i + MIB] == bytes(MIB) for i in range(0, 152 * MIB, MIB))
    again.release()
    again = memlimits.allocate(152 * MIB)
    fill(memoryview(again))
    """
    )
    run(script.format(timeout=0), words=in_group)
    run(script.format(timeout=None), words=in_group, code=-9)


@pytest.mark.host
@needs_groups
def test_purgeable_memory_is_not_used_again_where_the_system_has_not_got_it(in_group):
    run(
        IN_A_GROUP
        + """
    memlimits.set_idle_timeout(0)
    other = mmap.mmap(-1, 160 * MIB, flags=mmap.MAP_PRIVATE)
    fill(other)
    assert refused_by(152 * MIB) == "system"
    other.close()
    again = memlimits.allocate(152 * MIB)
    fill(memoryview(again))
    assert refused_by(152 * MIB) == "system"
    del again
    memlimits.clear_cache()
    consistent()
        """,
        words=in_group,
    )
