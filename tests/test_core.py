"""The promises of the design, each against an oracle that is not the library's own counters.

What the tests know for themselves: what they asked for and got, and, from /proc, what is mapped
and what is resident.
"""

import os
import random
import struct
import subprocess
import sys
import textwrap
import threading
import time
from array import array
from itertools import pairwise

import pytest

import memlimits
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in
from memlimits._device import Device

PAGE = 4096
KIB = 1 << 10
MIB = 1 << 20


def private(**capacities):
    """An allocator of the test's own, on a device of at most a GiB."""
    return Allocator(Device(**{"memory_size": 1 << 30, **capacities}))


def strict(limit):
    allocator = private()
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(limit)
    return allocator


def mappings():
    """The address ranges of this process that can be written, neighbours joined."""
    joined = []
    with open("/proc/self/maps") as file:
        for line in file:
            span, mode = line.split()[:2]
            if not mode.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            if joined and joined[-1][1] == start:
                joined[-1][1] = end
            else:
                joined.append([start, end])
    return joined


def mapped(blocks):
    """Which of the blocks, given as (address, length), are wholly there."""
    spans = mappings()
    return [
        block
        for block in blocks
        if any(start <= block[0] and sum(block) <= end for start, end in spans)
    ]


def mapped_bytes(blocks):
    return sum(length for _, length in mapped(blocks))


def place(buffer):
    return buffer.ptr, buffer.capacity


def without_refusals(counters):
    return {name: value for name, value in counters.items() if name != "refusals"}


def run_threads(*targets):
    """Run the functions at once, and raise what any of them raised."""
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


class Ledger:
    """What threads asked for and got: at every instant `low <= active <= high`.

    A thread counts a block in `high` before it asks, and in `low` once it has it.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.low = self.high = self.highest_low = 0
        self.highs = array("q", [0])

    def _add(self, low, high):
        with self.lock:
            self.low += low
            self.high += high
            self.highest_low = max(self.highest_low, self.low)
            self.highs.append(self.high)
            return len(self.highs) - 1

    def asking(self, n):
        return self._add(0, n)

    def got(self, n):
        return self._add(n, 0)

    def giving(self, n):
        return self._add(-n, 0)

    def gave(self, n):
        return self._add(0, -n)

    def highest_since(self, mark):
        with self.lock:
            return max(self.highs[mark:])


def churn(allocator, ledger, sizes, seed, seconds, keep=6, on_refusal=None, each=None):
    """Allocate and free blocks of the sizes, which have to be capacities, in random order."""
    rng = random.Random(seed)
    held = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(held) < keep and rng.random() < 0.6:
            n = rng.choice(sizes)
            mark = ledger.asking(n)
            try:
                block = allocate_in(allocator, n)
            except memlimits.MemoryLimitError as error:
                on_refusal(error, ledger.highest_since(mark))
                ledger.gave(n)
                continue
            ledger.got(block.capacity)
            ledger.asking(block.capacity - n)
            held.append(block)
            if each:
                each(block)
        elif held:
            block = held.pop(rng.randrange(len(held)))
            n = block.capacity
            ledger.giving(n)
            block.release()
            ledger.gave(n)
    for block in held:
        ledger.giving(block.capacity)
        block.release()
        ledger.gave(block.capacity)


# ---- 1: the identity ----


@pytest.mark.core
def test_every_snapshot_under_load_is_consistent():
    allocator = strict(8 * MIB)
    allocator.set_cache_limit(2 * MIB)
    ledger = Ledger()
    done = threading.Event()
    sizes = [64, 3072, 40 * KIB, 256 * KIB, MIB, 3 * MIB]

    def sample():
        snapshots = 0
        while not done.is_set():
            mark = ledger.asking(0)
            counters = allocator.counters()
            assert counters["footprint"] == sum(
                counters[part] for part in ("active", "cache", "slack", "pending")
            )
            assert all(0 <= value < 1 << 63 for value in counters.values())
            # A block may be up to one eighth longer than what was asked for.
            assert counters["active"] <= 1.125 * ledger.highest_since(mark)
            snapshots += 1
        assert snapshots > 100

    def work(seed):
        churn(allocator, ledger, sizes, seed, 0.7, on_refusal=lambda *_: None)

    def both():
        try:
            run_threads(lambda: work(1), lambda: work(2))
        finally:
            done.set()

    run_threads(sample, both)
    assert allocator.get_active_memory() == ledger.low == ledger.high == 0


@pytest.mark.core
def test_active_is_what_the_test_holds():
    allocator = private()
    blocks = [allocate_in(allocator, n) for n in (1, 64, 65, 5000, 32768, 32769, MIB + 1, 0)]
    assert allocator.get_active_memory() == sum(block.capacity for block in blocks)
    for block in blocks:
        block.release()
    assert allocator.get_active_memory() == 0


def vm_size():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * KIB for line in file if line.startswith("VmSize:"))


def test_footprint_is_what_the_process_has_mapped():
    """Also the slack: what a slab has beyond its live block."""

    def grows_by(n):
        allocator = private()
        allocate_in(allocator, n).release()  # the page map's nodes are there
        allocator.clear_cache()
        before = vm_size()
        block = allocate_in(allocator, n)
        after = vm_size()
        counters = allocator.counters()
        assert counters["slack"] == counters["footprint"] - block.capacity
        return after - before - counters["footprint"]

    # The interpreter may map something of its own meanwhile, but not each time.
    for n in (64, 1000, 20000, 40 * KIB, 5 * MIB):
        assert min(abs(grows_by(n)) for _ in range(5)) == 0


# ---- 2: the strict limit ----

WATCH = """
    import sys, time
    highest = 0
    with open(f"/proc/{sys.argv[1]}/status") as file:
        print("ready", flush=True)
        end = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < end:
            file.seek(0)
            text = file.read()
            highest = max(highest, int(text.split("RssAnon:")[1].split()[0]))
    print(highest * 1024)
