"""A control group that is raised, lowered or left while a program runs: what is now holds."""

from textwrap import dedent

import pytest

from support.cgroup import (
    UNIFIED,
    V1,
    inside,
    needs_groups,
    needs_namespace,
    nested,
    recorded,
    set_limit,
)
from support.process import run
from support.units import MIB

pytestmark = pytest.mark.host

# With `resize`, which takes MiB.
FACTS = """
    def facts():
        info = memlimits.device_info()
        return info["memory_size"] // MIB, memlimits.get_memory_limit() // MIB

    def expected(size):
        return size, int(min(1.5 * 0.75, 0.95) * size)
"""


def resizing(group):
    return f"""
    def resize(n):
        with open({str(group / "memory.limit_in_bytes")!r}, "w") as file:
            file.write(str(n * MIB))
    {FACTS}
    """


def run_resized(script, size=400):
    with nested() as (group,):
        set_limit(group, size * MIB)
        run(dedent(resizing(group)) + dedent(script), words=inside(group))


@needs_groups
def test_sizes_and_the_default_limit_follow():
    run_resized("""
        assert facts() == expected(400)
        longest = memlimits.device_info()["max_buffer_length"]
        resize(900)
        assert facts() == expected(900)
        assert memlimits.get_cache_limit() == memlimits.get_memory_limit()
        assert memlimits.stats().memory_limit == memlimits.get_memory_limit()
        assert memlimits.device_info()["max_buffer_length"] - longest == 500 * MIB
        assert 700 * MIB < memlimits.effective_limit().nbytes < 900 * MIB
        resize(300)
        assert 200 * MIB < memlimits.effective_limit().nbytes < 300 * MIB
        assert memlimits.get_memory_limit() == int(0.95 * (300 * MIB))
        assert facts() == expected(300)
        resize(400)
        memlimits.trim(None)
        assert memlimits.get_memory_limit() == int(0.95 * (400 * MIB))
    """)


@needs_groups
@pytest.mark.parametrize("policy", ["guideline", "strict", "wait"])
@pytest.mark.parametrize("ask", ["allocate", "would_fit", "reserve", "numpy", "resize"])
def test_what_a_larger_group_has_is_given_at_once(policy, ask):
    """Also where nothing else has looked at the group since, and whatever would refuse it."""
    run_resized(f"""
        memlimits.set_memory_policy({policy!r})
        held = memlimits.allocate(100 * MIB)
        refused = memlimits.would_fit(500 * MIB).blocked_by
        assert refused in ("max_buffer_length", "limit", "system"), refused
        resize(900)
        if {ask!r} == "allocate":
            assert memlimits.allocate(500 * MIB).capacity >= 500 * MIB
        elif {ask!r} == "would_fit":
            assert memlimits.would_fit(500 * MIB)
        elif {ask!r} == "reserve":
            with memlimits.reserve(500 * MIB) as reserved:
                assert reserved.remaining == 500 * MIB
        else:
            import numpy
            with memlimits.govern_numpy():
                array = numpy.empty(100 * MIB, numpy.uint8)
                if {ask!r} == "resize":
                    array.resize(500 * MIB, refcheck=False)
                else:
                    array = numpy.empty(500 * MIB, numpy.uint8)
        assert memlimits.stats().overruns == 0
        assert memlimits.get_memory_limit() == int(0.95 * (900 * MIB))
    """)


@needs_groups
@pytest.mark.parametrize("ask", ["allocate", "resize"])
def test_a_larger_group_is_seen_where_only_the_limit_was_in_the_way(ask):
    """And not what one buffer could be long before."""
    script = f"""
        import numpy
        memlimits.set_memory_policy("strict")
        governing = memlimits.govern_numpy()
        arrays = [numpy.ones(n * MIB, numpy.uint8) for n in (60, 4)]
        resize(900)
        if {ask!r} == "allocate":
            block = memlimits.allocate(34 * MIB)
        else:
            arrays[0].resize(94 * MIB, refcheck=False)
        assert memlimits.stats().refusals == 0
        assert memlimits.get_memory_limit() == int(0.95 * (900 * MIB))
    """
    run_resized(script, size=100)


