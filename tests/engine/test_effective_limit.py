"""How many bytes can still be had, against what is then given and refused."""

import json
import os
import sys
import textwrap

import pytest

import memlimits
from memlimits._bindings import system_info
from memlimits._device.device import Device
from support.blocks import private
from support.cgroup import (
    BATCHES,
    UNIFIED,
    inside,
    left,
    needs_groups,
    needs_namespace,
    nested,
    recorded,
    set_limit,
)
from support.kernel import meminfo
from support.process import execute, run
from support.units import GIB, MIB

pytestmark = pytest.mark.inside

# Says what is left, and has it given: what is said, and not much more.
FITS = """
    memlimits.set_memory_policy("strict")

    def exactly(tightest, more):
        told = memlimits.effective_limit()
        assert told.tightest == tightest, told
        n = told.nbytes // 4096 * 4096
        assert n > 16 * MIB, told
        assert refused_by(n + more) in ("limit", "system", "device"), told
        told = memlimits.effective_limit()      # a device's refusal returned the cache
        n = told.nbytes // 4096 * 4096
        block = memlimits.allocate(n, zeroed=True)
        left = memlimits.effective_limit()
        assert left.nbytes < more, left
        return told, block
"""


def run_fits(script, **keywords):
    run(textwrap.dedent(FITS) + textwrap.dedent(script), **keywords)


def test_the_memory_limit_is_the_tightest():
    run_fits("""
        memlimits.set_memory_limit(100 * MIB)
        held = memlimits.allocate(10 * MIB)
        small = [memlimits.allocate(100) for _ in range(3)]
        memlimits.allocate(20 * MIB).release()
        slabs = memory.counters()["footprint"] - 30 * MIB
        told, block = exactly("limit", 4096)
        assert told.nbytes == 90 * MIB - slabs, told
        assert told.name == "memory limit"
        assert [c.nbytes for c in told.candidates] == sorted(c.nbytes for c in told.candidates)
    """)


@pytest.mark.host
@pytest.mark.parametrize("which", ["AS", "DATA"])
@pytest.mark.parametrize("idle", [0, 24])
def test_a_limit_of_the_process_is_the_tightest(which, idle):
    run_fits(f"""
        idle = [memlimits.allocate(8 * MIB) for _ in range({idle} // 8)]
        mapped = proc({{"AS": "VmSize", "DATA": "VmData"}}[{which!r}])
        limit = mapped + 40 * MIB
        while idle:
            idle.pop().release()
        hard = resource.getrlimit(resource.RLIMIT_{which})[1]
        resource.setrlimit(resource.RLIMIT_{which}, (limit, hard))
        told, block = exactly("rlimit", 6 * MIB)
        assert told.name == "RLIMIT_{which}"
        assert abs(told.nbytes - (40 + {idle}) * MIB) < 5 * MIB, told
    """)


@needs_groups
@pytest.mark.host
@pytest.mark.parametrize("which", [0, 1])
def test_a_group_or_one_above_it_is_the_tightest(which):
    with nested("inner") as groups:
        set_limit(groups[which], 160 * MIB)
        if which == 1:
            set_limit(groups[0], 200 * MIB)
        run_fits(
            f"""
            touched = memlimits.allocate(20 * MIB)
            memoryview(touched)[:] = b"x" * len(memoryview(touched))
            untouched = memlimits.allocate(20 * MIB)
            idle = memlimits.allocate(16 * MIB)
            memoryview(idle)[:] = b"x" * len(memoryview(idle))
            idle.release()
            memlimits.allocate(8 * MIB).release()
            told, block = exactly("cgroup", 4 * MIB)
            assert told.name == {str(groups[which])!r}, told
            # Less the margin, what is held, and the interpreter.
            assert 80 * MIB < told.nbytes < (160 - 40) * MIB - {left(160 * MIB)}, told
            memoryview(block)[:: 4096] = bytes(len(memoryview(block)[:: 4096]))
            memoryview(untouched)[:: 4096] = bytes(len(memoryview(untouched)[:: 4096]))
            """,
            words=inside(groups[1]),
        )


