"""Processes whose resource limits stand in the way of mapping, locking, or opening files."""

import json
import os
import textwrap

import pytest

from support.process import execute, run

pytestmark = pytest.mark.host


def test_rlimit_as_is_a_refusal_by_the_device_and_not_the_end():
    run("""
        live = memlimits.allocate(MIB)
        limit = proc("VmSize") + 64 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        held = []
        while (blocked_by := refused_by(4 * MIB)) is None:
            held.append(memlimits.allocate(4 * MIB))
        assert blocked_by == "device", blocked_by
        assert 12 <= len(held) <= 16, len(held)
        before = memory.counters()
        assert refused_by(32 * MIB, zeroed=True) == "device"
        after = memory.counters()
        changed = {name for name in after if after[name] != before[name]}
        assert changed <= {"refusals", "cache", "footprint", "resources"}, changed
        assert after["refusals"] == before["refusals"] + 1
        held.clear()
        assert memlimits.allocate(40 * MIB).capacity == 40 * MIB
        live.release()
        consistent()
    """)


def test_rlimit_as_under_govern_numpy():
    run("""
        import numpy
        limit = proc("VmSize") + 64 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with memlimits.govern_numpy():
            held = []
            try:
                while True:
                    held.append(numpy.ones(MIB))
            except MemoryError:
                pass
            assert memlimits.last_refusal().blocked_by == "device"
            assert held
            held.clear()
            assert numpy.ones(MIB).sum() == MIB
        memlimits.clear_cache()
        consistent()
    """)


def test_overruns_that_the_device_refuses_are_not_counted():
    run("""
        memlimits.set_memory_limit(0)
        limit = proc("VmSize") + 16 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert refused_by(64 * MIB) == "device"
        assert memory.counters()["overruns"] == 0
        consistent()
    """)


@pytest.mark.core
def test_a_device_refusal_moves_no_counter():
    """With the address space used up mmap refuses; the memory limit plays no part."""
    program = (
        "import json, resource, memlimits\n"
        "from memlimits import memory\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20),) * 2)\n"
        "held = memlimits.allocate(1 << 20)\n"
        "memlimits.set_memory_limit(10)\n"
        "before = memory.counters()\n"
        "try:\n"
        "    memlimits.allocate(1 << 30)\n"
        "except memlimits.MemoryLimitError as error:\n"
        "    print(json.dumps([before, memory.counters(), error.blocked_by, error.requested]))\n"
        "del held\n"
        "memlimits.allocate(16 << 20).release()\n"
    )
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer needs the address space")
    result = execute(program, "-W", "error", check=True)
    before, after, blocked_by, requested = json.loads(result.stdout)
    assert (blocked_by, requested) == ("device", 1 << 30)
    assert after.pop("refusals") == before.pop("refusals") + 1
    assert after == before


def test_a_device_refusal_empties_the_cache_and_tries_again():
    script = """
        import resource
        import memlimits
        from memlimits import memory

        MIB = 1 << 20
        def vm_size():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * 4096

        live = memlimits.allocate(MIB)
        idle = [memlimits.allocate(24 * MIB) for _ in range(2)]
        resource.setrlimit(resource.RLIMIT_AS, (vm_size() + 16 * MIB,) * 2)
        while idle:
            idle.pop().release()
        assert memory.counters()["cache"] == 48 * MIB
        big = memlimits.allocate(56 * MIB)           # only in place of the cache
        assert memory.counters()["cache"] == 0 and big.capacity == 56 * MIB
        big.release()
        before = memory.counters()
        vm = vm_size()
        try:
            memlimits.allocate(200 * MIB)
        except memlimits.MemoryLimitError as error:
            assert error.blocked_by == "device", error.blocked_by
        else:
            raise AssertionError("not refused")
        after = memory.counters()
        expected = {**before, "cache": 0, "refusals": 1, "resources": before["resources"] - 1,
                    "footprint": before["footprint"] - 56 * MIB}
        assert after == expected, (after, expected)
        assert vm_size() <= vm - 56 * MIB + MIB
        assert memlimits.allocate(8 * MIB).capacity == 8 * MIB
        live.release()
    """
    run(script)


