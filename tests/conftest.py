"""What every test gets: limits as a fresh process has them, and a check that nothing leaked."""

import gc

import pytest

import memlimits
from memlimits import memory


@pytest.fixture(autouse=True)
def fresh_limits():
    """Leave the default allocator as it was: the same active bytes, default limits, no cache."""
    gc.collect()
    active = memlimits.get_active_memory()
    limit = memlimits.get_memory_limit()
    yield
    memlimits.set_memory_policy("guideline")
    memlimits.set_memory_limit(limit)
    memlimits.set_cache_limit(None)
    memlimits.set_wired_limit(0)
    gc.collect()
    memlimits.clear_cache()
    assert memlimits.get_active_memory() <= active  # less: a failed test before held some
    assert memlimits.get_wired_memory() == 0
    balance(memory.counters())


def balance(counters):
    """The identity that every snapshot of the counters satisfies."""
    parts = counters["active"] + counters["cache"] + counters["slack"] + counters["pending"]
    assert parts == counters["footprint"]
    assert all(0 <= value < 2**63 for value in counters.values())
