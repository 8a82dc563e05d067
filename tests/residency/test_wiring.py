"""What is asked for to be wired goes first. VmLck, the mappings' flags and mincore say what is."""

import time
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memlimits._bindings.buffer import allocate_in
from memlimits._bindings.wiring import unwire, wire
from support.blocks import private, unwired
from support.kernel import in_ram, is_locked, locked, locked_ones, needs_lockable, watched_locked
from support.threads import run_threads
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core, needs_lockable(8 * MIB)]


def test_a_block_asked_for_takes_the_place_of_scratch(allocator):
    allocator.set_wired_limit(4 * MIB)
    scratch = allocate_in(allocator, 3 * MIB)
    assert is_locked(scratch.ptr)
    weights = allocate_in(allocator, 2 * MIB, wired=True)
    assert [is_locked(block.ptr) for block in (scratch, weights)] == [False, True]
    assert [scratch.wired, weights.wired] == [False, True]
    assert in_ram(weights)
    assert locked() == allocator.get_wired_memory() == 2 * MIB


def test_it_takes_no_more_than_it_needs(allocator):
    allocator.set_wired_limit(6 * MIB)
    scratch = [allocate_in(allocator, n * MIB) for n in (2, 3, 1)]
    weights = allocate_in(allocator, 2 * MIB, wired=True)
    assert weights.wired
    assert [is_locked(block.ptr) for block in scratch] == [True, False, True]
    assert locked() == 5 * MIB


def test_what_does_not_fit_takes_nothing(allocator):
    allocator.set_wired_limit(4 * MIB)
    scratch = allocate_in(allocator, 3 * MIB)
    weights = allocate_in(allocator, 5 * MIB, wired=True)
    assert [scratch.wired, weights.wired] == [True, False]
    assert locked() == 3 * MIB
    assert unwired(allocator) == (5 * MIB, 5 * MIB, 5 * MIB, 0)


def test_one_asked_for_does_not_displace_another(allocator):
    allocator.set_wired_limit(4 * MIB)
    first = allocate_in(allocator, 3 * MIB, wired=True)
    second = allocate_in(allocator, 2 * MIB, wired=True)
    assert [first.wired, second.wired] == [True, False]
    first.release()
    allocate_in(allocator, MIB)
    assert second.wired


def test_idle_memory_goes_before_scratch(allocator):
    allocator.set_wired_limit(4 * MIB)
    idle, scratch = allocate_in(allocator, 2 * MIB), allocate_in(allocator, 2 * MIB)
    idle.release()
    weights = allocate_in(allocator, MIB + 1, wired=True)
    assert [scratch.wired, weights.wired] == [True, True]


def test_what_is_asked_for_under_no_limit_goes_first_once_there_is_one(allocator):
    scratch = [allocate_in(allocator, MIB) for _ in range(2)]
    weights = allocate_in(allocator, 3 * MIB, wired=True)
    scratch += [allocate_in(allocator, MIB) for _ in range(2)]
    assert locked() == 0
    assert not weights.wired
    assert unwired(allocator) == (3 * MIB, 3 * MIB, 3 * MIB, 0)
    allocator.set_wired_limit(3 * MIB)
    assert weights.wired
    assert locked() == 3 * MIB
    assert unwired(allocator) == (3 * MIB, 0, 4 * MIB, 0)
    allocator.set_wired_limit(4 * MIB)
    assert weights.wired
    assert locked() == 4 * MIB


def test_a_lowered_limit_takes_scratch_first(allocator):
    allocator.set_wired_limit(6 * MIB)
    weights = allocate_in(allocator, 2 * MIB, wired=True)
    scratch = allocate_in(allocator, 3 * MIB)
    allocator.set_wired_limit(4 * MIB)
    assert [scratch.wired, weights.wired] == [False, True]
    assert locked() == 2 * MIB


@pytest.mark.parametrize("n", [1, 100, 32 * KIB, 32 * KIB + 1, MIB])
def test_it_shares_its_resource_with_no_other(allocator, n):
    allocator.set_wired_limit(8 * MIB)
    block = allocate_in(allocator, n, wired=True)
    assert len(block) == block.nbytes == n
    assert block.capacity == locked() == allocator.get_active_memory()
    assert allocator.counters()["slack"] == 0


def test_it_may_read_as_zeros(allocator):
    dirty = allocate_in(allocator, 40 * KIB)
    memoryview(dirty)[:] = b"\xff" * len(dirty)
    dirty.release()
    block = allocate_in(allocator, 100, zeroed=True, wired=True)
    assert bytes(block) == bytes(100)


def test_no_bytes_are_not_wired(allocator):
    allocator.set_wired_limit(MIB)
    block = allocate_in(allocator, 0, wired=True)
    assert not block.wired
    assert unwired(allocator) == (0, 0, 0, 0)
    wire(block)
    unwire(block)


def test_a_released_buffer_is_not_wired(allocator):
    allocator.set_wired_limit(MIB)
    block = allocate_in(allocator, MIB, wired=True)
    block.release()
    assert not block.wired


@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_takes_the_block_next_has_not_asked(allocator, elsewhere):
    allocator.set_wired_limit(4 * MIB)
    first = allocate_in(allocator, 3 * MIB, wired=True)
    if elsewhere:
        run_threads(first.release)
    else:
        first.release()
    again = allocate_in(allocator, 3 * MIB)
    assert again.wired  # hits do not change wiring
    assert unwired(allocator) == (0, 0, 0, 0)
    weights = allocate_in(allocator, 2 * MIB, wired=True)
    assert [again.wired, weights.wired] == [False, True]


