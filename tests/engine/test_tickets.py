"""Tickets: what a library is admitted to hold that has its memory from elsewhere."""

import os
import threading
import time

import pytest

import memlimits
from memlimits import _modules, memory
from support.accounts import refusal_elsewhere
from support.members import MIB, facts, members
from support.patience import until, until_one_waits
from support.process import run
from support.threads import in_thread, run_threads

pytestmark = [pytest.mark.host, pytest.mark.inside]


@pytest.fixture
def tickets():
    """The module; afterwards nothing is noted, and none is open."""
    module = _modules.for_admissions()
    yield module
    module.note(0, 0, 0)
    counters = memory.counters()
    assert (counters["mlx_tickets"], counters["mlx_active"]) == (0, 0)


def refusal(ticket):
    try:
        ticket.open()
    except memlimits.MemoryLimitError as error:
        return error
    return None


def admitted():
    return memory.counters()["mlx_tickets"] / MIB


@pytest.mark.core
def test_tickets_add_up_within_the_memory_limit(strict, tickets):
    one, other, third = (tickets.Admission(n * MIB) for n in (40, 30, 20))
    assert one.open()
    assert admitted() == 40
    error = refusal(other)
    assert (error.blocked_by, error.requested, error.mlx) == ("limit", 30 * MIB, 40 * MIB)
    assert "for MLX 40 MiB (" in str(error)
    assert third.open()
    assert admitted() == 60
    assert one.close()
    assert other.open()
    assert other.close()
    assert third.close()
    assert admitted() == 0


@pytest.mark.parametrize("count", ["given", "resident", "process"])
def test_what_is_admitted_nobody_else_gets(tickets, count):
    before = memlimits.get_memory_count()
    memlimits.set_memory_policy("strict")
    stats = memlimits.stats()
    held = stats.active
    if count == "process":
        held = stats.process_resident - stats.process_files + stats.process_swap
    memlimits.set_memory_limit(held + 64 * MIB)
    memlimits.set_memory_count(count)
    try:
        one = tickets.Admission(40 * MIB)
        assert one.open()
        assert memlimits.would_fit(40 * MIB).blocked_by == "limit"
        assert refusal_elsewhere(40 * MIB) == "limit"
        assert refusal_elsewhere(8 * MIB) is None
        assert one.close()
        assert refusal_elsewhere(40 * MIB) is None
    finally:
        memlimits.set_memory_count(before)


@pytest.mark.core
def test_idle_memory_goes_for_a_ticket(strict, tickets):
    memlimits.allocate(60 * MIB).release()
    one = tickets.Admission(40 * MIB)
    assert one.open()
    assert memory.counters()["footprint"] <= memlimits.get_memory_limit() - 40 * MIB
    assert one.close()


def test_the_sentence_of_a_refusal_has_what_is_admitted():
    pytest.importorskip("numpy")
    run("""
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("strict")
        one = memlimits._modules.for_admissions().Admission(40 * MIB)
        one.open()
        np = __import__("numpy")
        with memlimits.govern_numpy():
            try:
                np.ones(40 * MIB, np.uint8)
            except MemoryError as error:
                (note,) = error.__notes__
                assert ", in use 0 B, for MLX 40 MiB" in note, note
            else:
                raise AssertionError
        """)


@pytest.mark.core
def test_of_a_group_the_largest_counts(strict, tickets):
    small, large, other = (
        tickets.Admission(n * MIB, group) for n, group in ((20, "a"), (50, "a"), (20, "b"))
    )
    plain = tickets.Admission(10 * MIB)
    for ticket, after in ((small, 20), (large, 50), (plain, 60)):
        assert ticket.open()
        assert admitted() == after
    assert refusal(other).blocked_by == "limit"
    assert large.close()
    assert admitted() == 30
    assert other.open()
    assert admitted() == 50
    for ticket, after in ((small, 30), (plain, 20), (other, 0)):
        assert ticket.close()
        assert admitted() == after


@pytest.mark.core
def test_what_the_library_holds_is_covered_by_its_tickets(strict, tickets):
    one = tickets.Admission(40 * MIB)
    assert one.open()
    tickets.note(20 * MIB, 10 * MIB, 25 * MIB)
    assert refusal_elsewhere(20 * MIB) is None
    tickets.note(50 * MIB, 10 * MIB, 60 * MIB)
    assert refusal_elsewhere(5 * MIB) == "limit"
    stats = memlimits.stats()
    assert (stats.mlx_active, stats.mlx_cache) == (50 * MIB, 10 * MIB)
    assert (stats.mlx_peak, stats.mlx_tickets) == (60 * MIB, 40 * MIB)
    assert one.close()
    assert refusal_elsewhere(5 * MIB) == "limit"
    tickets.note(10 * MIB, 0, 60 * MIB)
    assert refusal_elsewhere(50 * MIB) is None


