"""The strict policy: the footprint never grows past the memory limit."""

import random
import time
from pathlib import Path

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import made_strict, place, private, strict
from support.kernel import bytes_wholly_mapped, mapped_bytes, wholly_mapped
from support.process import run
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

pytestmark = pytest.mark.inside
TESTS = Path(__file__).parents[1]


@pytest.fixture
def allocator():
    return Allocator()


@pytest.mark.core
@pytest.mark.parametrize("pages", [9, 16, 256, 5000])
def test_strict_refuses_from_one_byte_below_the_pages_asked_for(allocator, pages):
    """Blocks above 32 KiB are whole pages."""
    size = pages * PAGE
    made_strict(allocator, size - 1)
    for asked in (size, size - PAGE + 1):
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, asked)
    assert allocate_in(allocator, size - PAGE).capacity == size - PAGE
    allocator.set_memory_limit(size)
    assert allocate_in(allocator, size).capacity == size
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, size + 1)


@pytest.mark.core
def test_strict_cuts_a_page_where_a_slab_does_not_fit(allocator):
    made_strict(allocator, PAGE - 1)
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


@pytest.mark.core
def test_strict_serves_small_blocks_up_to_the_last_page(allocator):
    made_strict(allocator, 64 * KIB + 3 * PAGE)  # one slab, and three single pages
    expected = 64 + 3 * (PAGE // 1024)
    blocks = [allocate_in(allocator, 1000) for _ in range(expected)]  # 1024 each
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 1)
    assert len({block.ptr for block in blocks}) == expected


@pytest.mark.core
def test_strict_returns_idle_blocks_for_a_new_one_just_enough(allocator):
    made_strict(allocator, 64 * MIB)
    held = [allocate_in(allocator, 16 * MIB) for _ in range(4)]
    ranges = [(buffer.ptr, buffer.capacity) for buffer in held]
    for buffer in held[:3]:
        buffer.release()
    large = allocate_in(allocator, 24 * MIB)
    new = set(range(large.ptr, large.ptr + large.capacity, PAGE))
    remain = [mapped_bytes(*block) == 16 * MIB and block[0] not in new for block in ranges]
    assert remain[2:] == [True, True]
    assert allocator.get_cache_memory() == 16 * MIB
    assert allocator.counters()["footprint"] == 24 * MIB + 32 * MIB


@pytest.mark.core
def test_strict_trims_nothing_for_what_it_refuses(allocator):
    made_strict(allocator, 64 * MIB)
    held, idle = allocate_in(allocator, 32 * MIB), allocate_in(allocator, 16 * MIB)
    block = (idle.ptr, idle.capacity)
    idle.release()
    with pytest.raises(memlimits.MemoryLimitError):
        allocate_in(allocator, 33 * MIB)
    assert mapped_bytes(*block) == 16 * MIB
    assert allocate_in(allocator, 16 * MIB).ptr == block[0]
    held.release()


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
def test_a_limit_below_what_is_active_lets_the_footprint_only_fall():
    allocator = strict(64 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(8)]
    places = [place(block) for block in blocks]
    allocator.set_memory_limit(3 * MIB)
    previous = bytes_wholly_mapped(places)
    assert previous == 8 * MIB
    while blocks:
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, 2 * MIB + PAGE)
        blocks.pop().release()
        held = bytes_wholly_mapped(places)
        assert held == max(len(blocks), 3) * MIB
        assert held <= previous
        previous = held
        if len(blocks) == 3:
            break


@pytest.mark.core
@pytest.mark.host
def test_on_the_host_nothing_but_the_limit_trims():
    allocator = private(memory_size=100 * MIB)
    maximum = allocator.device_info()["max_recommended_working_set_size"]
    allocator.set_wired_limit(PAGE)  # what is idle is not cut for growth
    idle = allocate_in(allocator, 10 * MIB)
    where = place(idle)
    held = [allocate_in(allocator, 40 * MIB), allocate_in(allocator, 10 * MIB)]
    idle.release()
    held.append(allocate_in(allocator, 30 * MIB))
    assert maximum < allocator.counters()["footprint"] == 90 * MIB
    assert wholly_mapped([where])


@pytest.mark.core
def test_where_a_slab_does_not_fit_a_page_does():
    allocator = strict(3 * PAGE)
    half = PAGE // 2 - 48
    blocks = [allocate_in(allocator, half) for _ in range(3)]
    blocks += [allocate_in(allocator, half) for _ in range(3)]
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, half)
    assert caught.value.blocked_by == "limit"
    assert len({block.ptr // PAGE for block in blocks}) == 3


def test_strict_footprint_stays_below_the_limit_as_another_process_sees_it():
    """In a process of its own: what other tests left to malloc is touched again at any time."""
    run(f"""
        sys.path.append({str(TESTS)!r})
        from support.blocks import strict
        from support.kernel import resident
        from support.ledger import Ledger, churn
        from support.process import watched
        from support.threads import run_threads
        from support.units import MIB

        limit = 64 * MIB
        allocator = strict(limit)
        ledger = Ledger()
        filler = memoryview(b"x" * (12 * MIB))
        baseline = resident()
        refusals = []

        def check(error, span):
            assert error.blocked_by == "limit"
            refusals.append(span)

        def touch(block):
            memoryview(block)[:] = filler[: block.nbytes]
            assert ledger.low <= limit

        sizes = [MIB, 3 * MIB, 5 * MIB, 8 * MIB, 12 * MIB]

        def work(seed):
            churn(allocator, ledger, sizes, seed, 0.7, keep=8, on_refusal=check, each=touch)

        with watched("RssAnon") as watcher:
            run_threads(*(lambda seed=seed: work(seed) for seed in range(4)))
        assert refusals
        assert min(map(ledger.highest, refusals)) > limit  # none that was not due
        counters = allocator.counters()
        assert counters["hits"] + counters["misses"] == ledger.blocks
        assert counters["refusals"] == len(refusals)
        assert watcher.highest > baseline + limit // 2  # it saw the load
        # The interpreter's own, and threads' stacks.
        assert watcher.highest <= baseline + limit + 4 * MIB
    """)


@pytest.mark.core
def test_demands_that_fit_together_are_never_refused():
    """Trims and reservations of one thread must not make another think that memory is short."""
    threads = 4
    allocator = strict(threads * 8 * MIB)

    def work(seed):
        rng = random.Random(seed)
        end = time.monotonic() + 0.4
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
