"""Any sequence of calls, against a model that knows only what the calls returned.

`HYPOTHESIS_PROFILE=long` looks much further.
"""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import memlimits
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import place, private
from support.kernel import can_lock, locked, wholly_mapped
from support.storms import GIL
from support.units import KIB, MIB, in_pages, peak_bound

pytestmark = pytest.mark.inside

WORKERS = 3
WIREABLE = min(8 * MIB, Device().info()["wired_capacity"] // 2)

PROFILES = {
    "default": {"max_examples": 30, "stateful_step_count": 50},
    "long": {"max_examples": 3000, "stateful_step_count": 100},
}

sizes = st.one_of(
    st.sampled_from([100, 5000, 40 * KIB, MIB]),  # often the same: hits
    st.integers(0, 600),
    st.integers(600, 40 * KIB),
    st.integers(40 * KIB, 600 * KIB),
    st.integers(600 * KIB, 4 * MIB),
    st.sampled_from([512, 4096, 32768, 32769, 262144, MIB, 2 * MIB]),
)
limits = st.one_of(st.just(0), st.integers(1, 300 * KIB), st.integers(300 * KIB, 24 * MIB))
workers = st.integers(0, WORKERS - 1)

LOCKS = can_lock(WIREABLE)


def longest_capacity(n):
    """An eighth more and 64 bytes; above 32 KiB also its own pages, where these are longer."""
    return max(1.125 * n + 64, in_pages(n) if n > 32 * KIB else 0)


class Held:
    """A buffer in the test's hands, and what it wrote there."""

    def __init__(self, buffer, stamp):
        self.buffer = buffer
        self.stamp = stamp
        self.views = []
        self.left = False  # the end of a with block
        n = buffer.nbytes
        if n:
            self.where = place(buffer)
            self.ends = memoryview(buffer)[:: max(n - 1, 1)]
            self.ends[:] = bytes([stamp]) * len(self.ends)
            self.ends.release()

    def verify(self):
        n = self.buffer.nbytes
        if n and not self.left:
            with memoryview(self.buffer) as view:
                assert view[0] == view[n - 1] == self.stamp
        for view in self.views:
            if n:
                assert view[0] == view[n - 1] == self.stamp


class AllocatorMachine(RuleBasedStateMachine):
    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.allocator = private()
        self.pool = [ThreadPoolExecutor(1) for _ in range(WORKERS)]
        self.memory_limit = self.allocator.get_memory_limit()
        self.cache_limit = None
        self.wired_limit = 0
        self.idle_timeout = None
        self.policy = "guideline"
        self.live = {}
        self.peak = self.highest = 0
        self.takers = set()
        self.refusals = 0
        self.stamp = 0
        self.footprint_before = 0
        self.grows = False

    def on(self, worker, function, *args):
        return self.pool[worker].submit(function, *args).result(30)

    def allocate_on(self, worker, n, zeroed):
        # Not as the call's result: the pool's thread holds on to that for a while.
        box = []
        self.on(worker, lambda: box.append(allocate_in(self.allocator, n, zeroed=zeroed)))
        return box.pop()

    def active(self):
        return sum(held.buffer.capacity for held in self.live.values())

    @rule(target=held, worker=workers, asked=st.lists(sizes, min_size=1, max_size=6))
    def allocate(self, worker, asked):
        return multiple(*(block for n in asked for block in self.allocated(worker, n, False)))

    @rule(target=held, worker=workers, n=sizes)
    def allocate_zeroed(self, worker, n):
        return multiple(*self.allocated(worker, n, True))

    def allocated(self, worker, n, zeroed):
        """The block, or nothing where it was refused."""
        before = self.allocator.counters()
        try:
            buffer = self.allocate_on(worker, n, zeroed)
        except memlimits.MemoryLimitError as error:
            self.refused(error, n, before)
            return []
        self.grows = True
        assert buffer.nbytes == n
        assert n <= buffer.capacity
        assert buffer.capacity <= longest_capacity(n) or self.may_be(buffer.capacity, n, before)
        if zeroed:
            assert bytes(buffer).count(0) == n
        self.stamp = self.stamp % 255 + 1
        held = Held(buffer, self.stamp)
        self.live[id(held)] = held
        if n:
            self.takers.add(worker)
            self.peak = max(self.peak, self.active())
            self.highest = max(self.highest, self.active())
        return [held]

    def may_be(self, capacity, n, before):
        """Three times as long, where growth would return others and it makes no peak."""
        return (
            self.policy == "guideline"
            and capacity <= 3 * n
            and self.active() + capacity <= self.highest
            and before["footprint"] + in_pages(1.032 * n) > self.active() * 1.25 + 16 * MIB
        )

    def refused(self, error, n, before):
        self.refusals += 1
        assert self.policy == "strict"
        assert error.blocked_by == "limit"
        assert (error.requested, error.limit) == (n, self.memory_limit)
        assert error.active == self.active()
        slack = before["footprint"] - before["active"] - before["cache"]
        # What growing takes at the least: the capacity, in whole pages.
        assert self.active() + slack + in_pages(1.125 * n + 64) > self.memory_limit
        after = self.allocator.counters()
        assert after == {**before, "refusals": before["refusals"] + 1}

    @rule(held=consumes(held), worker=workers)
    def release(self, held, worker):
        held.verify()
        for view in held.views:
            self.on(worker, view.release)
        self.on(worker, held.buffer.release)
        self.on(worker, held.buffer.release)
        del self.live[id(held)]

    @rule(held=consumes(held))
    def drop(self, held):
        held.verify()
        if not held.views:
            del self.live[id(held)], held.buffer
        else:
            # A view alone keeps the block.
            view = held.views.pop()
            for other in held.views:
                other.release()
            held.views.clear()
            del held.buffer
            if len(view):
                assert view[0] == held.stamp
            view.release()
            del view, self.live[id(held)]
        if not GIL:
            # The thread that made it frees it, when it runs Python again.
            for worker in range(WORKERS):
                self.on(worker, lambda: None)

    @rule(held=held)
    def export(self, held):
        held.views.append(memoryview(held.buffer))

    @rule(held=held)
    def release_under_a_view(self, held):
        with memoryview(held.buffer), pytest.raises(BufferError):
            held.buffer.release()

    @rule(held=consumes(held), worker=workers)
    def leave_with_block(self, held, worker):
        """A block under a view goes with the last view."""
        held.verify()
        with held.buffer:
            pass
        held.left = True
        held.verify()
        with pytest.raises(ValueError, match="released"):
            memoryview(held.buffer)
        while held.views:
            assert self.allocator.get_active_memory() == self.active()
            self.on(worker, held.views.pop().release)
        del self.live[id(held)]

    @rule(worker=workers, limit=limits)
    def set_memory_limit(self, worker, limit):
        assert self.on(worker, self.allocator.set_memory_limit, limit) == self.memory_limit
        self.memory_limit = limit

    @rule(worker=workers, limit=st.none() | limits)
    def set_cache_limit(self, worker, limit):
        previous = self.memory_limit if self.cache_limit is None else self.cache_limit
        assert self.on(worker, self.allocator.set_cache_limit, limit) == previous
        self.cache_limit = limit

    @rule(worker=workers, limit=st.integers(0, WIREABLE) | st.just(0))
    def set_wired_limit(self, worker, limit):
        assert self.on(worker, self.allocator.set_wired_limit, limit) == self.wired_limit
        self.wired_limit = limit

    @rule(worker=workers, seconds=st.sampled_from([None, 0, 1e-4, 1000]))
    def set_idle_timeout(self, worker, seconds):
        assert self.on(worker, self.allocator.set_idle_timeout, seconds) == self.idle_timeout
        self.idle_timeout = seconds

    @rule(policy=st.sampled_from(["guideline", "strict"]))
    def set_memory_policy(self, policy):
        assert self.allocator.set_memory_policy(policy) == self.policy
        self.policy = policy

    @rule(worker=workers)
    def clear_cache(self, worker):
        self.on(worker, self.allocator.clear_cache)
        self.highest = self.active()
        assert self.allocator.get_cache_memory() == 0

    @rule()
    def reset_peak(self):
        self.allocator.reset_peak_memory()
        self.peak = 0
        self.takers.clear()

    @rule(limit=st.sampled_from([-1, 2**64, 1.5, True, "1"]))
    def set_a_limit_to_nonsense(self, limit):
        before = self.allocator.counters()
        for setter in (
            self.allocator.set_memory_limit,
            self.allocator.set_cache_limit,
            self.allocator.set_wired_limit,
        ):
            with pytest.raises((TypeError, ValueError)):
                setter(limit)
        assert self.allocator.counters() == before

    @invariant()
    def counters_are_what_the_model_says(self):
        counters = self.allocator.counters()
        active = self.active()
        assert counters["active"] == active
        assert counters["pending"] == 0
        assert active + counters["cache"] + counters["slack"] == counters["footprint"]
        assert all(0 <= value < 2**63 for value in counters.values())
        # Exact where one thread took all.
        most = self.peak if len(self.takers) <= 1 else peak_bound(self.peak, len(self.takers))
        assert self.peak <= counters["peak"] <= most
        assert counters["refusals"] == self.refusals
        assert (counters["resources"] == 0) == (counters["footprint"] == 0)

    @invariant()
    def limits_hold(self):
        counters = self.allocator.counters()
        cache_limit = self.memory_limit if self.cache_limit is None else self.cache_limit
        assert counters["cache"] <= cache_limit
        if counters["footprint"] > self.memory_limit:
            assert counters["cache"] == 0
            if self.policy == "strict" or not self.grows:
                assert counters["footprint"] <= self.footprint_before
        self.footprint_before = counters["footprint"]
        self.grows = False

    @invariant()
    def wired_is_what_is_locked(self):
        wired = self.allocator.get_wired_memory()
        assert wired <= self.wired_limit
        if LOCKS:
            assert locked() == wired

    @invariant()
    def live_blocks_are_mapped_and_apart(self):
        places = sorted(held.where for held in self.live.values() if held.buffer.nbytes)
        for (start, length), following in pairwise(places):
            assert start + length <= following[0]
        assert wholly_mapped(places[:3]) == places[:3]

    def teardown(self):
        for held in self.live.values():
            held.verify()
        self.live.clear()
        self.allocator.set_wired_limit(0)  # the collector may keep the allocator for a while
        assert locked() == 0
        for executor in self.pool:
            executor.shutdown()


@pytest.mark.core
def test_state_machine():
    profile = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")]
    run_state_machine_as_test(
        AllocatorMachine,
        settings=settings(
            **profile,
            deadline=None,
            derandomize=profile is PROFILES["default"],
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    gc.collect()
