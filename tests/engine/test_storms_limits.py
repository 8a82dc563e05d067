"""Many threads at limits, budgets, reservations and counters."""

import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.buffer import allocate_in
from support import interposed
from support.blocks import made_strict, private
from support.storms import ROUNDS, Ledger, allowed, storm
from support.threads import run_threads
from support.units import MIB
from support.waiting import until_waiting, waiting

pytestmark = [pytest.mark.inside, pytest.mark.core]

THREADS = 4


def test_one_limits_object_is_in_force_once():
    """Of all threads that would enter it one does; the others are told."""
    before = memlimits.get_memory_limit()
    one = memlimits.limits(memory=MIB)
    inside = Ledger()

    def enter():
        with allowed(RuntimeError, "in force already"), one:
            inside.add(threading.get_ident())
            assert memlimits.get_memory_limit() == MIB
            assert inside.take() == threading.get_ident()

    storm(*[enter] * THREADS)
    assert inside.values == []
    assert memlimits.get_memory_limit() == before
    with one:
        assert memlimits.get_memory_limit() == MIB


def test_limits_closed_by_other_threads_than_opened_them():
    before = memlimits.get_memory_limit(), memory.get_memory_policy()
    opened = Ledger()
    numbers = itertools.count(1)

    def enter():
        scope = memlimits.limits(memory=next(numbers) * MIB, policy="strict")
        opened.add(scope.__enter__())

    def leave():
        scope = opened.take()
        if scope is not None:
            scope.__exit__(None, None, None)

    storm(enter, enter, leave, leave)
    run_threads(*[lambda: [scope.__exit__(None, None, None) for scope in opened.values]])
    assert (memlimits.get_memory_limit(), memory.get_memory_policy()) == before


def test_a_decorated_function_on_many_threads():
    before = memlimits.get_memory_limit()
    seen = Ledger()

    @memlimits.limits(memory=3 * MIB)
    def inside():
        seen.add(memlimits.get_memory_limit())

    storm(*[inside] * THREADS)
    assert set(seen.values) == {3 * MIB}
    assert len(seen.values) >= THREADS * ROUNDS
    assert memlimits.get_memory_limit() == before


SETTERS = {
    "memory": (memlimits.set_memory_limit, memlimits.get_memory_limit),
    "cache": (memlimits.set_cache_limit, memlimits.get_cache_limit),
    "idle": (memlimits.set_idle_timeout, memlimits.get_idle_timeout),
    "pressure": (
        lambda value: memlimits.set_pressure_trim(value, 50)[0],
        lambda: memlimits.get_pressure_trim()[0],
    ),
}


