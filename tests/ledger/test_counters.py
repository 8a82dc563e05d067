"""The counters, against sums that the test keeps and what the kernel has mapped."""

import random
import threading

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import private, strict
from support.kernel import writable
from support.ledger import Ledger, churn
from support.threads import run_threads
from support.units import KIB, MIB, peak_bound

pytestmark = pytest.mark.inside


@pytest.fixture
def allocator():
    return Allocator()


@pytest.mark.core
def test_every_snapshot_under_load_is_consistent():
    allocator = strict(8 * MIB)
    allocator.set_cache_limit(2 * MIB)
    ledger = Ledger()
    done = threading.Event()
    sizes = [64, 3072, 48 * KIB, 256 * KIB, MIB, 3 * MIB]
    snapshots = []

    def sample():
        while not done.is_set():
            mark = ledger.asking(0)
            counters = allocator.counters()
            assert counters["footprint"] == sum(
                counters[part] for part in ("active", "cache", "slack", "pending")
            )
            assert all(0 <= value < 1 << 63 for value in counters.values())
            snapshots.append((counters["active"], ledger.span_since(mark)))

    def work(seed):
        churn(allocator, ledger, sizes, seed, 0.4, on_refusal=lambda *_: None)

    def both():
        try:
            run_threads(lambda: work(1), lambda: work(2))
        finally:
            done.set()

    run_threads(sample, both)
    assert len(snapshots) > 100
    assert all(active <= ledger.highest(span) for active, span in snapshots)
    assert allocator.get_active_memory() == ledger.low == ledger.high == 0


@pytest.mark.core
@pytest.mark.host
def test_what_the_system_is_taking_back_is_not_active():
    allocator = private()
    allocator.set_cache_limit(0)
    length = 64 * MIB
    seen = []

    def look():
        while not seen:
            before = allocator.counters()["pending"]
            active = allocator.get_active_memory()
            if before == allocator.counters()["pending"] == length:
                seen.append(active)

    def work():
        while not seen:
            block = allocate_in(allocator, length)
            memoryview(block)[::4096] = bytes(length // 4096)
            block.release()

    run_threads(look, work)
    assert seen == [0]


@pytest.mark.core
def test_active_is_what_the_test_holds():
    allocator = private()
    blocks = [allocate_in(allocator, n) for n in (1, 64, 65, 5000, 32768, 32769, MIB + 1, 0)]
    assert allocator.get_active_memory() == sum(block.capacity for block in blocks)
    for block in blocks:
        block.release()
    assert allocator.get_active_memory() == 0


def test_footprint_is_what_the_process_has_mapped():
    """Also the slack: what a slab has beyond its live block."""

    def grows_by(n):
        allocator = private()
        allocate_in(allocator, n).release()  # the page map's nodes are there
        allocator.clear_cache()
        before = writable()
        block = allocate_in(allocator, n)
        after = writable()
        counters = allocator.counters()
        assert counters["slack"] == counters["footprint"] - block.capacity
        return after - before - counters["footprint"]

    # The interpreter may map something of its own meanwhile, but not each time.
    for n in (64, 1000, 20000, 40 * KIB, 5 * MIB):
        assert min(abs(grows_by(n)) for _ in range(5)) == 0


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
def test_peak_counts_a_block_that_came_from_the_cache(allocator):
    allocate_in(allocator, MIB).release()
    allocator.reset_peak_memory()
    held = allocate_in(allocator, MIB)
    assert allocator.get_peak_memory() == held.capacity == MIB


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
        *(lambda seed=seed: churn(allocator, ledger, sizes, seed, 0.3) for seed in range(3))
    )
    most = peak_bound(max(ledger.highs), threads=3)
    assert ledger.highest_low <= allocator.get_peak_memory() <= most
    allocator.reset_peak_memory()
    together = threading.Barrier(3)
    capacities = []

    def hold(n):
        block = allocate_in(allocator, n)
        capacities.append(block.capacity)
        together.wait(10)
        block.release()

    run_threads(*(lambda n=n: hold(n) for n in (3 * MIB, 5 * MIB, 700)))
    # Nobody has more than it took, since the reset.
    assert allocator.get_peak_memory() == sum(capacities)
