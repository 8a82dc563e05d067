"""Idle memory given back: asked for, and after a time."""

import threading
import time

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings import system_info
from memlimits._bindings.buffer import allocate_in
from support.blocks import with_room
from support.idle import idle
from support.kernel import unmapped
from support.metal import stand_in
from support.process import run
from support.units import KIB, MIB

pytestmark = pytest.mark.inside


@pytest.mark.core
def test_trim_returns_the_oldest_first_down_to_the_target(calm):
    places = idle(calm, 8, 4, 2)
    assert system_info.trim(calm, 14 * MIB) == 0
    assert system_info.trim(calm, 13 * MIB) == 8 * MIB
    assert calm.get_cache_memory() == 6 * MIB
    if not stand_in():
        assert [unmapped(where) for where in places] == [True, False, False]
    assert system_info.trim(calm, 0) == 6 * MIB
    counters = calm.counters()
    assert (counters["trims"], counters["trimmed"]) == (2, 14 * MIB)
    assert (counters["footprint"], counters["decays"], counters["pressure_trims"]) == (0, 0, 0)


@pytest.mark.core
def test_trim_touches_nothing_live(calm):
    live = allocate_in(calm, 3 * MIB)
    memoryview(live)[:] = b"y" * (3 * MIB)
    small = [allocate_in(calm, 1000) for _ in range(100)]
    del small[1:]
    idle(calm, 8)
    active, cached = calm.get_active_memory(), calm.get_cache_memory()
    assert system_info.trim(calm, 0) == cached >= 8 * MIB
    assert calm.get_active_memory() == active >= 3 * MIB + 1000
    assert bytes(live) == b"y" * (3 * MIB)
    assert small


@pytest.mark.core
def test_trim_without_a_target_leaves_the_cache_alone(calm):
    idle(calm, 8)
    assert system_info.trim(calm, None) == 0
    assert calm.get_cache_memory() == 8 * MIB


def test_trim_returns_everything_unless_told():
    memlimits.allocate(8 * MIB).release()
    assert memlimits.trim() >= 8 * MIB
    assert memlimits.get_cache_memory() == 0


@pytest.mark.core
def test_trim_from_many_threads(calm):
    def work():
        for n in range(200):
            block = allocate_in(calm, (n % 7 + 1) * 40 * KIB)
            block.release()
            got.append(system_info.trim(calm, n % 3 * 100 * KIB))

    got = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    system_info.trim(calm, 0)
    counters = calm.counters()
    assert (counters["footprint"], counters["active"]) == (0, 0)
    assert counters["trimmed"] >= sum(got)


@pytest.mark.parametrize("target", [-1, 2**63, 1.5, "1", True])
def test_bad_targets(calm, target):
    idle(calm, 2)
    with pytest.raises((TypeError, ValueError), match="target"):
        system_info.trim(calm, target)
    assert calm.get_cache_memory() == 2 * MIB


# ---- idle decay ----


@pytest.mark.core
def test_what_was_idle_for_the_time_is_returned(calm):
    idle(calm, 8)
    calm.set_idle_timeout(0.05, "return")
    assert calm.get_idle_action() == "return"
    time.sleep(0.06)
    idle(calm, 4)
    block = allocate_in(calm, 3 * MIB)
    assert calm.get_cache_memory() == 4 * MIB
    counters = calm.counters()
    assert (counters["decays"], counters["decayed"]) == (1, 8 * MIB)
    time.sleep(0.06)
    assert system_info.trim(calm, None) == 4 * MIB
    assert calm.counters()["decays"] == 2
    assert calm.counters()["trims"] == 0
    block.release()


@pytest.mark.core
def test_what_is_purged_counts_as_decay_and_may_be_returned_later(calm):
    idle(calm, 8)
    assert calm.set_idle_timeout(0) is None
    counters = calm.counters()
    assert (counters["decays"], counters["decayed"], counters["cache"]) == (1, 8 * MIB, 8 * MIB)
    assert calm.set_idle_timeout(0, action="return") == 0
    counters = calm.counters()
    assert (counters["decays"], counters["decayed"], counters["cache"]) == (2, 16 * MIB, 0)