"""


def resident():
    with open("/proc/self/status") as file:
        return int(file.read().split("RssAnon:")[1].split()[0]) * KIB


def test_strict_footprint_stays_below_the_limit_as_another_process_sees_it():
    limit = 64 * MIB
    allocator = strict(limit)
    ledger = Ledger()
    filler = memoryview(b"x" * (12 * MIB))
    baseline = resident()
    watcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WATCH), str(os.getpid()), "1.5"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout.readline() == "ready\n"
    refusals = 0

    def check(error, highest):
        nonlocal refusals
        refusals += 1
        assert error.blocked_by == "limit"
        assert highest > limit

    def touch(block):
        memoryview(block)[:] = filler[: block.nbytes]
        assert ledger.low <= limit

    sizes = [MIB, 3 * MIB, 5 * MIB, 8 * MIB, 12 * MIB]

    def work(seed):
        churn(allocator, ledger, sizes, seed, 1.3, keep=8, on_refusal=check, each=touch)

    run_threads(*(lambda seed=seed: work(seed) for seed in range(4)))
    highest = int(watcher.communicate(timeout=30)[0])
    assert watcher.returncode == 0
    assert refusals
    assert highest > baseline + limit // 2  # the watcher saw the load
    assert highest <= baseline + limit + 4 * MIB  # the interpreter's own, threads' stacks


@pytest.mark.core
def test_demands_that_fit_together_are_never_refused():
    """Trims and reservations of one thread must not make another think that memory is short."""
    threads = 4
    allocator = strict(threads * 8 * MIB)

    def work(seed):
        rng = random.Random(seed)
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            left, held = 8 * MIB, []
            while left >= MIB and len(held) < 4:
                n = rng.randrange(MIB // 2, left) // PAGE * PAGE
                block = allocate_in(allocator, n)
                # An idle block may serve that is up to one eighth longer: the demand includes it.
                left -= block.capacity
                if left < 0:
                    block.release()
                    break
                held.append(block)
            for block in held:
                block.release()

    # Capacities may exceed a demand by an eighth while the test looks at them.
    allocator.set_memory_limit(threads * 9 * MIB + threads * PAGE)
    run_threads(*(lambda seed=seed: work(seed) for seed in range(threads)))
    assert allocator.counters()["refusals"] == 0


@pytest.mark.core
def test_the_limit_is_exact_to_the_byte():
    allocator = strict(10 * MIB)
    block = allocate_in(allocator, 6 * MIB)
    exact = allocate_in(allocator, 4 * MIB)
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, PAGE)
    assert caught.value.blocked_by == "limit"
    assert (caught.value.requested, caught.value.active) == (PAGE, 10 * MIB)
    exact.release()
    allocator.set_memory_limit(10 * MIB - 1)
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 4 * MIB)
    allocator.set_memory_limit(10 * MIB)
    assert allocate_in(allocator, 4 * MIB).capacity == 4 * MIB
    assert block.capacity == 6 * MIB


@pytest.mark.core
def test_a_strict_refusal_trims_nothing():
    allocator = strict(10 * MIB)
    live, idle = allocate_in(allocator, 6 * MIB), allocate_in(allocator, 2 * MIB)
    where = place(idle)
    idle.release()
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 5 * MIB)
    assert mapped([where]) == [where]
    assert live.capacity == 6 * MIB


@pytest.mark.core
def test_a_limit_below_what_is_active_lets_the_footprint_only_fall():
    allocator = strict(64 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(8)]
    places = [place(block) for block in blocks]
    allocator.set_memory_limit(3 * MIB)
    previous = mapped_bytes(places)
    assert previous == 8 * MIB
    while blocks:
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, 2 * MIB + PAGE)
        blocks.pop().release()
        held = mapped_bytes(places)
        assert held == max(len(blocks), 3) * MIB
        assert held <= previous
        previous = held
        if len(blocks) == 3:
            break


@pytest.mark.core
def test_lowering_the_limit_trims_before_it_returns():
    allocator = private()
    live = allocate_in(allocator, 2 * MIB)
    idle = [allocate_in(allocator, n * MIB) for n in (3, 4, 5)]
    places = [place(block) for block in idle]
    for block in idle:
        block.release()
    assert allocator.set_memory_limit(2 * MIB + 5 * MIB) == int(0.95 * (1 << 30))
    assert mapped(places) == places[2:]
    allocator.set_memory_limit(1)
    assert mapped(places) == []
    assert mapped([place(live)])


# ---- 3: the cache limit, and who goes first ----


@pytest.mark.core
def test_the_cache_is_within_its_limit_whenever_a_call_returns():
    allocator = private()
    limit = 5 * MIB
    allocator.set_cache_limit(limit)
    rng = random.Random(3)
    live, seen = [], set()
    for step in range(300):
        if live and rng.random() < 0.5:
            live.pop(rng.randrange(len(live))).release()
        else:
            live.append(allocate_in(allocator, rng.randrange(10, 400) * PAGE))
            seen.add(place(live[-1]))
        if step % 50 == 49:
            limit = rng.randrange(8) * MIB
            allocator.set_cache_limit(limit)
        # An address may have been given anew to a block of another length.
        taken = [place(block) for block in live]
        idle = allocator.get_cache_memory()
        assert idle <= limit
        starts = {start for start, _ in taken}
        candidates = [where for where in seen if where[0] not in starts]
        assert idle <= mapped_bytes(candidates)
        assert allocator.get_active_memory() == sum(length for _, length in taken)


@pytest.mark.core
@pytest.mark.parametrize(
    ("allowed", "left"),
    [(12, "bac"), (11, "ac"), (7, "ac"), (6, "c"), (5, "c"), (4, ""), (0, "")],
)
def test_the_oldest_go_first_and_just_enough_of_them(allowed, left):
    allocator = private()
    blocks = {name: allocate_in(allocator, n * MIB) for name, n in (("a", 2), ("b", 5), ("c", 5))}
    places = {name: place(block) for name, block in blocks.items()}
    for name in "bac":
        blocks[name].release()
    allocator.set_cache_limit(allowed * MIB)
    assert [name for name in "bac" if mapped([places[name]])] == list(left)


@pytest.mark.core
def test_a_hit_makes_a_block_young_again():
    allocator = private()
    blocks = [allocate_in(allocator, n * MIB) for n in (2, 4, 8)]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
    again = allocate_in(allocator, 2 * MIB)
    assert place(again) == places[0]
    again.release()
    allocator.set_cache_limit(10 * MIB)
    assert mapped(places) == [places[0], places[2]]


@pytest.mark.core
def test_growing_trims_just_enough():
    allocator = strict(16 * MIB)
    blocks = [allocate_in(allocator, 4 * MIB) for _ in range(4)]
    places = [place(block) for block in blocks]
    for block in blocks:
        block.release()
    new = allocate_in(allocator, 6 * MIB)
    # The space of those that went may serve the new block: those that stay are the newest.
    assert all(where in mapped(places) for where in places[2:])
    assert allocator.get_cache_memory() == 8 * MIB
    assert new.capacity == 6 * MIB


@pytest.mark.core
def test_clear_cache_unmaps_all_that_is_idle():
    allocator = private()
    blocks = [allocate_in(allocator, n * MIB) for n in (1, 2, 3)]
    places = [place(block) for block in blocks]
    blocks[0].release()
    blocks[2].release()
    allocator.clear_cache()
    assert mapped(places) == [places[1]]
    assert allocator.get_cache_memory() == 0


@pytest.mark.core
def test_a_cache_limit_of_zero_keeps_nothing():
    allocator = private()
    allocator.set_cache_limit(0)
    for n in (100, 40 * KIB, 4 * MIB):
        block = allocate_in(allocator, n)
        where = block.ptr // PAGE * PAGE, max(block.capacity, PAGE)
        block.release()
        assert mapped([where]) == []


# ---- hits ----


@pytest.mark.core
def test_a_hit_is_never_refused():
    allocator = strict(MIB)
    keep, other = allocate_in(allocator, 1000), allocate_in(allocator, 1000)
    where = other.ptr
    other.release()
    allocator.set_memory_limit(0)
    hit = allocate_in(allocator, 1000)
    assert hit.ptr == where
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 2000)
    assert keep.capacity == hit.capacity


@pytest.mark.core
def test_sizes_that_grow_step_by_step_keep_hitting():
    allocator = private()
    allocate_in(allocator, 9 * MIB).release()
    for n in (8 * MIB, 8 * MIB + 500 * KIB, 9 * MIB):
        allocate_in(allocator, n).release()
    assert allocator.counters()["misses"] == 1
    block = allocate_in(allocator, 7 * MIB)
    assert block.capacity == 7 * MIB


# ---- 5: the peak ----


@pytest.mark.core
def test_peak_is_the_highest_sum_that_the_test_held():
    allocator = private()
    rng = random.Random(5)
    held, highest = [], 0
    for _ in range(300):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).release()
        else:
            held.append(allocate_in(allocator, int(2 ** rng.uniform(0, 21))))
        highest = max(highest, sum(block.capacity for block in held))
        assert allocator.get_peak_memory() == highest


@pytest.mark.core
def test_peak_after_a_reset_is_0_until_the_next_allocation():
    allocator = private()
    held = allocate_in(allocator, MIB)
    allocator.reset_peak_memory()
    assert allocator.get_peak_memory() == 0
    small = allocate_in(allocator, 100)
    assert allocator.get_peak_memory() == held.capacity + small.capacity


@pytest.mark.core
def test_peak_with_several_threads_at_once():
    allocator = private()
    ledger = Ledger()
    sizes = [64, 4096, 64 * KIB, MIB]
    run_threads(
        *(lambda seed=seed: churn(allocator, ledger, sizes, seed, 0.4) for seed in range(3))
    )
    # `asking` counts what was asked for; the block may turn out one eighth longer.
    assert ledger.highest_low <= allocator.get_peak_memory() <= 1.125 * max(ledger.highs)
    allocator.reset_peak_memory()
    together = threading.Barrier(3)
    capacities = []

    def hold(n):
        block = allocate_in(allocator, n)
        capacities.append(block.capacity)
        together.wait(10)
        block.release()

    run_threads(*(lambda n=n: hold(n) for n in (3 * MIB, 5 * MIB, 700)))
    assert allocator.get_peak_memory() == sum(capacities)


# ---- 6: failures ----


@pytest.mark.core
@pytest.mark.parametrize(
    ("n", "error", "blocked_by"),
    [
        (5 * MIB, memlimits.MemoryLimitError, "limit"),
        (1 << 40, memlimits.MemoryLimitError, "length"),
        (2**63 - 1, memlimits.MemoryLimitError, "length"),
        (2**63, ValueError, None),
        (-1, ValueError, None),
        (1.0, TypeError, None),
        (True, TypeError, None),
        ("1", TypeError, None),
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


@pytest.mark.core
def test_a_block_longer_than_a_buffer_may_be_leaves_the_cache_alone():
    allocator = private(max_buffer_length=16 * KIB)
    page = allocate_in(allocator, 4000)
    page.release()
    cached = allocator.get_cache_memory()
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 17 * KIB)
    assert caught.value.blocked_by == "length"
    assert allocator.get_cache_memory() == cached
    # A slab would be longer than the device allows; a smaller resource is not.
    assert allocate_in(allocator, 15 * KIB).capacity >= 15 * KIB


def test_a_device_refusal_empties_the_cache_and_tries_again():
    script = """
        import resource
        import memlimits
        from memlimits import memory

        MIB = 1 << 20
        def vm_size():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * 4096

        live = memlimits.allocate(MIB)
        idle = [memlimits.allocate(24 * MIB) for _ in range(2)]
        resource.setrlimit(resource.RLIMIT_AS, (vm_size() + 16 * MIB,) * 2)
        while idle:
            idle.pop().release()
        assert memory.counters()["cache"] == 48 * MIB
        big = memlimits.allocate(56 * MIB)           # only in place of the cache
        assert memory.counters()["cache"] == 0 and big.capacity == 56 * MIB
        big.release()
        before = memory.counters()
        vm = vm_size()
        try:
            memlimits.allocate(200 * MIB)
        except memlimits.MemoryLimitError as error:
            assert error.blocked_by == "device", error.blocked_by
        else:
            raise AssertionError("not refused")
        after = memory.counters()
        expected = {**before, "cache": 0, "refusals": 1, "resources": before["resources"] - 1,
                    "footprint": before["footprint"] - 56 * MIB}
        assert after == expected, (after, expected)
        assert vm_size() <= vm - 56 * MIB + MIB
        assert memlimits.allocate(8 * MIB).capacity == 8 * MIB
        live.release()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