@pytest.mark.core
def test_the_room_is_what_is_not_in_use_here(strict, tickets):
    stats = memlimits.stats()
    base, limit = stats.footprint - stats.cache, stats.memory_limit
    assert tickets.note(0, 0, 0) == (limit - base, False)
    block = memlimits.allocate(24 * MIB)
    assert tickets.note(0, 0, 0)[0] == limit - base - block.nbytes
    with memlimits.reserve(10 * MIB):
        assert tickets.note(5, 5, 5)[0] == limit - base - block.nbytes - 10 * MIB
    block.release()


@pytest.mark.core
def test_it_is_opened_and_closed_once_at_a_time(strict, tickets):
    one = tickets.Admission(MIB)
    assert not one.close()
    assert one.open()
    assert not one.open()
    assert admitted() == 1
    assert one.close()
    assert not one.close()
    assert one.open()
    assert one.close()


@pytest.mark.core
def test_one_that_is_dropped_is_closed(strict, tickets):
    assert tickets.Admission(40 * MIB).open()
    assert admitted() == 0


@pytest.mark.parametrize("policy", ["strict", "guideline", "wait"])
def test_more_than_the_limit_is_refused_at_once(strict, tickets, policy):
    memlimits.set_memory_policy(policy)
    before = memory.counters()
    start = time.monotonic()
    assert refusal(tickets.Admission(65 * MIB)).blocked_by == "limit"
    assert time.monotonic() - start < 20
    after = memory.counters()
    assert after["refusals"] == before["refusals"] + 1
    assert (after["mlx_tickets"], after["waits"]) == (0, before["waits"])


def test_more_than_the_system_has_is_refused(tickets):
    memlimits.set_memory_limit(2**63)
    before = memory.counters()["refusals"]
    for n in (2**62, 2**63 - 1):
        assert refusal(tickets.Admission(n)).blocked_by == "system"
    assert memory.counters()["refusals"] == before + 2


@pytest.mark.core
def test_it_waits_for_another(strict, tickets):
    memlimits.set_memory_policy("wait", timeout=60)
    one, other = tickets.Admission(40 * MIB), tickets.Admission(40 * MIB)
    assert one.open()

    def close():
        until_one_waits()
        assert tickets.note(0, 0, 0)[1]
        assert one.close()

    run_threads(close, other.open)
    assert admitted() == 40
    assert other.close()


@pytest.mark.core
def test_its_own_time_holds(strict, tickets):
    memlimits.set_memory_policy("wait", timeout=60)
    one = tickets.Admission(40 * MIB)
    assert one.open()
    start = time.monotonic()
    assert refusal(tickets.Admission(40 * MIB, None, 0)).waited == 0
    error = refusal(tickets.Admission(40 * MIB, None, 0.2))
    assert error.blocked_by == "limit"
    assert error.waited >= 0.2
    assert time.monotonic() - start < 30
    assert one.close()


@pytest.mark.core
def test_who_has_one_is_before_who_has_none(strict, tickets):
    """Else the latter would wait for what the former gives back only after it was served."""
    memlimits.set_memory_policy("wait", timeout=60)
    first, more, large, small = (tickets.Admission(n * MIB) for n in (20, 10, 50, 30))
    order = []

    def holder():
        assert first.open()
        assert small_is_open.wait(60)
        until_one_waits()
        assert more.open()
        order.append("more")
        assert more.close()
        assert first.close()

    def stranger():
        assert small.open()
        small_is_open.set()
        until(lambda: memory.counters()["waiting"] == 2)
        assert small.close()

    def waiter():
        assert small_is_open.wait(60)
        assert large.open()
        order.append("large")
        assert large.close()

    small_is_open = threading.Event()
    extra = tickets.Admission(10 * MIB)
    assert extra.open()
    run_threads(holder, stranger, waiter)
    assert order == ["more", "large"]
    assert extra.close()


@pytest.mark.core
def test_threads_that_race_never_have_more_than_the_limit(strict, tickets):
    memlimits.set_memory_policy("wait", timeout=60)
    most = memlimits.get_memory_limit() - memlimits.get_active_memory()
    held, highest, lock = [0], [0], threading.Lock()

    def work(n):
        for _ in range(30):
            ticket = tickets.Admission(n * MIB)
            ticket.open()
            with lock:
                held[0] += n * MIB
                highest[0] = max(highest[0], held[0])
            with lock:
                held[0] -= n * MIB
            ticket.close()

    def allocate():
        for _ in range(100):
            memlimits.allocate(9 * MIB).release()

    run_threads(*(lambda n=n: work(n) for n in (20, 30, 40)), allocate)
    assert 0 < highest[0] <= most