@needs_groups
@pytest.mark.host
def test_a_group_may_have_any_name():
    with nested(os.fsdecode(b"\xff {}%s")) as groups:
        set_limit(groups[1], 160 * MIB)
        run(
            """
            told = memlimits.effective_limit()
            assert told.tightest == "cgroup"
            assert os.fsencode(told.name).endswith(b"/\\xff {}%s"), told
            """,
            words=("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', groups[1]),
        )


@needs_groups
@pytest.mark.host
def test_idle_memory_that_the_system_may_take_is_counted_once():
    with nested() as (group,):
        set_limit(group, 160 * MIB)
        run_fits(
            """
            idle = [memlimits.allocate(8 * MIB) for _ in range(5)]
            for block in idle:
                memoryview(block)[:] = bytes(8 * MIB)
            del idle, block
            memlimits.set_idle_timeout(0)
            memlimits.set_idle_timeout(None)
            told, block = exactly("cgroup", 4 * MIB)
            memoryview(block)[:: 4096] = bytes(len(memoryview(block)[:: 4096]))
            """,
            words=inside(group),
        )


@needs_namespace
@pytest.mark.host
def test_every_group_of_version_2_is_a_candidate(tmp_path):
    def group(limit, used, clean):
        return {
            "memory.max": limit if limit == "max" else str(limit * MIB),
            "memory.current": str(used * MIB),
            "memory.swap.max": "0",
            "memory.swap.current": "0",
            "memory.stat": f"inactive_file {clean * MIB}\nactive_file 0",
        }

    groups = {"a": group(900, 500, 100), "a/b": group("max", 400, 0), "a/b/c": group(700, 400, 10)}
    files = {f"{at}/{name}": text for at, own in groups.items() for name, text in own.items()}
    words = recorded(tmp_path, "0::/a/b/c", UNIFIED.format(top="/"), files)
    done = execute(
        """
        import json, memlimits
        told = memlimits.effective_limit()
        print(json.dumps([told.nbytes, told.tightest, told.name, told.candidates]))
        """,
        words=words,
        check=True,
    )
    nbytes, tightest, name, candidates = json.loads(done.stdout)
    root = tmp_path / "tree"
    expected = {f"{root}/a/b/c": 310, f"{root}/a": 500}
    seen = {where: n for kind, where, n in candidates if kind == "cgroup"}
    less = left(700 * MIB) + BATCHES
    assert seen == {where: n * MIB - less for where, n in expected.items()}
    assert (nbytes, tightest, name) == (310 * MIB - less, "cgroup", f"{root}/a/b/c")


def test_the_open_budgets_are_candidates():
    """Those with a limit, and not those of other threads."""
    run("""
        def budgets():
            found = memlimits.effective_limit().candidates
            return {bound.name: bound.nbytes for bound in found if bound.kind == "budget"}

        memlimits.set_memory_policy("strict")
        with memlimits.budget("outer", limit=100 * MIB):
            held = memlimits.allocate(10 * MIB)
            with memlimits.budget("free"), memlimits.budget("inner", limit=150 * MIB):
                more = memlimits.allocate(20 * MIB)
                told = memlimits.effective_limit()
                assert (told.tightest, told.name, told.nbytes) == ("budget", "outer", 70 * MIB)
                assert budgets() == {"outer": 70 * MIB, "outer/free/inner": 130 * MIB}
                assert refused_by(70 * MIB + 1) == "budget"
                memlimits.allocate(70 * MIB).release()
                seen = []
                thread = threading.Thread(target=lambda: seen.append(budgets()))
                thread.start()
                thread.join()
                assert seen == [{}]
            held = more = None
            assert budgets() == {"outer": 100 * MIB}
            held = memlimits.allocate(60 * MIB)
            with memlimits.budget("outer"):
                assert budgets() == {"outer": 40 * MIB}
        assert budgets() == {}
        # One that is lowered below what is charged to it.
        with memlimits.budget("outer", limit=50 * MIB):
            assert budgets() == {"outer": 0}
            assert memlimits.effective_limit().nbytes == 0
    """)


@pytest.mark.host
@pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's: nothing is kept back")
def test_what_is_kept_back_for_errors_is_the_memory_limits():
    run_fits("""
        memlimits.govern_python()
        memlimits.set_memory_limit(100 * MIB)
        before = memlimits.get_memory_limit() - memory.counters()["footprint"]
        told, block = exactly("limit", 128 * 1024)
        assert 6 * MIB < before - told.nbytes < 8 * MIB, (before, told)
        assert all(bound.kind != "reservation" for bound in told.candidates), told
    """)


def test_what_is_reserved_for_others_is_a_candidate():
    run("""
        def told():
            bounds = memlimits.effective_limit().candidates
            return {bound.kind: bound.nbytes // MIB for bound in bounds if bound.kind != "cgroup"}

        def elsewhere(function, *arguments):
            seen = []
            thread = threading.Thread(target=lambda: seen.append(function(*arguments)))
            thread.start()
            thread.join()
            return seen[0]

        def two():
            with memlimits.reserve(20 * MIB):
                return told(), refused_by(70 * MIB + 1), refused_by(70 * MIB), reserved_beside()

        def reserved_beside():
            return elsewhere(told)

        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(100 * MIB)
        assert "reservation" not in told() and told()["limit"] == 100
        with memlimits.reserve(30 * MIB):
            assert "reservation" not in told() and told()["limit"] == 100
            assert elsewhere(told)["reservation"] == 70
            mine, more, all, none = elsewhere(two)
            assert (mine["reservation"], mine["limit"]) == (70, 100)
            assert (more, all) == ("reservation", None)
            assert none["reservation"] == 50
            memlimits.clear_cache()
            held = memlimits.allocate(10 * MIB)
            assert "reservation" not in told() and told()["limit"] == 90
            assert elsewhere(told)["reservation"] == 70
        assert "reservation" not in told()
    """)


@needs_namespace
@pytest.mark.host
def test_the_system_keeps_what_is_reserved_for_others(tmp_path):
    machine = "MemTotal: 4096000 kB\nMemAvailable: 1024000 kB"
    words = recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=machine)
    run(
        """
        def by_the_system():
            bounds = memlimits.effective_limit().candidates
            return next(bound.nbytes for bound in bounds if bound.kind == "system")

        all = by_the_system()
        assert all == (1000 - 33) * MIB
        with memlimits.reserve(100 * MIB):
            assert by_the_system() == all
            seen = []
            thread = threading.Thread(target=lambda: seen.append(by_the_system()))
            thread.start()
            thread.join()
            assert seen == [all - 100 * MIB]
        """,
        words=words,
    )