# ---- the guideline policy ----


@pytest.mark.core
def test_a_guideline_is_overrun_and_every_overrun_counted():
    allocator = private()
    allocator.set_memory_limit(10 * MIB)
    idle = allocate_in(allocator, 4 * MIB)
    where = place(idle)
    idle.release()
    blocks = [allocate_in(allocator, n * MIB) for n in (9, 5, 7)]
    assert allocator.counters()["overruns"] == 2
    assert mapped_bytes([place(block) for block in blocks]) == 21 * MIB
    # The idle block went first; a new one may have its place.
    assert allocator.get_cache_memory() == 0
    over_it = [block for block in blocks if block.ptr <= where[0] < block.ptr + block.capacity]
    assert over_it or not mapped([where])
    # What comes back past the limit is not kept.
    places = [place(block) for block in blocks]
    blocks.pop().release()
    assert mapped(places) == places[:2]


@pytest.mark.core
def test_a_limit_of_10_bytes_can_be_set_and_taken_back():
    allocator = private()
    previous = allocator.set_memory_limit(10)
    assert allocate_in(allocator, 100).capacity >= 100
    assert allocator.set_memory_limit(previous) == 10
    assert allocator.get_memory_limit() == previous


# ---- blocks ----


@pytest.mark.core
def test_capacity_and_alignment_of_every_size():
    allocator = private()
    sizes = [*range(1, 2100, 7), *range(2100, 80_000, 511)]
    sizes += [n + d for n in (512, 4096, 32768, 1 << 16, 1 << 20) for d in (-1, 0, 1)]
    for n in sizes:
        block = allocate_in(allocator, n)
        assert n <= block.capacity <= 1.125 * n + 64
        assert block.ptr % (PAGE if n >= 32 * KIB else 64) == 0
        assert len(memoryview(block)) == block.nbytes == n
        if n > 32 * KIB:
            allocator.clear_cache()