def test_a_signals_exception_ends_its_wait():
    run("""
        from memlimits import _modules
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", 60)
        tickets = _modules.for_admissions()
        one, other = tickets.Admission(40 * MIB), tickets.Admission(40 * MIB)
        assert one.open()
        def handler(number, frame):
            raise KeyError("signal")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            other.open()
        except KeyError:
            counters = memory.counters()
            assert (counters["mlx_tickets"], counters["refusals"]) == (40 * MIB, 0)
        else:
            raise AssertionError
        assert one.close() and other.open() and other.close()
        """)


def test_a_forked_child_has_none(strict, tickets):
    one = tickets.Admission(40 * MIB)
    assert one.open()
    tickets.note(MIB, MIB, MIB)
    pid = os.fork()
    if pid == 0:
        counters = memory.counters()
        none = counters["mlx_tickets"] == counters["mlx_active"] == 0
        other = tickets.Admission(60 * MIB)
        well = none and other.open() and one.close() and admitted() == 60 and other.close()
        os._exit(0 if well and admitted() == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert admitted() == 40
    assert one.close()


def test_a_scope_that_lowers_the_limit_leaves_those_that_are_open(strict, tickets):
    one = tickets.Admission(40 * MIB)
    assert one.open()
    with memlimits.limits(memory=16 * MIB):
        assert refusal(tickets.Admission(MIB)).blocked_by == "limit"
        assert in_thread(lambda: one.close())
    assert admitted() == 0


# ---- in a pool ----


OPEN = "globals().update(m=__import__('memlimits._modules')._modules.for_admissions())"


@pytest.fixture
def two(pool):
    with members(pool, 2) as processes:
        for member in processes:
            member.ask(OPEN)
        yield processes


def opened(n):
    return f"globals().update(t=m.Admission({n} * MIB)) or t.open()"


def test_processes_share_what_they_admit(two):
    one, other = two
    for member in two:
        member.join()
    assert one.ask(opened(40)) is True
    assert facts(one.pid)["used"] == 40 * MIB
    assert "MemoryLimitError" in other.ask(opened(40))
    assert "MemoryLimitError" in other.ask(opened("2**63 // MIB - 1"))
    assert other.ask("take(40 * MIB)") == "pool"
    assert other.ask("memlimits.last_refusal().others") == 40 * MIB
    assert one.ask("t.close()") is True
    assert facts(one.pid)["used"] == 0
    assert other.ask(opened(40)) is True
    assert facts(other.pid)["refusals"] == 3


def test_a_process_waits_for_anothers(two):
    one, other = two
    for member in two:
        member.join(policy="wait", timeout=60)
    assert one.ask(opened(40)) is True
    other.tell(opened(40))
    until(lambda: facts(other.pid)["waiting_for"] == 40 * MIB)
    assert one.ask("m.note(0, 0, 0)[1]") is True
    assert one.ask("t.close()") is True
    assert other.hear() is True


def test_what_a_killed_one_was_admitted_comes_back(two):
    one, other = two
    for member in two:
        member.join(policy="wait", timeout=60)
    assert one.ask(opened(40)) is True
    other.tell(opened(40))
    until(lambda: facts(other.pid)["waiting_for"] == 40 * MIB)
    one.process.kill()
    assert other.hear() is True
    assert len(facts()["members"]) == 1


def test_what_a_library_holds_counts_in_the_pool(two):
    one, other = two
    for member in two:
        member.join()
    room = one.ask("m.note(20 * MIB, 10 * MIB, 20 * MIB)[0]")
    assert room == 64 * MIB
    assert facts(one.pid)["used"] == 30 * MIB
    assert other.ask("take(40 * MIB)") == "pool"
    assert other.ask("take(30 * MIB)") == "ok"
    assert one.ask("m.note(20 * MIB, 10 * MIB, 20 * MIB)[0]") == 34 * MIB
    # It cannot be refused.
    one.ask("m.note(40 * MIB, 0, 40 * MIB)")
    assert facts(one.pid)["used"] == 40 * MIB
    assert other.ask("take(4096)") in ("pool", "ok")
    one.ask("m.note(MIB, 0, 40 * MIB)")
    assert facts(one.pid)["used"] == MIB


def test_who_joins_and_leaves_takes_its_tickets_along(two):
    one, other = two
    assert one.ask(opened(40)) is True
    one.join()
    other.join()
    assert facts(one.pid)["used"] == 40 * MIB
    assert other.ask("take(40 * MIB)") == "pool"
    assert one.ask("memlimits.pools.Membership('p').leave()") is None
    assert other.ask("take(40 * MIB)") == "ok"
    assert one.ask("t.close()") is True
