"""MLX within the limits of a process and its pool: with the real MLX, on a CPU."""

import json
import os
import subprocess
import sys

import pytest

import memlimits
from support.members import LIMIT, MIB, Member, facts
from support.patience import until
from support.process import run

pytestmark = pytest.mark.host

PRELUDE = """
        import mlx.core as mx
        from memlimits.adapters import mlx

        def take(n):
            array = mx.zeros(n, dtype=mx.uint8)
            mx.eval(array)
            return array

        def now():
            # It has no way to ask; and nobody else is to set it meanwhile.
            with mlx._lock:
                cache = mx.set_cache_limit(5)
                mx.set_cache_limit(cache)
                return mx.get_memory_limit() // MIB, cache // MIB

        def until(condition):
            end = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.001)

        def strict(limit=64 * MIB):
            memlimits.set_memory_limit(limit)
            memlimits.set_memory_policy("strict")

        def refusal(ticket):
            try:
                with ticket:
                    raise AssertionError("it began")
            except memlimits.MemoryLimitError as error:
                return error
"""


@pytest.fixture(autouse=True)
def real():
    core = pytest.importorskip("mlx.core")
    if core.metal.is_available():
        pytest.skip("these are of MLX on a CPU")


def with_mlx(script):
    run(PRELUDE + script)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    memlimits.pools.create("p", LIMIT)
    return tmp_path


@pytest.fixture
def two(pool):
    processes = [Member(pool) for _ in range(2)]
    try:
        for member in processes:
            member.ask("globals().update(mx=__import__('mlx.core').core)")
            member.ask("globals().update(mlx=__import__('memlimits.adapters.mlx').adapters.mlx)")
        yield processes
    finally:
        for member in processes:
            member.end()


def opened(n, options=""):
    return f"globals().update(t=mlx.ticket({n} * MIB{options})) or t.open()"


TAKEN = "globals().update(a=mx.zeros({} * MIB, dtype=mx.uint8)) or mx.eval(a)"


def test_its_limits_are_what_the_process_may_use():
    with_mlx("""
        own = now()
        memlimits.set_memory_limit(64 * MIB)
        with mlx.apply() as limits:
            assert now() == (64, 32), now()
            block = memlimits.allocate(40 * MIB)
            until(lambda: now() == (24, 24))
            memlimits.set_memory_limit(50 * MIB)
            until(lambda: now() == (10, 10))
            block.release()
            until(lambda: now() == (50, 32))
            assert not limits.closed and "open" in repr(limits)
        assert now() == own
        assert limits.closed and "closed" in repr(limits)
        """)


def test_they_are_never_above_its_own():
    with_mlx("""
        mx.set_memory_limit(10 * MIB)
        mx.set_cache_limit(MIB)
        with mlx.apply():
            assert now() == (10, 1)
        assert now() == (10, 1)
        """)


def test_they_are_applied_once_at_a_time():
    with_mlx("""
        own = now()
        with mlx.apply() as limits:
            try:
                mlx.apply()
            except RuntimeError as error:
                assert "applied already" in str(error)
            else:
                raise AssertionError
            limits.close()
            assert now() == own
        limits.close()
        with mlx.apply():
            pass
        """)


def test_what_it_holds_is_what_it_says():
    with_mlx("""
        strict()
        with mlx.apply():
            array = take(20 * MIB)
            until(lambda: memlimits.stats().mlx_active == mx.get_active_memory() >= 20 * MIB)
            assert refused_by(50 * MIB) == "limit"
            assert memlimits.last_refusal().mlx - 20 * MIB in range(100)
            block = memlimits.allocate(40 * MIB)
            block.release()
            del array
            until(lambda: memlimits.stats().mlx_cache == mx.get_cache_memory() >= 20 * MIB)
            stats = memlimits.stats()
            assert stats.mlx_active == mx.get_active_memory() < 100
            assert stats.mlx_peak == mx.get_peak_memory() >= 20 * MIB
        """)


def test_work_is_refused_before_it_begins():
    with_mlx("""
        strict()
        error = refusal(mlx.ticket("65MiB"))
        assert (error.blocked_by, error.requested) == ("limit", 65 * MIB)
        assert mx.get_active_memory() == 0
        stats = memlimits.stats()
        assert (stats.refusals, stats.mlx_tickets) == (1, 0)
        with mlx.ticket("40MiB"):
            array = take(39 * MIB)
            assert memlimits.stats().mlx_tickets == 40 * MIB
            assert refusal(mlx.ticket(40 * MIB)).mlx == 40 * MIB
        # It holds that still.
        assert memlimits.stats().mlx_tickets == 0
        assert refused_by(30 * MIB) == "limit"
        """)


