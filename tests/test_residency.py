"""The wired limit, as the kernel counts it: VmLck, the mappings' flags, and mincore."""

import ctypes
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

from memlimits import WiredLimitError
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in
from memlimits._device import Device

PAGE = 4096
KIB = 1 << 10
MIB = 1 << 20
MOST_NEEDED = 24 * MIB


def locked():
    """Bytes that this process has locked."""
    with open("/proc/self/status") as file:
        return int(file.read().split("VmLck:")[1].split()[0]) * KIB


def can_lock(n):
    libc = ctypes.CDLL(None)
    libc.mlock.argtypes = libc.munlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    block = allocate_in(Allocator(Device()), n)
    libc.mlock(block.ptr, n)
    seen = locked() == n
    libc.munlock(block.ptr, n)
    return seen


pytestmark = pytest.mark.skipif(
    not can_lock(MOST_NEEDED),
    reason="24 MiB cannot be locked: RLIMIT_MEMLOCK, or a sanitizer in the place of mlock",
)


def is_locked(buffer):
    """Whether the mapping that holds the buffer's first byte is locked."""
    inside = False
    with open("/proc/self/smaps") as file:
        for line in file:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                start, end = (int(address, 16) for address in first.split("-"))
                inside = start <= buffer.ptr < end
            elif inside and first == "VmFlags:":
                return "lo" in line.split()[1:]
    raise AssertionError("the buffer is not mapped")


def resident_pages(buffer):
    pages = (buffer.nbytes + PAGE - 1) // PAGE
    flags = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mincore(ctypes.c_void_p(buffer.ptr), ctypes.c_size_t(pages * PAGE), flags)
    assert result == 0, ctypes.get_errno()
    return sum(flag & 1 for flag in flags)


@pytest.fixture
def allocator():
    before = locked()
    allocator = Allocator(Device(memory_size=1 << 30))
    yield allocator
    allocator.set_wired_limit(0)
    assert locked() == before == 0


def run_threads(*targets):
    errors = []

    def guarded(target):
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


# ---- what is wired ----


@pytest.mark.core
def test_nothing_is_wired_at_first(allocator):
    block = allocate_in(allocator, MIB)
    assert allocator.get_wired_limit() == locked() == 0
    assert not is_locked(block)
    assert resident_pages(block) == 0


@pytest.mark.core
def test_a_new_block_is_wired_when_allocate_returns(allocator):
    allocator.set_wired_limit(4 * MIB)
    block = allocate_in(allocator, MIB)
    assert locked() == allocator.get_wired_memory() == MIB
    assert is_locked(block)
    assert resident_pages(block) == MIB // PAGE


@pytest.mark.core
def test_the_limit_is_exact_to_the_byte(allocator):
    allocator.set_wired_limit(3 * MIB - 1)
    blocks = [allocate_in(allocator, MIB) for _ in range(3)]
    assert locked() == 2 * MIB
    assert allocator.set_wired_limit(3 * MIB) == 3 * MIB - 1
    assert locked() == 3 * MIB
    allocator.set_wired_limit(3 * MIB - 1)
    assert locked() == allocator.get_wired_memory() == 2 * MIB
    assert sum(is_locked(block) for block in blocks) == 2


