"""Budgets and reservations after any sequence of calls, against a plain model."""

import contextvars

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import memlimits
from memlimits import memory
from support.accounts import charge_for, own_the_heap
from support.threads import in_thread
from support.units import KIB, MIB, PAGE

LIMIT = 8 * MIB


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