@needs_groups
def test_a_smaller_group_refuses_and_keeps_less():
    run_resized("""
        memlimits.set_memory_policy("strict")
        idle = [memlimits.allocate(16 * MIB) for _ in range(10)]
        for block in idle:
            memoryview(block)[:: 4096] = bytes(4096)
        del idle, block
        assert memlimits.get_cache_memory() == 160 * MIB
        resize(220)
        held = []
        while (blocked_by := refused_by(8 * MIB, zeroed=True)) is None:
            held.append(memlimits.allocate(8 * MIB, zeroed=True))
            memoryview(held[-1])[:: 4096] = bytes(2048)
        assert blocked_by in ("limit", "system"), blocked_by
        assert 20 <= len(held) <= 209 // 8, len(held)
        assert memlimits.get_memory_limit() == int(0.95 * (220 * MIB))
        assert memlimits.get_active_memory() + memlimits.get_cache_memory() < 220 * MIB
        held.clear()
        memlimits.trim(None)
        consistent()
    """)


@needs_groups
def test_a_limit_that_was_set_stays():
    run_resized("""
        assert facts() == expected(400)
        assert memlimits.set_memory_limit(250 * MIB) == int(0.95 * (400 * MIB))
        resize(900)
        assert facts() == (900, 250)
        assert refused_by(1000 * MIB) == "max_buffer_length"
        assert memlimits.get_memory_limit() == 250 * MIB
    """)


@needs_groups
def test_after_a_scope_the_default_follows_still():
    run_resized("""
        with memlimits.limits(memory=100 * MIB):
            resize(900)
            assert facts() == (900, 100)
        assert memlimits.get_memory_limit() == int(0.95 * (900 * MIB))
        resize(500)
        assert facts() == expected(500)
        with memlimits.limits(memory=100 * MIB):
            memlimits.set_memory_limit(50 * MIB)
            assert memlimits.get_memory_limit() == 50 * MIB
        assert facts() == expected(500)
    """)


@needs_groups
def test_the_highest_wired_limit_follows():
    run_resized("""
        resize(900)
        memlimits.set_wired_limit(0)
        try:
            memlimits.set_wired_limit(500 * MIB)
        except memlimits.WiredLimitError:
            raise AssertionError from None
        memlimits.set_wired_limit(0)
        resize(300)
        try:
            memlimits.set_wired_limit(300 * MIB)
        except memlimits.WiredLimitError as error:
            assert error.maximum == 225 * MIB
        else:
            raise AssertionError
    """)


@needs_groups
def test_a_process_that_is_moved_has_the_other_groups_limit():
    with nested("first", "second") as (top, first, second):
        set_limit(first, 500 * MIB)
        set_limit(second, 300 * MIB)
        run(
            FACTS
            + f"""
    assert facts() == expected(300)
    with open({str(first / "cgroup.procs")!r}, "w") as file:
        file.write(str(os.getpid()))
    assert facts() == expected(500)
    bounds = memlimits.effective_limit().candidates
    assert [bound.name for bound in bounds if bound.kind == "cgroup"] == [{str(first)!r}]
    with open({str(top / "cgroup.procs")!r}, "w") as file:
        file.write(str(os.getpid()))
    assert facts()[0] > 500
    """,
            words=inside(second),
        )


@needs_namespace
@pytest.mark.parametrize("version", [1, 2])
def test_recorded_groups_of_both_versions_are_followed(tmp_path, version):
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    cgroup, mountinfo = ("5:memory:/a", V1) if version == 1 else ("0::/a", UNIFIED)
    files = {f"a/{name}": str(400 * MIB)}
    words = recorded(tmp_path, cgroup, mountinfo.format(top="/"), files)
    run(
        FACTS
        + f"""
    assert facts() == expected(400)
    for size in 800, 200, 600:
        with open({str(tmp_path / "tree/a" / name)!r}, "w") as file:
            file.write(str(size * MIB))
        assert facts() == expected(size)
    """,
        words=words,
    )