@pytest.mark.core
def test_raising_the_limit_wires_what_lives(allocator):
    blocks = [allocate_in(allocator, n * MIB) for n in (1, 2, 3)]
    assert locked() == 0
    allocator.set_wired_limit(16 * MIB)
    assert locked() == 6 * MIB
    assert all(resident_pages(block) == block.nbytes // PAGE for block in blocks)


@pytest.mark.core
def test_raising_the_limit_wires_nothing_idle(allocator):
    live, idle = allocate_in(allocator, 2 * MIB), allocate_in(allocator, MIB)
    idle.release()
    allocator.set_wired_limit(16 * MIB)
    assert is_locked(live)
    assert locked() == 2 * MIB


@pytest.mark.core
def test_lowering_the_limit_unwires_before_it_returns(allocator):
    allocator.set_wired_limit(8 * MIB)
    blocks = [allocate_in(allocator, 2 * MIB) for _ in range(4)]
    memoryview(blocks[0])[:] = b"x" * (2 * MIB)
    for limit in (7, 5, 4, 1, 0):
        allocator.set_wired_limit(limit * MIB)
        assert locked() == allocator.get_wired_memory() == limit // 2 * 2 * MIB
    assert bytes(blocks[0]) == b"x" * (2 * MIB)


@pytest.mark.core
def test_a_limit_put_back_wires_the_same_again(allocator):
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    allocator.set_wired_limit(8 * MIB)
    previous = allocator.set_wired_limit(MIB)
    assert (previous, locked()) == (8 * MIB, MIB)
    allocator.set_wired_limit(previous)
    assert locked() == 4 * MIB
    assert all(is_locked(block) for block in blocks)


@pytest.mark.core
def test_cycles_do_not_drift(allocator):
    held = [allocate_in(allocator, n) for n in (100, 50 * KIB, MIB)]
    at_the_top = set()
    for _ in range(32):
        allocator.set_wired_limit(8 * MIB)
        more = [allocate_in(allocator, n) for n in (MIB, 2 * MIB)]
        at_the_top.add((locked(), allocator.get_wired_memory()))
        for block in more:
            block.release()
        allocator.clear_cache()
        allocator.set_wired_limit(0)
        assert locked() == allocator.get_wired_memory() == 0
    assert len(at_the_top) == 1
    assert len(set(*at_the_top)) == 1
    assert len(held) == 3


@pytest.mark.core
def test_blocks_of_slabs_are_wired_with_their_slab(allocator):
    allocator.set_wired_limit(MIB)
    block = allocate_in(allocator, 100)
    footprint = allocator.counters()["footprint"]
    assert locked() == footprint
    assert is_locked(block)


# ---- who is wired when not all can be ----


@pytest.mark.core
def test_a_block_above_the_rest_of_the_budget_stays_out_and_others_go_in(allocator):
    allocator.set_wired_limit(4 * MIB)
    first = allocate_in(allocator, 3 * MIB)
    large = allocate_in(allocator, 2 * MIB)
    small = allocate_in(allocator, MIB)
    assert [is_locked(block) for block in (first, large, small)] == [True, False, True]
    assert locked() == 4 * MIB
    assert allocate_in(allocator, 5 * MIB).capacity == 5 * MIB
    assert locked() == 4 * MIB


@pytest.mark.core
def test_idle_blocks_give_way_to_a_live_one(allocator):
    allocator.set_wired_limit(4 * MIB)
    idle = [allocate_in(allocator, 2 * MIB) for _ in range(2)]
    for block in idle:
        block.release()
    assert locked() == 4 * MIB  # they stay while the budget allows
    live = allocate_in(allocator, 3 * MIB)
    assert is_locked(live)
    assert locked() == 3 * MIB


@pytest.mark.core
def test_idle_blocks_do_not_give_way_for_nothing(allocator):
    allocator.set_wired_limit(4 * MIB)
    live, idle = allocate_in(allocator, 3 * MIB), allocate_in(allocator, MIB)
    idle.release()
    more = allocate_in(allocator, 2 * MIB)
    assert not is_locked(more)
    assert is_locked(live)
    assert locked() == 4 * MIB


@pytest.mark.core
def test_live_blocks_keep_their_wiring_before_idle_ones_when_the_limit_falls(allocator):
    allocator.set_wired_limit(8 * MIB)
    idle = allocate_in(allocator, 3 * MIB)
    live = allocate_in(allocator, 2 * MIB)
    idle.release()
    allocator.set_wired_limit(4 * MIB)
    assert is_locked(live)
    assert locked() == 2 * MIB


@pytest.mark.core
def test_hits_do_not_change_wiring(allocator):
    allocator.set_wired_limit(2 * MIB)
    wired = allocate_in(allocator, 2 * MIB)
    outside = allocate_in(allocator, MIB)
    for block in (wired, outside):
        block.release()
    for _ in range(3):
        hit = allocate_in(allocator, MIB)
        assert not is_locked(hit)
        again = allocate_in(allocator, 2 * MIB)
        assert is_locked(again)
        assert locked() == 2 * MIB
        hit.release()
        again.release()
    assert allocator.counters()["misses"] == 2


@pytest.mark.core
def test_what_is_freed_and_returned_is_not_wired_any_more(allocator):
    allocator.set_wired_limit(8 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    blocks.pop().release()
    allocator.clear_cache()
    assert locked() == allocator.get_wired_memory() == 3 * MIB
    allocator.set_cache_limit(0)
    blocks.pop().release()
    assert locked() == allocator.get_wired_memory() == 2 * MIB


@pytest.mark.core
def test_a_wired_block_reused_as_zeroed_is_zero_and_stays_wired(allocator):
    allocator.set_wired_limit(8 * MIB)
    block = allocate_in(allocator, 4 * MIB)
    where = block.ptr
    memoryview(block)[:] = b"\xff" * (4 * MIB)
    block.release()
    again = allocate_in(allocator, 4 * MIB, zeroed=True)
    assert again.ptr == where
    assert bytes(again) == bytes(4 * MIB)
    assert is_locked(again)
    assert resident_pages(again) == 4 * MIB // PAGE
    assert locked() == 4 * MIB


@pytest.mark.core
def test_an_unwired_block_reused_as_zeroed_gives_its_pages_back(allocator):
    block = allocate_in(allocator, 4 * MIB)
    memoryview(block)[:] = b"\xff" * (4 * MIB)
    block.release()
    again = allocate_in(allocator, 4 * MIB, zeroed=True)
    assert resident_pages(again) == 0
    assert bytes(again) == bytes(4 * MIB)


# ---- at every instant ----

WATCH = """
    import sys, time
    highest = samples = 0
    with open(f"/proc/{sys.argv[1]}/status") as file:
        print("ready", flush=True)
        end = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < end:
            file.seek(0)
            highest = max(highest, int(file.read().split("VmLck:")[1].split()[0]))
            samples += 1
    print(highest * 1024)
"""


def churn(allocator, seed, seconds):
    rng = random.Random(seed)
    held = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(held) < 12 and rng.random() < 0.6:
            held.append(allocate_in(allocator, rng.randrange(1, 500) * PAGE))
        elif held:
            held.pop(rng.randrange(len(held))).release()


def test_never_above_the_limit_as_another_process_sees_it(allocator):
    limit = 6 * MIB
    allocator.set_wired_limit(limit)
    allocator.set_cache_limit(4 * MIB)
    watcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WATCH), str(os.getpid()), "1.2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout.readline() == "ready\n"
    run_threads(*(lambda seed=seed: churn(allocator, seed, 1.0) for seed in range(3)))
    highest = int(watcher.communicate(timeout=30)[0])
    assert watcher.returncode == 0
    assert limit // 2 < highest <= limit


@pytest.mark.core
def test_a_lowered_limit_holds_at_once_while_others_free(allocator):
    """Also what another thread is giving back just then has to be unwired."""
    allocator.set_cache_limit(0)
    done = threading.Event()

    def work():
        while not done.is_set():
            for block in [allocate_in(allocator, MIB) for _ in range(8)]:
                block.release()

    def limit():
        try:
            end = time.monotonic() + 1
            while time.monotonic() < end:
                allocator.set_wired_limit(MOST_NEEDED)
                time.sleep(0.002)
                allocator.set_wired_limit(0)
                assert locked() == 0
        finally:
            done.set()

    run_threads(limit, work, work, work)


# ---- arguments ----


@pytest.mark.core
def test_above_the_maximum_is_an_error_that_names_both_numbers(allocator):
    maximum = allocator.device_info()["max_recommended_working_set_size"]
    allocator.set_wired_limit(MIB)
    with pytest.raises(WiredLimitError) as caught:
        allocator.set_wired_limit(maximum + 1)
    assert isinstance(caught.value, ValueError)
    assert str(maximum) in str(caught.value)
    assert str(maximum + 1) in str(caught.value)
    assert allocator.get_wired_limit() == MIB


@pytest.mark.core
def test_above_the_capacity_is_accepted_with_one_warning_and_wires_the_capacity():
    allocator = Allocator(Device(memory_size=1 << 30, wired_capacity=2 * MIB))
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    with pytest.warns(RuntimeWarning, match=str(2 * MIB)) as caught:
        allocator.set_wired_limit(64 * MIB)
    assert len(caught) == 1
    assert "ulimit -l" in str(caught[0].message)
    assert allocator.get_wired_limit() == 64 * MIB
    assert locked() == allocator.get_wired_memory() == 2 * MIB
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no further warning
        blocks += [allocate_in(allocator, MIB) for _ in range(4)]
    assert locked() == 2 * MIB
    allocator.set_wired_limit(0)
    assert locked() == 0
