"""What threads leave that have ended: it is for all, and costs nobody."""

import queue
import threading
import time
from pathlib import Path

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.buffer import allocate_in
from support.blocks import cycle, place, private, strict
from support.functions import free, malloc, realloc
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.host]

TASKS = Path("/proc/self/task")


def ended(function):
    """What the function returns on a thread of its own, once that is gone: later than joined."""
    results, numbers = [], []

    def work():
        numbers.append(threading.get_native_id())
        results.append(function())

    run_threads(work)
    while (TASKS / str(numbers[0])).exists():
        time.sleep(0.001)
    return results[0]


@pytest.mark.parametrize("n", [100, 5000, 100 * KIB, 3 * MIB])
def test_what_it_had_idle_serves_others(n):
    allocator = private()
    where = ended(lambda: cycle(allocator, n))
    # A growth that is far from every limit looks at no other heap.
    assert place(allocate_in(allocator, n)) == where
    assert allocator.counters()["misses"] == 1


@pytest.mark.parametrize("n", [100, 5000])
def test_a_slab_that_it_had_a_part_of_serves_others_until_it_is_full(n):
    allocator = private()
    held = ended(lambda: [allocate_in(allocator, n) for _ in range(3)])
    capacity, count = held[0].capacity, 64 * KIB // held[0].capacity
    held += [allocate_in(allocator, n) for _ in range(count - 3)]
    assert allocator.counters()["misses"] == 1
    assert {block.ptr for block in held} == {held[0].ptr + i * capacity for i in range(count)}
    held.append(allocate_in(allocator, n))
    assert allocator.counters()["misses"] == 2


@pytest.mark.parametrize("n", [100, 5000, 100 * KIB, 3 * MIB])
def test_blocks_that_come_back_after_its_end_serve_others(n):
    allocator = private()
    # A whole slab of the short ones.
    held = ended(lambda: [allocate_in(allocator, n) for _ in range(max(64 * KIB // n, 1))])
    misses = allocator.counters()["misses"]
    places = {place(block) for block in held}
    for block in held:
        block.release()
    assert allocator.get_active_memory() == 0
    held = [allocate_in(allocator, n) for _ in places]
    assert {place(block) for block in held} <= places
    assert allocator.counters()["misses"] == misses


def test_what_is_behind_a_block_of_its_is_still_there_to_grow_into():
    before = memory.counters()

    def grown():
        free(malloc(4 * MIB))
        block = malloc(16 * KIB)
        return realloc(block, 600 * KIB)

    block = ended(grown)
    misses = memory.counters()["misses"]
    again = realloc(block, 2 * MIB)
    free(again)
    assert again == block
    assert memory.counters()["misses"] == misses
    assert memlimits.get_active_memory() == before["active"]


def test_a_timeout_and_a_clear_find_it():
    allocator = private()
    ended(lambda: cycle(allocator, MIB))
    allocator.set_idle_timeout(0)
    cycle(allocator, 64 * KIB)  # a slow step
    assert allocator.statistics(False)["purgeable"] == MIB
    ended(lambda: [cycle(allocator, n) for n in (MIB, 2 * MIB)])
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0


def test_the_cache_limit_is_for_what_they_left_too():
    allocator = private()
    allocator.set_cache_limit(10 * MIB)
    for _ in range(4):
        ended(lambda: [block.release() for block in [allocate_in(allocator, 4 * MIB)]])
        ended(lambda: [allocate_in(allocator, n).release() for n in (3 * MIB, MIB)])
        assert allocator.get_cache_memory() <= 10 * MIB
    assert allocator.get_active_memory() == 0


def test_a_thousand_of_them_leave_no_heaps():
    """A stop, and a getter, looks at the heaps of threads that live, however many there were."""

    def others():
        """Threads that are not Python's, as MLX has, or are not told to be any more."""
        return len(list(TASKS.iterdir())) - threading.active_count()

    allocator = private()
    before = others()
    for _ in range(50):
        run_threads(*[lambda: cycle(allocator, 64)] * 20)
    while others() > before + 8:
        time.sleep(0.001)
    assert allocator.statistics(False)["heaps"] <= 20


def test_once_they_have_ended_slabs_are_whole_again():
    """While 64 threads run, each may want a slab of many lengths: short ones then."""
    allocator = strict(64 * MIB)
    heaps = allocator.statistics(False)["heaps"]
    together = threading.Barrier(64)

    def work():
        block = allocate_in(allocator, 64)
        together.wait()
        block.release()

    run_threads(*[work] * 64)
    while allocator.statistics(False)["heaps"] > heaps:
        time.sleep(0.001)
    held = allocate_in(allocator, 9000)  # sees that they have ended
    before = allocator.counters()["footprint"]
    block = allocate_in(allocator, 20_000)
    assert allocator.counters()["footprint"] == before + 256 * KIB
    block.release()
    held.release()


def test_blocks_come_back_while_the_threads_that_took_them_end():
    """Each takes blocks, hands them over and ends, while others free them."""
    before = memlimits.get_active_memory()
    handed = queue.SimpleQueue()
    rounds, takers, sizes = 300, 3, [64, 1000, 5000, 30 * KIB, 100 * KIB]

    def take():
        for _ in range(rounds):
            blocks = [malloc(n) for n in sizes * 4]
            worker = threading.Thread(target=lambda: handed.put([malloc(n) for n in sizes * 4]))
            worker.start()
            worker.join()
            for block in blocks:
                free(block)
        handed.put(None)

    def give():
        left = takers
        while left:
            blocks = handed.get()
            left -= blocks is None
            for block in blocks or ():
                free(block)

    run_threads(*[take] * takers, give)
    assert memlimits.get_active_memory() == before
    counters = memory.counters()
    parts = counters["active"] + counters["cache"] + counters["slack"] + counters["pending"]
    assert parts == counters["footprint"]
    memlimits.clear_cache()
    assert memory.counters()["cache"] == 0
    assert memory.counters()["footprint"] % PAGE == 0


def test_an_allocator_ends_while_its_threads_do():
    """Whoever joined them may go on before they are gone."""
    for _ in range(150):
        allocator = private()
        sizes = [n * 64 * KIB for n in range(1, 12)]
        done = threading.Semaphore(0)

        def work(allocator=allocator, sizes=sizes, done=done):
            for block in [allocate_in(allocator, n) for n in sizes]:
                block.release()
            del allocator
            done.release()

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for _ in workers:
            done.acquire()
        del allocator, work
    for worker in workers:
        worker.join()