def test_what_it_keeps_for_reuse_is_in_no_tickets_way():
    with_mlx("""
        strict(48 * MIB)
        array = take(30 * MIB)
        del array
        assert mx.get_cache_memory() >= 30 * MIB
        with mlx.ticket(20 * MIB):
            assert mx.get_cache_memory() == 0
        array = take(30 * MIB)
        with mlx.ticket(40 * MIB):  # what it holds is of the ticket
            assert memlimits.stats().mlx_tickets == 40 * MIB
        """)


def test_what_it_keeps_for_reuse_goes_to_who_waits():
    with_mlx("""
        memlimits.set_memory_limit(48 * MIB)
        memlimits.set_memory_policy("wait", 60)
        with mlx.apply():
            array = take(30 * MIB)
            del array
            until(lambda: memlimits.stats().mlx_cache >= 30 * MIB)
            block = memlimits.allocate(40 * MIB)
            assert mx.get_cache_memory() == 0
        """)


def test_of_a_group_the_largest_counts():
    with_mlx("""
        strict()
        def open(n, policy, **group):
            with_them.enter_context(mlx.ticket(n * MIB, policy, **group))
            return memlimits.stats().mlx_tickets // MIB
        with contextlib.ExitStack() as with_them:
            assert open(20, "max") == 20
            assert open(10, "max") == 20
            assert open(25, "max") == 25
            assert open(5, "max", group="other") == 30
            assert open(10, "sum") == 40
            assert open(10, "sum") == 50
            assert refusal(mlx.ticket(20 * MIB, "max", group="other")).blocked_by == "limit"
        assert memlimits.stats().mlx_tickets == 0
        """)


def test_threads_wait_for_each_others_tickets():
    with_mlx("""
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", 60)
        highest = [0]

        def work(n):
            for _ in range(5):
                with mlx.ticket(n * MIB):
                    array = take(n * MIB)
                    highest[0] = max(highest[0], mx.get_active_memory())
                    del array

        with mlx.apply():
            threads = [threading.Thread(target=work, args=(n,)) for n in (40, 30, 20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert 40 * MIB <= highest[0] <= 64 * MIB, highest
        """)


def test_bad_input():
    with_mlx("""
        before = memory.counters()
        for kind, words, arguments, options in (
            (TypeError, "nbytes must be an integer", (True,), {}),
            (TypeError, "nbytes must be an integer", (1.5,), {}),
            (TypeError, "nbytes must be an integer", (None,), {}),
            (ValueError, "nbytes must be from 0 to 2**63 - 1 bytes, not -1", (-1,), {}),
            (ValueError, "nbytes must be from 0", (2**63,), {}),
            (ValueError, "nbytes must be from 0", ("infinity",), {}),
            (ValueError, "invalid size '3 apples'", ("3 apples",), {}),
            (ValueError, "policy must be 'sum' or 'max', not 'most'", (1, "most"), {}),
            (ValueError, "policy must be 'sum' or 'max', not None", (1, None), {}),
            (ValueError, "timeout must be from 0", (1, "sum", -1), {}),
            (TypeError, "timeout must be a number", (1, "sum", "soon"), {}),
            (TypeError, "group must be a str, not 3", (1, "max"), {"group": 3}),
            (ValueError, "a group is of the policy 'max'", (1, "sum"), {"group": "a"}),
        ):
            try:
                mlx.ticket(*arguments, **options)
            except kind as error:
                assert words in str(error), error
            else:
                raise AssertionError(arguments)
        ticket = mlx.ticket("2 KiB")
        for step, words in ((ticket.close, "not open"), (ticket.open, None),
                            (ticket.open, "is open already"), (ticket.close, None),
                            (ticket.close, "the ticket for 2048 bytes is not open")):
            try:
                step()
                assert words is None, words
            except RuntimeError as error:
                assert words in str(error), error
        for pool, kind in ((3, TypeError), ("no such", ValueError), ("missing", LookupError)):
            try:
                mlx.apply(pool)
            except kind:
                pass
            else:
                raise AssertionError(pool)
        with mlx.apply():
            pass
        assert memory.counters() == before
        """)


