"""Budgets and reservations: names, limits, who is inside one, and what is left in what order."""

import asyncio
import contextvars

import pytest

import memlimits
from support.functions import holds
from support.process import run
from support.threads import in_thread, run_threads
from support.units import MIB


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


@pytest.mark.parametrize("nbytes", [-1, 2**63, 1.0, b"1", True, None])
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
