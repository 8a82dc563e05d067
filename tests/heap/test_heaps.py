"""Each thread's own idle memory, within limits that all share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import cycle, place, private, strict
from support.kernel import bytes_wholly_mapped, wholly_mapped
from support.process import run
from support.threads import in_thread, run_threads
from support.units import KIB, MIB, PAGE, peak_bound

pytestmark = pytest.mark.inside


@pytest.fixture
def threads():
    """Two threads that stay, to run functions on."""
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        yield (
            lambda f, *a: one.submit(f, *a).result(30),
            lambda f, *a: other.submit(f, *a).result(30),
        )


@pytest.mark.core
@pytest.mark.parametrize("n", [100, 5000, 100 * KIB, 3 * MIB])
def test_a_block_freed_elsewhere_serves_the_thread_it_came_from(threads, n):
    one, other = threads
    allocator = private()
    one(cycle, allocator, n)
    block = one(allocate_in, allocator, n)
    where = place(block)
    other(block.release)
    assert one(cycle, allocator, n) == where


@pytest.mark.core
def test_threads_that_come_and_go_use_the_same_memory():
    allocator = private()
    for _ in range(50):
        in_thread(lambda: [cycle(allocator, n) for n in (100, 5000, MIB)])
    # A few at once: a thread that was joined may take a while longer to end.
    assert allocator.counters()["footprint"] <= 15 * MIB


@pytest.mark.core
@pytest.mark.parametrize("n", [40 * MIB, 30 * MIB])
def test_memory_idle_in_one_thread_is_there_for_another(threads, n):
    """As it is where it fits, returned first where it does not: never a refusal."""
    one, other = threads
    allocator = strict(50 * MIB)
    where = one(cycle, allocator, 40 * MIB)
    block = other(allocate_in, allocator, n)
    assert (place(block) == where) == (n == 40 * MIB)
    assert allocator.counters()["footprint"] <= 50 * MIB


@pytest.mark.core
def test_small_blocks_idle_in_one_thread_are_there_for_another(threads):
    one, other = threads
    allocator = strict(PAGE)
    keep, idle = one(lambda: [allocate_in(allocator, 1000) for _ in range(2)])
    where = place(idle)
    one(idle.release)
    block = other(allocate_in, allocator, 1000)
    assert place(block) == where
    assert keep.nbytes == 1000


@pytest.mark.core
def test_threads_that_hold_little_take_little_of_a_small_limit():
    """A thread's first slab of a class has no more than it needs, in whole pages."""
    count, sizes = 100, (100, 3000, 16 * KIB)
    allocator = strict(count * (2 * PAGE + 16 * KIB) + 512 * KIB)
    held, done = [], threading.Event()

    def hold():
        held.extend([allocate_in(allocator, n) for n in sizes])
        done.wait(60)

    workers = [threading.Thread(target=hold) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(6000):
            if len(held) == count * len(sizes) or not all(map(threading.Thread.is_alive, workers)):
                break
            done.wait(0.01)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    assert len(held) == count * len(sizes)
    assert allocator.counters()["refusals"] == 0
    assert len({block.ptr for block in held}) == len(held)
    first = {block.ptr // PAGE for block in held}
    pages = first | {(block.ptr + block.nbytes - 1) // PAGE for block in held}
    assert len(pages) * PAGE <= allocator.counters()["footprint"] <= allocator.get_memory_limit()


@pytest.mark.core
def test_near_a_small_limit_slabs_double_and_the_shorter_ones_are_used_again():
    allocator = strict(256 * KIB)
    held, footprints = [], []
    for _ in range(48):
        held.append(allocate_in(allocator, 1024))
        footprints.append(allocator.counters()["footprint"])
    used = [(i + 1) * KIB for i in range(48)]
    assert all(
        n < taken + PAGE <= 2 * n + 2 * PAGE for n, taken in zip(used, footprints, strict=True)
    )
    misses, where = allocator.counters()["misses"], {block.ptr for block in held}
    while held:
        held.pop().release()
    held = [allocate_in(allocator, 1024) for _ in range(48)]
    assert allocator.counters()["misses"] == misses
    assert {block.ptr for block in held} <= {p + KIB * i for p in where for i in range(-16, 17)}


@pytest.mark.core
def test_a_slab_is_whole_where_the_limit_is_far():
    allocator = strict(64 * MIB)
    block = allocate_in(allocator, 1000)
    assert allocator.counters()["footprint"] == 64 * KIB
    assert block.capacity == 1024


@pytest.mark.core
def test_the_cache_limit_is_for_all_threads_together(threads):
    allocator = private()
    allocator.set_cache_limit(10 * MIB)
    held = [[on(allocate_in, allocator, 3 * MIB) for _ in range(4)] for on in threads]
    places = [place(block) for blocks in held for block in blocks]
    for pair in zip(*held, strict=True):
        for on, block in zip(threads, pair, strict=True):
            on(block.release)
            idle = sum(place[1] for place in places) - allocator.get_active_memory()
            assert allocator.get_cache_memory() <= 10 * MIB
            assert bytes_wholly_mapped(places) <= sum(n for _, n in places) - max(
                0, idle - 10 * MIB
            )
    assert allocator.get_cache_memory() == 9 * MIB
    assert bytes_wholly_mapped(places) == 9 * MIB


@pytest.mark.core
def test_the_oldest_go_first_whichever_thread_they_are_idle_in(threads):
    one, other = threads
    allocator = private()
    blocks = [
        on(allocate_in, allocator, n * MIB)
        for on, n in zip((one, other, one), (3, 5, 7), strict=True)
    ]
    places = [place(block) for block in blocks]
    for on, block in zip((one, other, one), blocks, strict=True):
        on(block.release)
        allocator.reset_peak_memory()  # a slow step: ages are told apart from one to the next
    allocator.set_cache_limit(12 * MIB)
    assert wholly_mapped(places) == places[1:]
    allocator.set_cache_limit(8 * MIB)
    assert wholly_mapped(places) == places[2:]


@pytest.mark.core
def test_clear_cache_clears_every_threads(threads):
    allocator = private()
    places = [on(cycle, allocator, n) for on in threads for n in (100, 50 * KIB, MIB)]
    allocator.clear_cache()
    assert allocator.get_cache_memory() == allocator.counters()["footprint"] == 0
    assert wholly_mapped([where for where in places if where[1] >= 50 * KIB]) == []


@pytest.mark.core
def test_the_peak_is_that_of_all_threads_together(threads):
    one, other = threads
    allocator = private()
    first = one(allocate_in, allocator, 10 * MIB)
    one(first.release)
    second = other(allocate_in, allocator, 10 * MIB)
    assert 10 * MIB <= allocator.get_peak_memory() <= peak_bound(10 * MIB, threads=2)
    third = one(allocate_in, allocator, MIB)
    assert 11 * MIB <= allocator.get_peak_memory() <= peak_bound(11 * MIB, threads=2)
    peak = allocator.get_peak_memory()
    other(second.release)
    second = other(allocate_in, allocator, 10 * MIB - 4 * KIB)
    assert allocator.get_peak_memory() == peak
    allocator.reset_peak_memory()
    one(third.release)
    assert allocator.get_peak_memory() == 0
    third = one(allocate_in, allocator, MIB)
    assert allocator.get_peak_memory() == second.capacity + third.capacity


@pytest.mark.core
def test_allocators_that_come_and_go_under_threads_that_stay(threads):
    """A thread keeps a heap for each allocator; one that is gone leaves nothing behind."""
    for _ in range(200):
        allocator = Allocator(Device())
        blocks = [on(allocate_in, allocator, n) for on in threads for n in (100, 100 * KIB)]
        assert len({place(block) for block in blocks}) == 4
        for block in blocks:
            memoryview(block)[:8] = b"12345678"
        del allocator, blocks


@pytest.mark.host
def test_a_child_has_the_memory_of_its_parents_threads():
    run("""
        done, go = threading.Event(), threading.Event()
        def work():
            memlimits.allocate(32 * MIB).release()
            done.set()
            go.wait()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        done.wait()
        child = os.fork()
        if child == 0:
            memlimits.set_memory_policy("strict")
            memlimits.set_memory_limit(40 * MIB)
            block = memlimits.allocate(32 * MIB)
            other = threading.Thread(target=lambda: memlimits.allocate(1000).release())
            other.start()
            other.join()
            assert memory.counters()["footprint"] <= 40 * MIB
            del block
            memlimits.clear_cache()
            consistent()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        go.set()
        thread.join()
    """)


# ---- threads without the GIL ----

SMALL, PAGES, ALL = (0, 8), (8, 14), (0, 14)


@pytest.mark.parametrize("held", [16, 500])
@pytest.mark.parametrize("sizes", [SMALL, PAGES, ALL])
def test_nothing_is_spoiled_and_the_peak_is_close(storm, sizes, held):
    before = memlimits.get_active_memory()
    memlimits.reset_peak_memory()
    seen = storm(3, 60_000 if sizes != PAGES else 6_000, held, *sizes, 2**62)
    assert (seen["refused"], seen["spoiled"]) == (0, 0)
    # The oracle looks a little before and after: the peak lies between, but for what few blocks
    # have more than was asked for.
    peak = memlimits.get_peak_memory()
    most = before + seen["highest_high"] + seen["longer"]
    assert before + seen["highest_low"] <= peak <= peak_bound(most, threads=3)
    assert memlimits.get_active_memory() == before


@pytest.mark.parametrize(("sizes", "limit"), [(SMALL, MIB // 2), (ALL, 20 * MIB)])
def test_on_64_threads_the_peak_is_close_and_a_strict_limit_holds(storm, sizes, limit):
    before = memlimits.get_active_memory()
    memlimits.reset_peak_memory()
    seen = storm(64, 2000, 16, *sizes, 2**62)
    assert (seen["refused"], seen["spoiled"]) == (0, 0)
    most = before + seen["highest_high"] + seen["longer"]
    assert before + seen["highest_low"] <= memlimits.get_peak_memory() <= peak_bound(most, 64)
    memlimits.clear_cache()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(limit + memory.counters()["footprint"])
    seen = storm(64, 2000, 16, *sizes, limit)
    assert (seen["over"], seen["spoiled"]) == (0, 0)
    assert seen["refused"] > 0


@pytest.fixture(params=[None, 1000], ids=["", "timed"])
def idle_timeout(request):
    """With one, what becomes idle notes the time."""
    memlimits.set_idle_timeout(request.param)
    yield
    memlimits.set_idle_timeout(None)


@pytest.mark.parametrize("sizes", [SMALL, PAGES, ALL])
def test_a_strict_limit_holds_and_is_reached(storm, sizes, idle_timeout):
    limit = {SMALL: MIB, PAGES: 40 * MIB, ALL: 20 * MIB}[sizes]
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(limit + memory.counters()["footprint"])
    seen = storm(3, 60_000 if sizes == SMALL else 6_000, 100, *sizes, limit)
    assert (seen["over"], seen["spoiled"]) == (0, 0)
    assert seen["refused"] > 0
    assert seen["highest_low"] > limit // 2


def test_what_fits_together_is_never_refused(storm):
    """Whole resources only: no slack stands in the way, whoever holds what idle."""
    most = 3 * 8 * 2 * MIB
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(most + 3 * 2 * MIB + memory.counters()["footprint"])
    seen = storm(3, 6_000, 8, *PAGES, most + 3 * 2 * MIB)
    assert (seen["refused"], seen["over"], seen["spoiled"]) == (0, 0, 0)


def test_threads_start_and_end_while_others_work():
    allocator = private()
    stop = threading.Event()

    def steady():
        while not stop.is_set():
            cycle(allocator, 1000)
            cycle(allocator, 200 * KIB)

    def coming_and_going():
        for _ in range(200):
            in_thread(lambda: [cycle(allocator, n) for n in (100, 64 * KIB)])
        stop.set()

    run_threads(steady, coming_and_going)
    assert allocator.get_active_memory() == 0