@pytest.mark.parametrize(("soft", "hard"), [(0, 0), (65536, 65536), (0, 131072)])
def test_an_ordinary_user_wires_what_rlimit_memlock_allows(soft, hard):
    done = run(f"""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, ({soft}, {hard}))
        as_nobody()
        assert memlimits.device_info()["wired_capacity"] == {hard}
        blocks = [memlimits.allocate(65536) for _ in range(4)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            memlimits.set_wired_limit(64 * MIB)
            blocks += [memlimits.allocate(65536) for _ in range(4)]
        assert [warning.category for warning in caught] == [RuntimeWarning], caught
        assert "{hard:,} " in str(caught[0].message) and "ulimit -l" in str(caught[0].message)
        assert memlimits.get_wired_limit() == 64 * MIB
        assert proc("VmLck") == memlimits.get_wired_memory() == {hard}
        blocks.clear()
        memlimits.clear_cache()
        assert proc("VmLck") == memlimits.get_wired_memory() == 0
        consistent()
    """)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "call",
    [
        "memlimits.set_wired_limit(MIB)",
        "memlimits.limits(wired=MIB).__enter__()",
        "memlimits.limits(wired=MIB)(id)(0)",
        "memlimits.limits(wired=MIB)(lambda: None)()",
    ],
)
def test_a_warning_names_the_programs_line(call):
    run(f"""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        as_nobody()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            here = sys._getframe()
            line = here.f_lineno + 1
            {call}
        found = [(each.filename, each.lineno) for each in caught]
        assert found == [(here.f_code.co_filename, line)], found
    """)


def test_a_failed_wire_fails_no_allocation_and_is_reported_once():
    done = run("""
        other = lock_elsewhere()
        locked = proc("VmLck")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            memlimits.set_wired_limit(MIB)
            blocks = [memlimits.allocate(256 << 10) for _ in range(3)]
            for block in blocks:
                memoryview(block)[:] = b"x" * len(block)
        assert [warning.category for warning in caught] == [RuntimeWarning], caught
        assert proc("VmLck") == locked and memlimits.get_wired_memory() == 0
        assert memory.counters()["wire_failures"] >= 1
        del block, blocks
        consistent()
    """)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("before", "wires"),
    [
        ("block = memlimits.allocate(256 << 10)", "memlimits.limits(wired=MIB).__enter__()"),
        (
            """
            memlimits.set_wired_limit(MIB)
            scope = memlimits.limits(wired=0).__enter__()
            block = memlimits.allocate(256 << 10)
            """,
            "scope.__exit__(None, None, None)",
        ),
        (
            """
            libc.munlock(other, len(other))
            memlimits.set_wired_limit(MIB)
            first, block = memlimits.allocate(MIB), memlimits.allocate(256 << 10)
            first.release()
            memlimits.clear_cache()
            assert libc.mlock(other, len(other)) == 0
            """,
            "memlimits.wire(block)",
        ),
    ],
    ids=["entered", "left", "asked"],
)
def test_whatever_fails_to_wire_reports_it(before, wires):
    done = run(
        "libc = ctypes.CDLL(None)\nother = lock_elsewhere()\n"
        + textwrap.dedent(before)
        + textwrap.dedent(f"""
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                {wires}
            assert [warning.category for warning in caught] == [RuntimeWarning], caught
            assert memory.counters()["wire_failures"] == 1
            assert not block.wired
        """)
    )
    assert done.stderr == ""


def test_what_was_asked_for_goes_first_in_what_the_system_gives():
    """At once: to what this process may lock by its limit it would fit beside the others."""
    run("""
        other = lock_elsewhere(500 << 10)
        locked = proc("VmLck")
        warnings.simplefilter("ignore")
        scratch = [memlimits.allocate(256 << 10) for _ in range(2)]
        memlimits.allocate(280 << 10).release()
        memlimits.set_wired_limit(MIB)
        assert [block.wired for block in scratch] == [True, True]
        hit = memlimits.allocate(256 << 10, wired=True)
        assert hit.wired
        assert [block.wired for block in scratch] == [False, False]
        assert proc("VmLck") - locked == memlimits.get_wired_memory() == hit.capacity == 280 << 10
        counters = memory.counters()
        assert counters["unwired_requested"] == counters["unwired_by_limit"] == 0
        assert counters["unwired_by_capacity"] == 512 << 10
    """)


def test_a_failed_wire_fails_no_allocation_where_warnings_are_errors():
    done = run(
        """
        other = lock_elsewhere()
        memlimits.set_wired_limit(MIB)
        blocks = [memlimits.allocate(256 << 10) for _ in range(3)]
        assert memlimits.get_active_memory() == sum(block.capacity for block in blocks)
        blocks.clear()
        consistent()
        """,
        "-W",
        "error",
    )
    assert done.stderr.count("Exception ignored") == 1  # not lost either


def test_failed_wires_do_not_make_each_allocation_try_everything_again():
    """Measured in calls of mlock, by the count of failures: at most a few for each block."""
    run("""
        other = lock_elsewhere()
        warnings.simplefilter("ignore")
        memlimits.set_wired_limit(MIB)
        blocks = [memlimits.allocate(256 << 10) for _ in range(200)]
        assert memory.counters()["wire_failures"] <= 3 * len(blocks), memory.counters()
    """)


def test_without_file_descriptors_allocation_goes_on():
    run("""
        memlimits.set_wired_limit(0)
        taken = take_all_descriptors()
        blocks = [memlimits.allocate(8 * MIB, zeroed=True) for _ in range(8)]
        assert memlimits.get_active_memory() == 64 * MIB
        blocks.clear()
        for fd in taken:
            os.close(fd)
        consistent()
    """)