@pytest.mark.core
def test_live_blocks_do_not_overlap():
    allocator = private()
    rng = random.Random(7)
    blocks = [allocate_in(allocator, int(2 ** rng.uniform(0, 17))) for _ in range(1500)]
    rng.shuffle(blocks)
    del blocks[::2]
    blocks += [allocate_in(allocator, int(2 ** rng.uniform(0, 17))) for _ in range(1500)]
    places = sorted(place(block) for block in blocks)
    for (start, length), (following, _) in pairwise(places):
        assert start + length <= following
    assert mapped(places) == places


@pytest.mark.core
def test_where_a_slab_does_not_fit_a_page_does():
    allocator = strict(3 * PAGE)
    blocks = [allocate_in(allocator, 2000) for _ in range(3)]
    blocks += [allocate_in(allocator, 2000) for _ in range(3)]
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 2000)
    assert caught.value.blocked_by == "limit"
    assert len({block.ptr // PAGE for block in blocks}) == 3


@pytest.mark.core
def test_zeroed_blocks_are_zero_whatever_was_there():
    allocator = private()
    for n in (10, 5000, 40 * KIB, MIB, 5 * MIB):
        for _ in range(3):
            block = allocate_in(allocator, n, zeroed=True)
            assert bytes(block) == bytes(n)
            memoryview(block)[:] = b"\xff" * n
            block.release()
    # A block of another class in a slab that was used before.
    for n in (64, 200, 3000):
        held = [allocate_in(allocator, n, zeroed=True) for _ in range(100)]
        assert not any(any(bytes(block)) for block in held)
        for block in held:
            memoryview(block)[:] = b"\xff" * n


@pytest.mark.core
def test_two_threads_never_see_each_others_bytes():
    """Each block carries a stamp of its own at both ends for as long as it is held."""
    allocator = strict(4 * MIB)
    operations = []
    passed_on = []  # freed by the thread that did not allocate them

    def work(seed):
        rng = random.Random(seed)
        held, count, stamp = [], 0, seed << 48
        end = time.monotonic() + 1.5
        while count % 256 or time.monotonic() < end:
            count += 1
            at = rng.randrange(128)
            if at < len(held):
                block, mark = held[at]
                held[at] = held[-1]
                held.pop()
                n = block.nbytes
                assert struct.unpack_from("<Q", block, 0)[0] == mark
                assert struct.unpack_from("<Q", block, n - 8)[0] == mark
                if at == 0:
                    passed_on.append(block)
                    if len(passed_on) > 8:
                        passed_on.pop(0)
                continue
            n = 8 << rng.randrange(13)
            try:
                block = allocate_in(allocator, n)
            except memlimits.MemoryLimitError:
                continue
            stamp += 1
            struct.pack_into("<Q", block, 0, stamp)
            struct.pack_into("<Q", block, n - 8, stamp)
            held.append((block, stamp))
        operations.append(count)

    run_threads(lambda: work(1), lambda: work(2))
    passed_on.clear()
    assert sum(operations) > 10_000
    counters = allocator.counters()
    assert counters["active"] == counters["slack"] == counters["pending"] == 0
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == allocator.counters()["resources"] == 0