def test_what_a_budget_was_charged_for_has_its_time_too():
    """Its slabs are in a heap that is no thread's."""
    memlimits.clear_cache()
    with memlimits.budget("decay"):
        memlimits.allocate(1000).release()
    try:
        memlimits.set_idle_timeout(1000, "return")
        assert memlimits.trim(None) == 0
        cached = memlimits.get_cache_memory()
        assert cached > 0
        memlimits.set_idle_timeout(0.02, "return")
        time.sleep(0.03)
        assert memlimits.trim(None) == cached
    finally:
        memlimits.set_idle_timeout(None)


@pytest.mark.host
def test_a_block_that_grows_returns_what_was_idle_for_the_time(blocks):
    address = blocks.make(3 * MIB)
    memlimits.allocate(32 * MIB).release()  # too long to grow into
    memlimits.set_idle_timeout(0.02, "return")
    try:
        time.sleep(0.03)
        before = memory.counters()
        assert blocks.resize(address, 4 * MIB)
        after = memory.counters()
        assert after["misses"] == before["misses"]
        assert after["decayed"] - before["decayed"] >= 32 * MIB
    finally:
        memlimits.set_idle_timeout(None)


@pytest.mark.core
def test_a_wired_resource_is_returned_when_its_time_is_up():
    run("""
        memlimits.set_wired_limit(64 << 10)
        block = memlimits.allocate(64 << 10)
        block.release()
        memlimits.set_idle_timeout(0, "return")
        assert memlimits.get_wired_memory() == memlimits.get_cache_memory() == 0
        consistent()
    """)


@pytest.mark.core
def test_what_may_be_idle_for_longer_than_the_machine_runs_stays(calm):
    idle(calm, 8)
    calm.set_idle_timeout(10**9, "return")
    assert system_info.trim(calm, None) == 0
    assert calm.get_cache_memory() == 8 * MIB


@pytest.mark.core
def test_trim_returns_what_was_idle_for_the_time_beside_what_is_above_the_target(calm):
    young = allocate_in(calm, 4 * MIB)
    idle(calm, 8)
    calm.set_idle_timeout(0.02, "return")
    time.sleep(0.03)
    young.release()
    assert system_info.trim(calm, 0) == 12 * MIB
    counters = calm.counters()
    assert (counters["decays"], counters["decayed"]) == (1, 8 * MIB)
    assert (counters["trims"], counters["trimmed"]) == (1, 4 * MIB)


@pytest.mark.core
def test_what_went_back_is_not_in_the_way_of_the_limits(calm):
    idle(calm, 8)
    calm.set_idle_timeout(0, "return")
    assert calm.counters()["decays"] == 1
    calm.set_idle_timeout(None)
    idle(calm, 16)
    calm.set_memory_limit(20 * MIB)
    assert calm.get_cache_memory() == 16 * MIB


@pytest.mark.core
def test_a_step_returns_no_more_than_64_mib_and_trim_all(calm):
    """So that no allocation waits long for it."""
    with_room(calm)
    idle(calm, 40, 41, 42, 43)
    calm.set_idle_timeout(0.02, "return")
    time.sleep(0.03)
    block = allocate_in(calm, 3 * MIB)
    counters = calm.counters()
    assert (counters["decays"], counters["decayed"]) == (2, 81 * MIB)
    assert system_info.trim(calm, None) == (42 + 43) * MIB
    assert calm.counters()["decays"] == 4
    block.release()


@pytest.mark.parametrize("action", ["keep", "", 1, None])
def test_bad_actions(calm, action):
    calm.set_idle_timeout(7, "return")
    with pytest.raises((TypeError, ValueError), match="'purge' or 'return'"):
        calm.set_idle_timeout(1, action)
    assert (calm.get_idle_timeout(), calm.get_idle_action()) == (7, "return")
