"""Budgets and reservations: who is charged, what is refused, and what is kept for whom."""

import asyncio
import contextvars
import threading
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import memlimits
from memlimits import memory
from support.functions import holds
from support.process import run
from support.threads import in_thread, run_threads
from support.units import KIB, MIB, PAGE

# ---- a machine against a plain model ----

LIMIT = 8 * MIB


def class_size(n):
    """What docs/design.md says of size classes: multiples of 64 up to 512, then eight a power."""
    if n <= 512:
        return -(-n // 64) * 64
    step = 1 << ((n - 1).bit_length() - 4)
    return -(-n // step) * step


def charge_for(n):
    return class_size(n) if n <= 32 * KIB else -(-n // PAGE) * PAGE


class Node:
    """An account of the model: it adds up anew whatever is asked for."""

    def __init__(self, parent, key, floor=0):
        self.parent = parent
        self.key = key
        self.floor = floor
        self.limit = None
        self.direct = []
        self.children = []
        self.opened = 0
        self.peak = 0
        (parent.children if parent else ROOTS).append(self)

    def active(self):
        return sum(self.direct) + sum(child.active() for child in self.children)

    def claimed(self):
        return sum(self.direct) + sum(child.claim() for child in self.children)

    def claim(self):
        return max(self.floor, self.claimed())

    def chain(self):
        node = self
        while node:
            yield node
            node = node.parent

    def path(self):
        return "/".join(node.key for node in reversed(list(self.chain())) if node.key)

    def below(self):
        return [self, *(node for child in self.children for node in child.below())]

    def charge(self, n):
        self.direct.append(n)
        for node in self.chain():
            node.peak = max(node.peak, node.active())

    def refuser(self, n):
        return next(
            (x for x in self.chain() if x.limit is not None and x.active() + n > x.limit), None
        )

    def drop_if_unused(self):
        if not (self.opened or self.direct or self.children):
            (self.parent.children if self.parent else ROOTS).remove(self)
            if self.parent:
                self.parent.drop_if_unused()


ROOTS = []


def budget_in(parent, name):
    siblings = parent.children if parent else ROOTS
    return next((node for node in siblings if node.key == name), None) or Node(parent, name)


def refusal_of(function, kind=memlimits.MemoryLimitError):
    try:
        function()
    except kind as error:
        return error.with_traceback(None)  # which would keep scopes, and with them accounts


def reserved():
    return sum(root.claim() for root in ROOTS) - sum(root.active() for root in ROOTS)


def reserved_with(node, floor):
    before, node.floor = node.floor, floor
    after = reserved()
    node.floor = before
    return after


def reserved_after(node, charge):
    if node is None:
        return reserved()
    node.direct.append(charge)
    after = reserved()
    node.direct.pop()
    return after


def most(fits, enough):
    """The largest number up to `enough` that fits; -1 for none."""
    low, high = -1, enough
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


# Sizes that meet in one class, sizes of any class, and whole pages; or so many bytes more than fit.
SIZES = st.one_of(
    st.sampled_from([100, 5000, 32 * KIB, 64 * KIB, MIB]),
    st.integers(1, 40 * KIB),
    st.integers(32 * KIB + 1, 6 * MIB),
)
NEAR = st.sampled_from([-3 * MIB, -100 * KIB, -PAGE, -1, 0, 1, PAGE, 100 * KIB + 1])


def own_the_heap():
    """From then on frees ask for no lock, as in a program that runs long."""
    for _ in range(17_000):
        memlimits.allocate(64)


class Machine(RuleBasedStateMachine):
    """Within a strict limit, where one thread allocates: so that every answer is known."""

    def __init__(self):
        super().__init__()
        own_the_heap()
        memlimits.clear_cache()
        assert memlimits.get_active_memory() == 0
        memlimits.set_memory_limit(LIMIT)
        memlimits.set_memory_policy("strict")
        ROOTS.clear()
        self.stack = []
        self.tasks = []
        self.held = []
        # Budgets that were left, by path: limit and peak.
        self.left = {b["name"]: (b["limit"], b["peak"]) for b in memory.budgets()}

    def top(self):
        return self.stack[-1][1] if self.stack else None

    def used(self):
        """What stays in the footprint whatever goes: a slab with one block held is not idle."""
        slack = memory.counters()["slack"]
        return sum(buffer.capacity for buffer, _, _ in self.held) + slack

    def fits(self, node, nbytes):
        """Whole pages do; and a piece of a slab, where none is free. It need not be so long."""
        charge = charge_for(nbytes)
        if node and node.refuser(charge):
            return False
        growth = -(-charge // PAGE) * PAGE
        return self.used() + growth + reserved_after(node, charge) <= LIMIT

    def most_that_fits(self, node):
        pages = most(lambda n: self.fits(node, n * PAGE) or n * PAGE <= 32 * KIB, 2 * LIMIT // PAGE)
        return pages * PAGE

    def answer_for(self, node, nbytes):
        """By the model, what blocks a request, of whole pages or of those that could be more."""
        charge = charge_for(nbytes)
        if node and node.refuser(charge):
            return ("budget",)
        if self.fits(node, nbytes):
            return (None,)
        growth = -(-charge // PAGE) * PAGE
        blocked = "limit" if self.used() + growth > LIMIT else "reservation"
        # What a free piece of a slab serves needs no room.
        return (blocked,) if nbytes > 32 * KIB else (None, blocked)

    # ---- opened and left ----

    @precondition(lambda self: len(self.stack) < 9)
    @rule(
        name=st.sampled_from(["a", "b", "ä"]),
        limit=st.one_of(st.none(), st.integers(0, 2 * LIMIT // PAGE).map(lambda n: n * PAGE)),
        near=st.one_of(st.none(), NEAR),
    )
    def open_budget(self, name, limit, near):
        node = budget_in(self.top(), name)
        if limit is not None and near is not None:
            limit = max(0, node.active() + near)
        budget = memlimits.budget(name, limit=limit)
        budget.__enter__()
        node.limit = node.limit if limit is None else limit
        node.opened += 1
        self.stack.append((budget, node))

    @precondition(lambda self: len(self.stack) < 9)
    @rule(nbytes=st.integers(0, LIMIT + MIB), near=st.one_of(st.none(), NEAR))
    def open_reservation(self, nbytes, near):
        node = Node(self.top(), None)
        node.opened = 1
        used, before = self.used(), reserved()
        largest = most(lambda n: used + reserved_with(node, n) <= LIMIT, 2 * LIMIT)
        if near is not None:
            nbytes = max(0, largest + near)
        costs = reserved_with(node, nbytes) - before
        reservation = memlimits.reserve(nbytes)
        refused = refusal_of(reservation.__enter__)
        assert bool(refused) == (nbytes > largest)
        if refused:
            assert refused.blocked_by == ("limit" if used + costs > LIMIT else "reservation")
            assert refused.requested == nbytes
            node.opened = 0
            node.drop_if_unused()
        else:
            node.floor = nbytes
            self.stack.append((reservation, node))

    @precondition(lambda self: self.stack)
    @rule()
    def leave(self):
        scope, node = self.stack.pop()
        scope.close()
        node.floor = 0
        if node.key:
            self.note_left(scope, node)
        self.close(node)

    def note_left(self, scope, node):
        _, peak = self.left.get(node.path(), (None, 0))
        self.left[node.path()] = (scope.limit, max(peak, node.peak))

    def close(self, node):
        node.opened -= 1
        node.drop_if_unused()

    @precondition(lambda self: len(self.stack) > 1)
    @rule(data=st.data())
    def leave_out_of_order(self, data):
        scope, _ = self.stack[data.draw(st.integers(0, len(self.stack) - 2))]
        refused = refusal_of(scope.close, RuntimeError)
        assert "is not the innermost" in str(refused)

    @precondition(lambda self: self.stack and len(self.tasks) < 3)
    @rule()
    def start_task(self):
        self.top().opened += 1
        self.tasks.append((contextvars.copy_context(), self.top()))

    @rule(data=st.data(), name=st.sampled_from(["a", "b"]), near=st.one_of(st.none(), NEAR))
    def limit_elsewhere(self, data, name, near):
        """Another task gives a budget another limit, also one that is open here."""
        places = [(contextvars.Context(), None), *self.tasks]
        context, parent = places[data.draw(st.integers(0, len(places) - 1))]
        node = budget_in(parent, name)
        limit = None if near is None else max(0, node.active() + near)
        node.limit = node.limit if limit is None else limit
        budget = memlimits.budget(name, limit=limit)
        context.run(budget.__enter__)
        context.run(budget.close)
        self.note_left(budget, node)
        node.drop_if_unused()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def end_task(self, data):
        _, node = self.tasks.pop(data.draw(st.integers(0, len(self.tasks) - 1)))
        self.close(node)

    # ---- taken and freed ----

    @rule(data=st.data(), nbytes=SIZES, near=st.one_of(st.none(), NEAR), in_task=st.booleans())
    def allocate(self, data, nbytes, near, in_task):
        node, call = self.top(), lambda function, n: function(n)
        if in_task and self.tasks:
            # Hypothesis would keep what it draws, and with a context its account.
            context, node = self.tasks[data.draw(st.integers(0, len(self.tasks) - 1))]
            call = context.run
        if near is not None:
            nbytes = max(1, self.most_that_fits(node) + near)
        charge = charge_for(nbytes)
        answers = self.answer_for(node, nbytes)
        refuser = node and node.refuser(charge)
        predicted = call(memlimits.would_fit, nbytes)
        assert predicted.blocked_by in answers
        error = refusal_of(
            lambda: self.held.append((call(memlimits.allocate, nbytes), node, charge))
        )
        assert (error.blocked_by if error else None) == predicted.blocked_by
        if refuser:
            assert error.budget == refuser.key
            assert error.budget_limit == refuser.limit
            assert error.budget_active == refuser.active()
        elif error is None and node:
            node.charge(charge)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), elsewhere=st.sampled_from([False] * 7 + [True]))
    def free(self, data, elsewhere):
        i = data.draw(st.integers(0, len(self.held) - 1))
        buffer, node, charge = self.held.pop(i)
        if elsewhere:
            in_thread(buffer.release)
        else:
            buffer.release()
        if node:
            node.direct.remove(charge)
            node.drop_if_unused()

    # ---- what holds after each step ----

    @invariant()
    def the_numbers_agree(self):
        counters = memory.counters()
        assert counters["active"] == sum(buffer.capacity for buffer, _, _ in self.held)
        assert counters["reserved"] == reserved()
        assert counters["footprint"] + counters["reserved"] <= LIMIT
        for scope, node in self.stack:
            if isinstance(scope, memlimits.Budget):
                assert (scope.active, scope.peak) == (node.active(), node.peak)
            else:
                assert scope.remaining == max(0, node.floor - node.claimed())

    @invariant()
    def just_so_much_would_fit(self):
        places = [(self.top(), lambda function, n: function(n))]
        places += [(node, context.run) for context, node in self.tasks]
        for node, call in places:
            largest = self.most_that_fits(node)
            if largest > 32 * KIB:
                assert call(memlimits.would_fit, largest)
            for n in (largest + 1, largest + PAGE):
                assert call(memlimits.would_fit, n).blocked_by in self.answer_for(node, n)

    @invariant()
    def every_budget_is_listed(self):
        nodes = {node: node.path() for root in ROOTS for node in root.below() if node.key}
        expected = [
            (path, limit, 0, peak)
            for path, (limit, peak) in self.left.items()
            if path not in nodes.values()
        ]
        for node, path in nodes.items():
            _, peak = self.left.get(path, (None, 0))
            expected.append((path, node.limit, node.active(), max(peak, node.peak)))
        listed = [tuple(b.values()) for b in memory.budgets()]
        assert sorted(listed, key=str) == sorted(expected, key=str)

    def teardown(self):
        while self.stack:
            self.leave()
        self.tasks.clear()
        for buffer, _, _ in self.held:
            buffer.release()
        assert memory.counters()["reserved"] == 0
        assert all(budget["active"] == 0 for budget in memory.budgets())


TestMachine = pytest.mark.core(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# ---- who is charged ----


@pytest.mark.core
def test_a_block_is_charged_until_it_is_freed_wherever_that_is():
    with memlimits.budget("weights") as budget:
        blocks = [memlimits.allocate(n) for n in (1, 64, 65, 5000, 32 * KIB, 40 * KIB, MIB)]
        charged = sum(charge_for(n) for n in (1, 64, 65, 5000, 32 * KIB, 40 * KIB, MIB))
        assert budget.active == charged
    after = memlimits.allocate(MIB)
    assert budget.active == charged
    in_thread(lambda: [block.release() for block in blocks[::2]])
    blocks.clear()
    assert (budget.active, budget.peak) == (0, charged)
    assert after.nbytes == MIB


def leave(nbytes):
    """Take all but so many bytes of the memory limit, in whole pages."""
    memlimits.clear_cache()
    room = memlimits.get_memory_limit() - memory.counters()["footprint"]
    return memlimits.allocate((room - nbytes) // PAGE * PAGE)


@pytest.mark.core
def test_nothing_is_charged_that_would_be_freed_without_a_look():
    """Free pieces of a slab whose thread frees without a look are for what nobody is charged."""
    run(
        """
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(8 * MIB)
        pieces = [memlimits.allocate(1000) for _ in range(3)]
        for _ in range(20000):  # the thread's frees do so once nobody else wants its heap
            memlimits.allocate(1000)
        held = []
        for size in MIB, 40 << 10, 20 << 10, 4096:
            while memlimits.would_fit(size):
                held.append(memlimits.allocate(size))
        with memlimits.budget("part") as part:
            assert memlimits.would_fit(1000).blocked_by == refused_by(1000) == "limit"
            assert part.active == 0
            del held[0]
            blocks = [memlimits.allocate(1000) for _ in range(4)]
            assert part.active == 4 * 1024
            blocks.clear()
            assert part.active == 0
        assert memlimits.would_fit(1000)
        pieces.append(memlimits.allocate(1000))
        """
    )


@pytest.mark.core
def test_what_is_charged_is_no_piece_of_the_threads_own_slabs(strict):
    """Near the limit, where idle memory is looked for. Who frees such a piece asks no account."""
    own_the_heap()
    plain = memlimits.allocate(100)
    rest = leave(2 * PAGE)
    with memlimits.budget("b") as budget:
        block = memlimits.allocate(100)
        assert budget.active == 128
        block.release()
        assert budget.active == 0
        filled = memlimits.allocate(2 * PAGE)
        assert not memlimits.would_fit(100)
        with pytest.raises(memlimits.MemoryLimitError):
            memlimits.allocate(100)
    assert memlimits.would_fit(100)
    assert memlimits.allocate(100).nbytes == plain.nbytes
    del rest, filled


@pytest.mark.core
def test_what_is_charged_is_no_piece_of_them_below_a_peak_either(strict):
    """There is headroom then: heaps need not stop to find one."""
    own_the_heap()
    plain, idle = memlimits.allocate(100), memlimits.allocate(MIB)
    rest = leave(0)
    idle.release()
    with memlimits.budget("b") as budget:
        memlimits.allocate(100).release()
        assert budget.active == 0
    del plain, rest


@pytest.mark.core
def test_what_was_charged_once_is_had_again_for_nothing(strict):
    """By threads that are not charged: a whole resource, a piece of a slab, and a former slab."""
    with memlimits.budget("b") as budget:
        memlimits.allocate(MIB).release()
    in_thread(memlimits.allocate(MIB).release)
    assert budget.active == 0

    with budget:
        first, second = (memlimits.allocate(7000) for _ in range(2))
    first.release()
    with leave(0):
        memlimits.allocate(7000).release()
        assert budget.active == charge_for(7000)
        second.release()
        assert budget.active == 0
        misses = memory.counters()["misses"]
        plain = memlimits.allocate(64 * KIB)
        assert memory.counters()["misses"] == misses
        in_thread(plain.release)
        assert budget.active == 0


@pytest.mark.host
def test_slabs_take_their_lists_of_accounts_along():
    run("""
        def churn(times):
            with memlimits.budget("b"):
                for _ in range(times):
                    memlimits.allocate(64).release()
                    memlimits.clear_cache()

        churn(100)
        before = proc("VmData")
        churn(1000)     # 8 KiB each
        assert proc("VmData") - before < 4 * MIB
    """)


@pytest.mark.core
def test_a_child_is_charged_to_its_parents():
    with memlimits.budget("outer") as outer:
        with memlimits.budget("inner") as inner:
            block = memlimits.allocate(MIB)
        other = memlimits.allocate(2 * MIB)
        assert (outer.active, inner.active) == (3 * MIB, MIB)
    del block, other
    assert (outer.active, outer.peak, inner.active, inner.peak) == (0, 3 * MIB, 0, MIB)


def test_numpys_arrays_are_charged(govern):
    with memlimits.budget("arrays") as budget:
        array = np.ones(1000)
        assert budget.active == charge_for(8000)
        array.resize(100_000, refcheck=False)
        assert budget.active == charge_for(800_000)
        array.resize(1, refcheck=False)
        assert budget.active == 64
        other = memlimits.zeros(1000)
        assert budget.active == 64 + charge_for(8000)
        assert not other.any()
    del array, other
    assert budget.active == 0


def test_an_array_resized_outside_is_not_charged_any_more(govern):
    with memlimits.budget("arrays") as budget:
        array = np.ones(100_000)
    array.resize(1_000_000, refcheck=False)
    assert budget.active == 0
    assert (array[:100_000] == 1).all()


def test_an_array_resized_inside_stays_within_the_limit(govern):
    array = np.ones(100_000)
    with memlimits.budget("arrays", limit=MIB) as budget:
        with pytest.raises(MemoryError):
            array.resize(1_000_000, refcheck=False)
        refusal = memlimits.last_refusal()
        assert (refusal.blocked_by, refusal.budget) == ("budget", "arrays")
        assert budget.active == 0
    assert array.sum() == 100_000


@pytest.mark.core
def test_what_is_refused_makes_no_peak(strict):
    with memlimits.budget("outer") as outer, memlimits.budget("inner") as inner:
        block = memlimits.allocate(MIB)
        with pytest.raises(memlimits.MemoryLimitError):
            memlimits.allocate(64 * MIB)
        assert (outer.peak, inner.peak) == (MIB, MIB)
    assert block.nbytes


@pytest.mark.core
def test_other_threads_are_not_charged():
    with memlimits.budget("mine") as budget:
        block = in_thread(lambda: memlimits.allocate(MIB))
        assert budget.active == 0
    assert block.nbytes == MIB


def test_c_code_without_the_gil_is_not_charged(blocks):
    with memlimits.budget("mine") as budget:
        address = blocks.make(MIB)  # ctypes drops the GIL
        assert budget.active == 0
    assert holds(address, MIB)


def test_async_tasks_are_charged_for_their_own():
    async def task(name, n):
        with memlimits.budget(name) as budget:
            block = memlimits.allocate(n * MIB)
            await asyncio.sleep(0.001)
            with memlimits.budget("deeper"):
                more = memlimits.allocate(MIB)
                await asyncio.sleep(0.001)
            assert budget.active == (n + 1) * MIB
            del block, more
            return budget.peak

    async def main():
        with memlimits.budget("all") as everything:
            peaks = await asyncio.gather(*(task(f"task {n}", n) for n in range(1, 6)))
            assert peaks == [(n + 1) * MIB for n in range(1, 6)]
        return everything.peak

    assert asyncio.run(main()) == 20 * MIB


@pytest.mark.core
def test_a_task_started_inside_goes_on_being_charged():
    with memlimits.budget("requests") as budget:
        context = contextvars.copy_context()
    block = context.run(memlimits.allocate, MIB)
    assert budget.active == MIB
    del block
    assert budget.active == 0


@pytest.mark.core
def test_the_same_name_is_the_same_budget():
    blocks = []

    def part():
        with memlimits.budget("shared", limit=4 * MIB):
            blocks.append(memlimits.allocate(3 * MIB // 2))

    run_threads(part, part)
    with memlimits.budget("shared") as budget:
        assert budget.active == 3 * MIB
        with pytest.raises(memlimits.MemoryLimitError, match="the budget 'shared'"):
            memlimits.allocate(2 * MIB)
    with memlimits.budget("around"), memlimits.budget("shared") as another:
        assert another.active == 0


@pytest.mark.core
def test_a_budget_that_served_twice_goes_with_its_object():
    budget = memlimits.budget("twice", limit=MIB)
    for _ in range(2):
        with budget:
            memlimits.allocate(MIB).release()
    assert budget.peak == MIB
    del budget
    with memlimits.budget("twice") as another:
        assert another.peak == 0
        assert memlimits.allocate(2 * MIB).nbytes


def test_a_thousand_budgets_are_remembered():
    run("""
        def use(n):
            with memlimits.budget(f"budget {n}"):
                pass

        for n in (*range(1000), 0, *range(1000, 1200)):
            use(n)
        names = {budget["name"] for budget in memory.budgets()}
        assert names == {f"budget {n}" for n in (0, *range(201, 1200))}, sorted(names)
    """)


@pytest.mark.core
def test_threads_charge_the_same_budget_and_never_pass_its_limit():
    limit = MIB
    refused = []

    def part(seed):
        with memlimits.budget("contended", limit=limit) as budget:
            held = []
            for i in range(400):
                n = (i * seed * 7919) % (MIB // 2) + 1
                try:
                    held.append(memlimits.allocate(n))
                except memlimits.MemoryLimitError as error:
                    refused.append(error.budget_active + charge_for(n))
                assert budget.active <= limit
                if len(held) > 5:
                    held.pop(i % 5).release()

    run_threads(*(lambda seed=seed: part(seed) for seed in (1, 2, 3, 5)))
    (budget,) = (b for b in memory.budgets() if b["name"] == "contended")
    assert budget["active"] == 0
    assert budget["peak"] <= limit
    assert refused
    assert min(refused) > limit


# ---- reservations ----


@pytest.fixture
def strict():
    memlimits.clear_cache()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(memlimits.get_active_memory() + 64 * MIB)


def refusal_elsewhere(n):
    def ask():
        try:
            memlimits.allocate(n)
        except memlimits.MemoryLimitError as error:
            return error.blocked_by

    return in_thread(ask)


@pytest.mark.core
def test_reserved_room_is_the_threads_own(strict):
    with memlimits.reserve(40 * MIB) as reservation:
        assert refusal_elsewhere(30 * MIB) == "reservation"
        assert refusal_elsewhere(20 * MIB) is None
        with memlimits.allocate(40 * MIB):
            assert reservation.remaining == 0
        # What is freed inside can be had again.
        assert refusal_elsewhere(30 * MIB) == "reservation"
        held = memlimits.allocate(30 * MIB)
    assert reservation.remaining == 0
    assert refusal_elsewhere(30 * MIB) is None
    assert held.nbytes == 30 * MIB


@pytest.mark.core
def test_a_reservation_ends_with_the_thread_that_did_not_leave_it(strict):
    blocks = []

    def forget():
        reservation = memlimits.reserve(40 * MIB).__enter__()
        blocks.append(memlimits.allocate(MIB))
        assert reservation.remaining == 39 * MIB
        assert memory.counters()["reserved"] == 39 * MIB

    in_thread(forget)
    assert memory.counters()["reserved"] == 0
    assert memlimits.would_fit(63 * MIB)
    blocks.clear()
    assert memory.counters()["reserved"] == 0


@pytest.mark.core
def test_idle_memory_is_no_room_for_others(strict):
    """It serves their requests as long as the reserved bytes are there besides it."""
    memlimits.allocate(60 * MIB).release()
    with memlimits.reserve(40 * MIB):
        assert memory.counters()["footprint"] <= 24 * MIB
        assert memlimits.allocate(40 * MIB).nbytes


@pytest.mark.core
def test_threads_that_race_for_room_never_get_what_is_reserved(strict):
    done = threading.Event()

    def others():
        while not done.is_set():
            for n in (3, 7, 11):
                with suppress(memlimits.MemoryLimitError):
                    memlimits.allocate(n * MIB).release()

    def owner():
        try:
            for _ in range(50):
                with memlimits.reserve(48 * MIB):
                    blocks = [memlimits.allocate(8 * MIB) for _ in range(6)]
                    del blocks
        finally:
            done.set()

    memlimits.set_memory_policy("wait", timeout=20)
    run_threads(owner, others, others)


@pytest.mark.core
def test_a_reservation_waits_under_wait(strict):
    memlimits.set_memory_policy("wait", timeout=20)
    held = [memlimits.allocate(40 * MIB)]

    def free():
        while memory.counters()["waiting"] == 0:
            pass
        held.clear()

    def reserve():
        with memlimits.reserve(50 * MIB):
            assert memlimits.would_fit(50 * MIB)

    run_threads(free, reserve)


def test_what_is_reserved_counts_towards_the_systems_room():
    """The policy lets others pass the limit; but not what the system would need."""
    run("""
        # Not above what is available now.
        room = proc("MemAvailable", "/proc/meminfo")
        with memlimits.reserve(room // 4 * 3) as reservation:
            assert refused_by(0) is None
            answer = []
            thread = threading.Thread(target=lambda: answer.append(refused_by(room // 2)))
            thread.start()
            thread.join()
            assert answer == ["system"], answer
            assert reservation.remaining == room // 4 * 3
    """)


@pytest.mark.core
def test_more_than_the_limit_cannot_be_reserved(strict):
    before = memory.counters()
    for policy in ("strict", "guideline", "wait"):
        memlimits.set_memory_policy(policy)
        with pytest.raises(memlimits.MemoryLimitError) as caught, memlimits.reserve(65 * MIB):
            pass
        assert caught.value.blocked_by == "limit"
    after = memory.counters()
    assert after.pop("refusals") == before.pop("refusals") + 3
    assert after == before


# ---- would it fit ----


@pytest.mark.core
def test_would_fit_says_what_blocks(strict):
    assert memlimits.would_fit(64 * MIB)
    answer = memlimits.would_fit(65 * MIB)
    assert not answer
    assert (answer.nbytes, answer.blocked_by) == (65 * MIB, "limit")
    assert memlimits.would_fit(1 << 62).blocked_by == "length"
    with memlimits.budget("b", limit=MIB):
        assert memlimits.would_fit(2 * MIB).blocked_by == "budget"
    with memlimits.budget("b", limit=0):
        assert memlimits.would_fit(0)
        assert memlimits.allocate(0).nbytes == 0
    with memlimits.reserve(60 * MIB):
        assert memlimits.would_fit(60 * MIB)
        answer = in_thread(lambda: memlimits.would_fit(5 * MIB))
        assert answer.blocked_by == "reservation"
    assert memlimits.would_fit(0)
    with pytest.raises(AttributeError):
        answer.nbytes = 1


@pytest.mark.core
def test_would_fit_takes_nothing(strict):
    held = memlimits.allocate(40 * MIB)
    before = memory.counters()
    for n in (1, 100, MIB, 24 * MIB, 25 * MIB, 1 << 50):
        memlimits.would_fit(n)
    assert memory.counters() == before
    assert held.nbytes


# ---- bad input ----


@pytest.mark.parametrize(
    ("name", "limit", "error", "message"),
    [
        (7, None, TypeError, "name must be a string, not 7"),
        (b"kv", None, TypeError, "name must be a string, not b'kv'"),
        ("", None, ValueError, "name must be of 1 to 127 bytes"),
        ("x" * 128, None, ValueError, "name must be of 1 to 127 bytes"),
        ("a\0b", None, ValueError, "none of them 0"),
        ("kv", -1, ValueError, "limit must be from 0 to"),
        ("kv", 2**64, ValueError, "limit must be from 0 to"),
        ("kv", 1.5, TypeError, "limit must be an integer"),
        ("kv", True, TypeError, "not the bool True"),
    ],
)
def test_what_is_no_budget(name, limit, error, message):
    with pytest.raises(error, match=message):
        memlimits.budget(name, limit)


@pytest.mark.parametrize("nbytes", [-1, 2**63, 1.0, "1", True, None])
def test_what_is_no_reservation(nbytes):
    with pytest.raises((TypeError, ValueError), match="nbytes must be"):
        memlimits.reserve(nbytes)
    with pytest.raises((TypeError, ValueError), match="nbytes must be"):
        memlimits.would_fit(nbytes)


def test_left_twice_or_never_opened():
    budget = memlimits.budget("b")
    with pytest.raises(RuntimeError, match="the budget 'b' is not open"):
        budget.close()
    with budget, pytest.raises(RuntimeError, match="is open already"):
        budget.__enter__()
    with pytest.raises(RuntimeError, match="the budget 'b' is not open"):
        budget.close()
    with budget:
        pass


def test_left_out_of_order():
    outer, inner = memlimits.budget("outer"), memlimits.reserve(MIB)
    with outer, inner:
        with pytest.raises(RuntimeError, match="the budget 'outer' is not the innermost"):
            outer.close()
        assert inner.remaining == MIB


def test_left_on_another_thread():
    def close():
        for call in (lambda close: close(), context.run):
            with pytest.raises(RuntimeError, match="'b' was opened in another thread or task: lea"):
                call(budget.close)

    with memlimits.budget("b") as budget:
        context = contextvars.copy_context()
        in_thread(close)
        block = memlimits.allocate(MIB)
        assert budget.active == MIB
    assert block.nbytes


def test_ten_thousand_nested_budgets_are_refused_and_leave_nothing():
    opened = []

    def nest():
        for i in range(10_000):
            opened.append(memlimits.budget(f"budget {i}"))
            opened[-1].__enter__()

    with pytest.raises(RuntimeError, match="nest at most 100 deep"):
        nest()
    opened.pop()
    assert len(opened) == 100
    block = memlimits.allocate(MIB)
    assert all(budget.active == MIB for budget in opened)
    block.release()
    while opened:
        opened.pop().close()
    assert memlimits.allocate(MIB).nbytes == MIB


@pytest.mark.host
def test_a_forked_child_goes_on_in_its_budget():
    run("""
        with memlimits.budget("b", limit=4 * MIB) as budget:
            held = memlimits.allocate(MIB)
            child = os.fork()
            if child == 0:
                assert budget.active == MIB
                assert refused_by(4 * MIB) == "budget"
                held.release()
                assert budget.active == 0
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """)