@pytest.mark.parametrize("name", SETTERS)
def test_each_setter_returns_what_the_one_before_set(name):
    """Together they return what was there first, and all that was set but the last."""
    set_one, get_one = SETTERS[name]
    numbers = itertools.count(1 << 30)
    values, returned = Ledger(), Ledger()
    restored = memlimits.get_idle_timeout(), memlimits.get_pressure_trim()
    first = 1 << 29 if name != "idle" else 200_000.0
    set_one(first)

    def change():
        value = next(numbers) if name != "idle" else next(numbers) % 100_000 / 8
        values.add(value)
        returned.add(set_one(value))

    storm(*[change] * THREADS, rounds=ROUNDS // 2, seconds=0)
    try:
        assert sorted([first, *values.values]) == sorted([*returned.values, get_one()])
    finally:
        memlimits.set_idle_timeout(restored[0])
        memlimits.set_pressure_trim(*restored[1])


def test_every_snapshot_adds_up():
    """While blocks come and go, limits change, and the cache is cleared."""
    active = interposed.active()

    def look():
        stats = memlimits.stats(reset_peak=True)
        parts = stats.active + stats.cache + stats.slack + stats.pending
        assert parts == stats.footprint
        assert 0 <= memlimits.get_active_memory() < 1 << 40

    def allocate():
        blocks = [memlimits.allocate(n) for n in (64, 5000, 100_000, MIB)]
        memlimits.empty(1000)
        del blocks

    def change():
        memlimits.set_memory_limit(1 << 34)
        memlimits.clear_cache()
        memlimits.trim(MIB)
        memlimits.set_cache_limit(2 * MIB)

    storm(look, allocate, allocate, change, rounds=ROUNDS // 4)
    assert interposed.active() == active


def test_one_budget_on_many_threads():
    """All who have it open are charged together, and nobody once all have left it."""
    gc.collect()

    def inside():
        with memlimits.budget("together", limit=MIB) as budget:
            block = memlimits.allocate(5000)
            assert budget.active >= block.capacity

    def look():
        for found in memory.budgets():
            if found["name"] == "together":
                assert 0 <= found["active"] <= THREADS * 8192

    storm(*[inside] * THREADS, look)
    (found,) = [found for found in memory.budgets() if found["name"] == "together"]
    assert (found["active"], found["limit"]) == (0, MIB)
    assert found["peak"] >= 5000
    block = memlimits.allocate(2 * MIB)  # nothing is open that could refuse it
    del block


def test_a_budget_refuses_whatever_came_and_went():
    """How many are open decides whether an allocation looks for any."""

    def come_and_go():
        with memlimits.budget("b"):
            pass

    storm(*[come_and_go] * THREADS)
    with (
        memlimits.budget("tight", 1000),
        pytest.raises(memlimits.MemoryLimitError, match="'tight'"),
    ):
        memlimits.allocate(MIB)


@pytest.mark.parametrize(
    "make",
    [lambda: memlimits.budget("one"), lambda: memlimits.reserve(5000)],
    ids=["budget", "reserve"],
)
def test_one_budget_or_reservation_is_open_once(make):
    one = make()
    inside = Ledger()

    def enter():
        with allowed(RuntimeError, "is open already"), one:
            inside.add(threading.get_ident())
            memlimits.allocate(100)
            assert inside.take() == threading.get_ident()

    def close():
        with pytest.raises(RuntimeError, match=r"not open|opened in another thread or task"):
            one.close()

    def look():
        if isinstance(one, memlimits.Budget):
            assert max(one.active, one.peak) <= THREADS * 128
        else:
            assert 0 <= one.remaining <= 5000

    storm(enter, enter, close, look)
    assert inside.values == []
    assert memlimits.stats().reserved == 0
    with one:
        pass


def test_reservations_are_kept_and_given_back():
    def hold():
        with memlimits.reserve(100_000) as room:
            block = memlimits.allocate(50_000)
            assert room.remaining <= 50_000
            assert memlimits.would_fit(1000)
            del block

    storm(*[hold] * THREADS, lambda: memlimits.would_fit(MIB), rounds=ROUNDS // 2)
    assert memlimits.stats().reserved == 0


def test_each_thread_has_its_own_last_refusal():
    allocator = made_strict(private(), MIB)
    before = allocator.counters()["refusals"]
    numbers = itertools.count(2 * MIB)

    def ask():
        n = next(numbers)
        with pytest.raises(memlimits.MemoryLimitError) as caught:
            allocate_in(allocator, n)
        assert (caught.value.requested, memlimits.last_refusal().requested) == (n, n)

    storm(*[ask] * THREADS, rounds=ROUNDS // 4, seconds=0)
    assert allocator.counters()["refusals"] - before == THREADS * (ROUNDS // 4)


@pytest.mark.host
def test_auto_trim_runs_once():
    started = Ledger()

    def start():
        with allowed(RuntimeError, "runs already"), memlimits.auto_trim(1000) as trim:
            started.add(trim)
            trim.close()

    storm(*[start] * 3, rounds=20)
    assert started.values
    assert all(trim.closed for trim in started.values)
    with memlimits.auto_trim(1000) as trim:
        assert not trim.closed


def in_pool(work):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(30)


@pytest.mark.parametrize("on", [lambda work: work(), in_pool], ids=["main", "thread"])
@pytest.mark.parametrize("drop", [list.clear, lambda box: box.pop().release()])
def test_who_waits_gets_what_others_let_go_of(on, drop):
    """Also where Python leaves it to the thread that made an object to free it."""
    allocator = waiting(MIB)

    def work():
        box = [allocate_in(allocator, MIB)]

        def elsewhere():
            until_waiting(allocator, 1)
            drop(box)

        other = threading.Thread(target=elsewhere)
        other.start()
        allocate_in(allocator, MIB // 2)
        other.join()

    on(work)
    assert allocator.counters()["active"] == 0