def test_what_was_freed_is_found_again_by_the_thread_that_freed_it(allocator):
    for _ in range(5):
        allocate_in(allocator, 3 * MIB, wired=True).release()
    counters = allocator.counters()
    assert (counters["misses"], counters["hits"]) == (1, 4)
    assert counters["cache"] == 3 * MIB


def test_without_a_limit_no_residency_set_is_touched(allocator):
    block = allocate_in(allocator, MIB, wired=True)
    wire(block)
    unwire(block)
    assert locked() == allocator.get_wired_memory() == 0


def test_what_is_above_the_capacity_is_told_apart_from_what_is_above_the_limit():
    allocator = private(wired_capacity=2 * MIB)
    with pytest.warns(RuntimeWarning, match="wired_capacity"):
        allocator.set_wired_limit(4 * MIB)
    scratch = allocate_in(allocator, 2 * MIB)
    blocks = [allocate_in(allocator, MIB + n, wired=True) for n in (0, 1, 4 * MIB)]
    assert [block.wired for block in (scratch, *blocks)] == [False, True, False, False]
    held = [block.capacity for block in blocks]
    # The second is within the limit, the third above it; scratch comes last, and finds room in the
    # limit, too, but not in the capacity.
    assert unwired(allocator) == (sum(held), sum(held[1:]), held[2], held[1] + 2 * MIB)
    allocator.set_wired_limit(0)


def test_what_waits_for_the_next_slow_step_is_not_said_to_be_too_much(allocator):
    allocator.set_wired_limit(4 * MIB)
    first, longer, shorter = (allocate_in(allocator, n * MIB) for n in (4, 3, 2))
    assert unwired(allocator) == (0, 0, 5 * MIB, 0)
    first.release()
    assert [longer.wired, shorter.wired] == [False, False]
    assert unwired(allocator) == (0, 0, 3 * MIB, 0)  # not both fit
    with pytest.raises(ValueError, match="not asked"):
        unwire(shorter)
    assert [longer.wired, shorter.wired] == [False, False]
    allocate_in(allocator, 100)
    assert [longer.wired, shorter.wired] == [False, True]


def test_what_just_fits_at_the_next_slow_step_is_not_said_to_be_too_much(allocator):
    allocator.set_wired_limit(4 * MIB)
    first, second = (allocate_in(allocator, 4 * MIB) for _ in range(2))
    assert unwired(allocator) == (0, 0, 4 * MIB, 0)
    first.release()
    assert not second.wired
    assert unwired(allocator) == (0, 0, 0, 0)


def test_an_idle_slab_is_not_said_to_be_too_much(allocator):
    allocator.set_wired_limit(PAGE)
    block = allocate_in(allocator, 100)
    assert unwired(allocator)[2] >= 64 * KIB
    block.release()
    assert unwired(allocator) == (0, 0, 0, 0)


def test_many_threads_ask_and_free(allocator):
    limit = 6 * MIB
    allocator.set_wired_limit(limit)

    def work():
        end = time.monotonic() + 0.4
        for i in count():
            block = allocate_in(allocator, (1 + i % 3) * MIB, wired=i % 2)
            short = allocate_in(allocator, 1000)
            wire(block)
            wire(short)
            if i % 3:
                unwire(block)
            block.release()
            if time.monotonic() > end:
                return

    with watched_locked() as watcher:
        run_threads(work, work, work)
    assert 0 < watcher.highest <= limit
    assert unwired(allocator)[0] == 0
    allocator.clear_cache()
    assert locked() == 0


def total(blocks):
    return sum(block.capacity for block in blocks)


class Priority(RuleBasedStateMachine):
    """After each wiring operation, what is not locked does not fit beside what goes before it."""

    def __init__(self):
        super().__init__()
        self.allocator = private()
        self.limit = 0
        self.asked = {}  # how often, by block

    @rule(pages=st.integers(9, 600), wired=st.booleans())
    def allocate(self, pages, wired):
        self.allocator.clear_cache()  # so that a resource is made: that is a wiring operation
        self.asked[allocate_in(self.allocator, pages * PAGE, wired=wired)] = int(wired)

    @rule(limit=st.integers(0, 8 * MIB))
    def set_limit(self, limit):
        self.allocator.set_wired_limit(limit)
        self.limit = limit

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def wire(self, data):
        block = data.draw(st.sampled_from(list(self.asked)))
        wire(block)
        self.asked[block] += 1

    @precondition(lambda self: any(self.asked.values()))
    @rule(data=st.data())
    def unwire(self, data):
        block = data.draw(st.sampled_from([block for block, n in self.asked.items() if n]))
        unwire(block)
        self.asked[block] -= 1

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), pages=st.integers(9, 600))
    def release(self, data, pages):
        block = data.draw(st.sampled_from(list(self.asked)))
        del self.asked[block]
        block.release()
        self.allocate(pages, False)

    @invariant()
    def what_goes_first_is_locked_first(self):
        where = {block.ptr: block for block in self.asked}
        inside = {where[address] for address in locked_ones(where)}
        first = {block for block, times in self.asked.items() if times}
        locked_first = total(inside & first)
        assert inside == {block for block in self.asked if block.wired}
        assert locked() == total(inside) <= self.limit
        for block in self.asked.keys() - inside:
            before = locked_first if block in first else total(inside)
            assert before + block.capacity > self.limit
        assert unwired(self.allocator) == (
            total(first),
            total(first - inside),
            total((self.asked.keys() if self.limit else first) - inside),
            0,
        )

    def teardown(self):
        self.asked.clear()
        self.allocator.set_wired_limit(0)
        assert locked() == 0


def test_priority_holds_after_any_sequence_of_calls():
    run_state_machine_as_test(
        Priority,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
