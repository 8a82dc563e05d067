"""Storms of threads in C that call malloc's family, where it is memlimits'.

`test_interposed.py` runs this in a process of its own. `MEMLIMITS_TESTS_ROUNDS` has each do more.
"""

import os
import warnings

import pytest

import memlimits
from memlimits import memory
from support import interposed
from support.threads import meanwhile
from support.units import MIB, peak_bound

SHORT, LONG, ALL = (0, 10), (11, 17), (0, 17)  # which of the storm's sizes
UNBOUNDED = 2**62
ROUNDS = range(int(os.environ.get("MEMLIMITS_TESTS_ROUNDS", "1")))


@pytest.fixture(params=[SHORT, LONG, ALL], ids=["short", "long", "all"])
def sizes(request):
    return request.param


def of_malloc(storm, sizes, limit=UNBOUNDED, resizes=False, mixes=False, times=1):
    operations = (600 if sizes == SHORT else 50) * times
    seen = storm(4, operations, 16, *sizes, limit, resizes, 2, mixes, True)
    assert (seen["spoiled"], seen["over"]) == (0, 0)
    return seen


@pytest.mark.parametrize("does", [{}, {"resizes": True}, {"mixes": True}], ids=str)
def test_nothing_is_spoiled_and_the_peak_is_what_was_held(storm, sizes, does):
    # What an alignment above the page skips is not in the books.
    skips = 4 * 16 * MIB if "mixes" in does else 0
    for _ in ROUNDS:
        before = interposed.active()
        memlimits.reset_peak_memory()
        interposed.BOOKS.reset_peak()
        assert of_malloc(storm, sizes, times=4, **does)["refused"] == 0
        peak = memlimits.get_peak_memory()
        lowest, highest = interposed.BOOKS.peak_bounds()
        assert lowest <= peak <= highest + skips
        assert interposed.active() == before


@pytest.mark.parametrize(
    ("policy", "count"),
    [(("strict", None), "given"), (("strict", None), "resident"), (("wait", 0.001), "given")],
    ids=str,
)
def test_a_limit_holds_and_is_reached(storm, sizes, policy, count):
    room = {SHORT: MIB // 2, LONG: 40 * MIB, ALL: 20 * MIB}[sizes]
    for _ in ROUNDS:
        before = interposed.active()
        memlimits.clear_cache()
        memlimits.reset_peak_memory()
        limit = memory.counters()["footprint"] + room
        memlimits.set_memory_policy(*policy)
        memlimits.set_memory_count(count)
        memlimits.set_memory_limit(limit)
        # What is not touched does not count, then.
        had = limit - memlimits.get_active_memory() if count == "given" else UNBOUNDED
        try:
            seen = of_malloc(storm, sizes, had)
            peak = memlimits.get_peak_memory()
        finally:
            memlimits.set_memory_policy("guideline")
            memlimits.set_memory_count("given")
        assert seen["refused"] > 0 or count == "resident"
        assert count == "resident" or peak <= peak_bound(limit, threads=5)
        assert interposed.active() == before


def changes():
    """The interpreter's own memory is malloc's as well: nothing here may be refused."""
    memlimits.set_memory_limit(10 * MIB)
    memlimits.set_cache_limit(MIB)
    memlimits.clear_cache()
    memlimits.set_idle_timeout(0)
    memlimits.trim(MIB)
    memlimits.set_cache_limit(None)
    memlimits.set_idle_timeout(None)
    memlimits.set_memory_limit(UNBOUNDED)


def looks():
    stats = memlimits.stats()
    parts = stats.active + stats.cache + stats.slack + stats.pending
    assert parts == stats.footprint
    bytes(stats.active % 100_000 + 600)


def forks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, use of fork()"
        pid = os.fork()
    if pid == 0:
        block = bytearray(3 * MIB)
        block += bytes(MIB)
        memlimits.clear_cache()
        os._exit(7 if len(block) == 4 * MIB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_limits_change_and_processes_fork_meanwhile(storm, sizes):
    before = interposed.active()
    with meanwhile(changes, looks, forks):
        for _ in ROUNDS:
            for does in ({"resizes": True}, {"mixes": True}):
                assert of_malloc(storm, sizes, **does)["refused"] == 0
    # What came with the modules, and with the first threads, may stay.
    assert interposed.active() == before
