"""Every lock under ThreadSanitizer: threads in C that allocate and free, while others set limits.

The environment `tsan` runs it; a report ends the process. Without the sanitizer it says less, but
the threads' own books are checked all the same. `MEMLIMITS_ROUNDS=10` has each storm last ten times
as long.
"""

import os
import threading
import time
from contextlib import suppress

import pytest

import memlimits
from memlimits import memory
from support.threads import meanwhile
from support.units import MIB

SHORT, LONG, ALL = (0, 10), (11, 17), (0, 17)  # which of the storm's sizes
UNBOUNDED = 2**62
SECONDS = int(os.environ.get("MEMLIMITS_ROUNDS", "1"))


@pytest.fixture(params=[SHORT, LONG, ALL], ids=["short", "long", "all"])
def sizes(request):
    return request.param


def storms(storm, sizes, limit=UNBOUNDED, resizes=False, seconds=SECONDS, mixes=False):
    """Threads that last for a while each, until the time is over; the blocks that were refused."""
    end = time.monotonic() + seconds
    refused = 0
    while time.monotonic() < end:
        seen = storm(4, 100 if sizes == LONG else 400, 8, *sizes, limit, resizes, 4, mixes)
        assert (seen["spoiled"], seen["over"]) == (0, 0)
        refused += seen["refused"]
    return refused


def set_limits():
    """Limits that are in the way now and then; guideline lets all through."""
    for limit in (8 * MIB, 64 * MIB, UNBOUNDED):
        memlimits.set_memory_limit(limit)
        memlimits.set_cache_limit(limit // 4)
        memlimits.set_cache_limit(None)


def clear():
    memlimits.clear_cache()
    memlimits.reset_peak_memory()
    time.sleep(0.001)


def age():
    for seconds in (0, 0.001, None):
        memlimits.set_idle_timeout(seconds)
        time.sleep(0.001)


def look():
    """Every getter."""
    for name in dir(memlimits):
        if name.startswith("get_") and name not in ("get_include",):
            getattr(memlimits, name)()
    memory.counters()
    memlimits.device_info()
    memlimits.last_refusal()
    memory.latest_refusal()


def wire():
    """The sanitizer makes mlock do nothing, and succeed."""
    most = min(16 * MIB, memlimits.device_info()["wired_capacity"])
    for limit in (most, 0, most // 2):
        memlimits.set_wired_limit(limit)
        time.sleep(0.001)


def hold():
    """Blocks as Python has them, and one that is freed on another thread."""
    block = memlimits.allocate(3 * MIB, zeroed=True)
    assert not any(memoryview(block)[::4096])
    thread = threading.Thread(target=block.release)
    thread.start()
    thread.join()
    memlimits.allocate(600)


def test_limits_change(storm, sizes):
    with meanwhile(set_limits, clear, age, look, hold):
        storms(storm, sizes)
    memlimits.set_idle_timeout(None)


def test_a_strict_limit_refuses(storm, sizes):
    footprint = memory.counters()["footprint"]
    limit = {SHORT: MIB, LONG: 50 * MIB, ALL: 20 * MIB}[sizes]
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(footprint + limit)
    with meanwhile(clear, look):
        assert storms(storm, sizes, limit) > 0


def test_what_is_wired_changes(storm, sizes):
    with meanwhile(wire, clear, look, hold):
        storms(storm, sizes)


def test_every_function_is_used(storm, sizes):
    with meanwhile(set_limits, age, look, hold):
        storms(storm, sizes, mixes=True)
    memlimits.set_idle_timeout(None)


def test_every_function_is_used_near_a_limit(storm, sizes):
    limit = memory.counters()["footprint"] + 50 * MIB
    memlimits.set_memory_policy("wait", 0.001)
    memlimits.set_memory_limit(limit)
    with meanwhile(wire, clear, charge_and_free, look):
        storms(storm, sizes, limit, mixes=True)


def test_blocks_are_resized(storm):
    with meanwhile(set_limits, age, look):
        storms(storm, LONG, resizes=True)
    memlimits.set_idle_timeout(None)


def test_blocks_are_resized_and_wired(storm):
    with meanwhile(wire, look):
        storms(storm, LONG, resizes=True)


def change_policy():
    for policy, timeout in (("wait", 0.002), ("strict", None), ("guideline", None), ("wait", 1e-4)):
        memlimits.set_memory_policy(policy, timeout)
        time.sleep(0.002)


def test_threads_wait(storm, sizes):
    """Some of them in vain, since all hold memory that the others want."""
    footprint = memory.counters()["footprint"]
    limit = {SHORT: MIB, LONG: 50 * MIB, ALL: 20 * MIB}[sizes]
    memlimits.set_memory_policy("wait", 0.001)
    memlimits.set_memory_limit(footprint + limit)
    waits = memory.counters()["waits"]
    with meanwhile(clear, look):
        storms(storm, sizes, limit)
    assert memory.counters()["waits"] > waits
    assert memory.counters()["waiting"] == 0


def test_policies_change(storm, sizes):
    memlimits.set_memory_limit(memory.counters()["footprint"] + 16 * MIB)
    with meanwhile(change_policy, clear, age, look):
        storms(storm, sizes)
    memlimits.set_idle_timeout(None)
    assert memory.counters()["waiting"] == 0


def charge_and_free():
    """On accounts, small blocks and long ones; some are freed on another thread."""
    with memlimits.budget("shared", limit=8 * MIB) as budget:
        blocks = []
        for n in (100, 5000, 40_000, MIB, 64):
            with suppress(memlimits.MemoryLimitError):
                blocks.append(memlimits.allocate(n))
        assert budget.active <= 8 * MIB
    thread = threading.Thread(target=blocks[::2].clear)
    thread.start()
    blocks.clear()
    thread.join()


def reserve_and_draw():
    with suppress(memlimits.MemoryLimitError), memlimits.reserve(4 * MIB) as reservation:
        assert reservation.remaining == 4 * MIB
        memlimits.allocate(3 * MIB).release()


def take_stock():
    snapshot = memlimits.stats()
    parts = snapshot.active + snapshot.cache + snapshot.slack + snapshot.pending
    assert parts == snapshot.footprint
    memlimits.would_fit(MIB)
    memory.budgets()
    memlimits.trim(MIB)


@pytest.mark.parametrize("policy", ["strict", "wait"])
def test_accounts_are_charged(storm, sizes, policy):
    limit = memlimits.get_active_memory() + 64 * MIB
    memlimits.set_memory_policy(policy, 0.01 if policy == "wait" else None)
    memlimits.set_memory_limit(limit)
    with meanwhile(charge_and_free, charge_and_free, reserve_and_draw, take_stock):
        storms(storm, sizes, limit)
    counters = memory.counters()
    assert (counters["reserved"], counters["waiting"]) == (0, 0)
    assert all(budget["active"] == 0 for budget in memory.budgets())