def test_a_forked_child_begins_anew():
    with_mlx("""
        strict()
        array = take(10 * MIB)
        with mlx.apply() as limits, mlx.ticket(20 * MIB) as ticket:
            until(lambda: memlimits.stats().mlx_active == 10 * MIB)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # MLX has threads
                pid = os.fork()
            if pid == 0:
                try:
                    stats = memlimits.stats()
                    assert (stats.mlx_active, stats.mlx_tickets) == (0, 0), stats
                    with mlx.ticket(50 * MIB):
                        stats = memlimits.stats()
                        assert (stats.mlx_active, stats.mlx_tickets) == (0, 50 * MIB), stats
                        assert refusal(mlx.ticket(50 * MIB)).blocked_by == "limit"
                    ticket.close()
                    assert limits.closed
                    limits.close()
                    try:
                        mlx.apply()
                    except RuntimeError as error:
                        assert "had computed before this process was forked" in str(error)
                    else:
                        raise AssertionError
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert memlimits.stats().mlx_tickets == 20 * MIB
            memlimits.set_memory_limit(50 * MIB)
            with mlx.ticket(0):
                pass
            until(lambda: now() == (50, 32))
        """)


def test_it_ends_with_the_program():
    run("""
        from memlimits.adapters import mlx
        memlimits.set_memory_limit(64 * MIB)
        mlx.apply()
        mlx.ticket(MIB).open()
        """)


def test_two_processes_of_which_one_works_at_a_time(two):
    one, other = two
    for member in two:
        member.join(policy="wait", timeout=60)
        member.ask("globals().update(limits=mlx.apply())")
    assert one.ask(opened(40)) is None
    other.tell(opened(40))
    until(lambda: facts(other.pid)["waiting_for"] == 40 * MIB)
    assert one.ask(TAKEN.format(39)) is None
    one.ask("globals().update(a=None) or mx.synchronize()")
    assert facts(one.pid)["used"] == 40 * MIB
    one.ask("t.close()")
    assert other.hear() is None
    until(lambda: facts(one.pid)["used"] == 0)
    assert other.ask(TAKEN.format(39)) is None
    assert facts()["peak"] <= LIMIT


def test_two_processes_of_which_one_is_refused(two):
    one, other = two
    one.ask("memlimits.set_memory_policy('strict')")
    other.ask("memlimits.set_memory_policy('strict')")
    for member in two:
        assert "open" in member.ask("globals().update(limits=mlx.apply(pool='p')) or limits")
    assert one.ask(opened(40)) is None
    assert "MemoryLimitError" in other.ask(opened(40))
    assert other.ask("mx.get_active_memory()") == 0
    until(lambda: other.ask("mx.get_memory_limit()") == LIMIT - 40 * MIB)
    assert one.ask("limits.close()") is None
    assert [member["pid"] for member in facts()["members"]] == [other.pid]


def test_what_a_killed_process_was_admitted_comes_back(two):
    one, other = two
    for member in two:
        member.join(policy="wait", timeout=60)
    assert one.ask(opened(40)) is None
    assert one.ask(TAKEN.format(30)) is None
    other.tell(opened(40))
    until(lambda: facts(other.pid)["waiting_for"] == 40 * MIB)
    one.process.kill()
    assert other.hear() is None


PROGRAM = """
import mlx.core as mx
from memlimits.adapters import mlx
with mlx.apply(), mlx.ticket("20MiB"):
    array = mx.zeros(10 << 20, dtype=mx.uint8)
    mx.eval(array)
del array
mx.clear_cache()
"""


def test_the_report_tells_of_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    file = tmp_path / "report.json"
    words = [sys.executable, "-m", "memlimits", "run", "--memory-limit", "256MiB"]
    done = subprocess.run(
        [*words, "--report", str(file), str(program)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "MLX: peak 10 MiB, active " in done.stderr
    assert json.loads(file.read_text())["mlx_peak"] >= 10 * MIB


def test_top_tells_of_it(two):
    one, _ = two
    assert one.ask(opened(20)) is None
    assert one.ask(TAKEN.format(10)) is None
    assert one.ask("mlx.ticket(0).open()") is None
    found = memlimits.processes.get(one.pid)
    assert (found["mlx_active"], found["mlx_tickets"]) == (10 * MIB, 20 * MIB)
    words = [sys.executable, "-m", "memlimits", "top", "--once", str(one.pid)]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=100).stdout
    assert "MLX active 10Mi   MLX cache " in shown
    assert "MLX tickets 20Mi" in shown


def test_beside_a_governed_malloc_it_says_that_it_counts_already(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from memlimits.adapters import mlx\nmlx.apply()\n")
    words = [sys.executable, "-m", "memlimits", "run", "--govern", "all", str(program)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=100, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 1
    assert "RuntimeError: what MLX takes counts already, since malloc is governed" in done.stderr