@pytest.mark.host
def test_the_processes_own_limits_are_candidates_where_there_are_any():
    run("""
        for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            resource.setrlimit(which, (resource.RLIM_INFINITY, resource.getrlimit(which)[1]))
        def names():
            bounds = memlimits.effective_limit().candidates
            return [bound.name for bound in bounds if bound.kind == "rlimit"]
        assert names() == []
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, resource.getrlimit(which)[1]))
        assert names() == ["RLIMIT_DATA"]
    """)


@pytest.mark.core
def test_the_system_is_a_candidate():
    """Between what the system says before and after: others may take and return much meanwhile."""

    def said():
        return meminfo("MemAvailable") + meminfo("SwapFree") - 33 * MIB, Device().available()

    allocator = private()
    allocator.set_memory_limit(1 << 50)
    before = said()
    bounds = {kind: n for kind, _, n in system_info.candidates(allocator) if kind != "cgroup"}
    after = said()
    assert bounds["limit"] == 1 << 50
    if allocator.device_info()["backend"] == "host":
        assert min(before[0], after[0]) - GIB // 4 < bounds["system"]
        assert bounds["system"] < max(before[0], after[0]) + GIB // 4
    assert bounds["system"] < max(before[1], after[1]) + GIB // 4


def test_it_is_immutable_and_names_its_parts():
    told = memlimits.effective_limit()
    assert told == (told.nbytes, told.tightest, told.name, told.candidates)
    assert told.candidates[0] == (told.tightest, told.name, told.nbytes)
    with pytest.raises(AttributeError):
        told.nbytes = 0


@needs_groups
@pytest.mark.host
def test_what_cannot_be_read_now_is_as_it_was():
    with nested() as (group,):
        set_limit(group, 160 * MIB)
        run(
            """
            before = memlimits.effective_limit()
            taken = take_all_descriptors()
            told = memlimits.effective_limit()
            assert told.tightest == "system" and len(told.candidates) == 2, told
            assert abs(told.nbytes - before.nbytes) < 4 * MIB, (told, before)
            for fd in taken:
                os.close(fd)
            assert memlimits.effective_limit().tightest == "cgroup"
            consistent()
            """,
            words=inside(group),
        )
