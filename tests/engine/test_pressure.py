"""Memory pressure: what is read of it, and idle memory that goes back for it."""

import errno
import json
import math
import shutil
from pathlib import Path

import pytest

import memlimits
from memlimits._bindings import system_info
from memlimits._bindings.buffer import allocate_in
from support.blocks import private, with_room
from support.cgroup import (
    UNIFIED,
    inside,
    needs_groups,
    needs_namespace,
    nested,
    recorded,
    set_limit,
)
from support.idle import idle
from support.metal import setting, stand_in
from support.process import execute, run
from support.units import MIB

pytestmark = pytest.mark.inside

needs_pressure = pytest.mark.skipif(
    system_info.stall(private()) is None, reason="the system does not tell of memory pressure"
)


@pytest.mark.core
def test_the_thresholds_are_set_and_told():
    allocator = private()
    assert allocator.device_info()["memory_size"] == 1024 * MIB
    default = (16 * MIB, None)
    assert system_info.set_pressure_trim(allocator, 5 * MIB, 12.5) == default
    assert system_info.get_pressure_trim(allocator) == (5 * MIB, 12.5)
    assert system_info.set_pressure_trim(allocator, None, None) == (5 * MIB, 12.5)
    assert system_info.get_pressure_trim(allocator) == (None, None)
    assert system_info.set_pressure_trim(allocator, 1, 100) == (None, None)
    assert system_info.get_pressure_trim(allocator) == (1, 100)
    size = memlimits.device_info()["memory_size"]
    assert memlimits.get_pressure_trim() == (min(max(size // 64, 2 * MIB), 32 * MIB), None)


@pytest.mark.parametrize(
    ("available", "stall"),
    [(-1, None), (2**63, None), (1.5, None), (True, None)]
    + [(1, stall) for stall in (0, -1, 101, math.nan, True, "5")],
)
def test_bad_thresholds(calm, available, stall):
    system_info.set_pressure_trim(calm, 7, 9)
    with pytest.raises((TypeError, ValueError), match=r"available|stall"):
        system_info.set_pressure_trim(calm, available, stall)
    assert system_info.get_pressure_trim(calm) == (7, 9)


@pytest.mark.core
def test_a_system_with_less_than_the_threshold_gets_idle_memory(calm):
    """Where far more is wanted than there is, all goes, at a slow step and in trim()."""
    idle(calm, 8, 4)
    system_info.set_pressure_trim(calm, 1 << 60, None)
    assert system_info.trim(calm, None) == 12 * MIB
    idle(calm, 4)
    block = allocate_in(calm, 20 * MIB)  # more than is granted without a reading
    counters = calm.counters()
    assert counters["cache"] == 0
    assert counters["pressure_trims"] >= 2
    assert counters["pressure_trimmed"] == 16 * MIB
    assert counters["trims"] == 0
    assert block.nbytes == 20 * MIB


@pytest.mark.core
def test_a_reading_is_acted_upon_once(calm):
    """What is idle after it was returned for pressure stays until the system is asked again."""
    with_room(calm)
    before = calm.counters()["misses"]
    system_info.set_pressure_trim(calm, 1 << 60, None)
    large = allocate_in(calm, 20 * MIB)
    blocks = [allocate_in(calm, MIB)]  # a reading, which grants 16 MiB
    large.release()
    blocks += [allocate_in(calm, n * MIB) for n in (2, 3, 4)]  # slow steps without one
    assert calm.counters()["misses"] == before + 5
    assert calm.counters()["cache"] == 20 * MIB
    blocks.append(allocate_in(calm, 40 * MIB))
    assert calm.counters()["cache"] == 0


@needs_groups
@pytest.mark.host
def test_what_the_system_may_take_anyway_goes_beside_what_it_lacks():
    with nested() as (group,):
        set_limit(group, 200 * MIB)
        run(
            """
            memlimits.set_pressure_trim(None)
            blocks = [memlimits.allocate(8 * MIB) for _ in range(10)]
            for block in blocks:
                memoryview(block)[:] = bytes(8 * MIB)
            del blocks[:5]
            memlimits.set_idle_timeout(0)
            memlimits.set_idle_timeout(None)
            del blocks, block
            from memlimits._device.device import Device
            device = Device()
            memlimits.set_pressure_trim(device.available() + 20 * MIB)
            returned = memlimits.trim(None)
            assert returned == (40 + 24) * MIB, returned
            """,
            words=inside(group),
        )


@needs_groups
@pytest.mark.host
def test_a_group_gets_as_much_as_it_lacks_and_no_more():
    with nested() as (group,):
        set_limit(group, 200 * MIB)
        run(
            """
            def used(n):
                block = memlimits.allocate(n * MIB)
                memoryview(block)[:] = bytes(n * MIB)
                return block

            memlimits.set_pressure_trim(None)
            live = used(16)
            blocks = [used(8) for _ in range(10)]
            for block in blocks:
                block.release()
                memlimits.reset_peak_memory()   # a stop
            from memlimits._device.device import Device
            device = Device()
            room = device.available()
            memlimits.set_pressure_trim(room + 20 * MIB)
            returned = memlimits.trim(None)
            assert 20 * MIB <= returned <= 32 * MIB, returned
            again = memlimits.trim(None)
            assert again <= 8 * MIB, (again, returned, room, device.available())
            assert memlimits.get_cache_memory() >= 40 * MIB
            assert bytes(live) == bytes(16 * MIB)
            counters = memory.counters()
            assert counters["pressure_trimmed"] == 80 * MIB - counters["cache"]
            """,
            words=inside(group),
        )


MACHINE = "MemTotal: 4096000 kB\nMemAvailable: 2048000 kB"


@needs_namespace
@pytest.mark.host
@pytest.mark.parametrize("size", [12, 20])  # where growth is easy, and where heaps stop for it
def test_a_slow_step_returns_as_much_as_the_system_lacks_and_no_more(tmp_path, size):
    words = recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=MACHINE)
    run(
        f"""
        memlimits.set_pressure_trim(None)
        with_room()
        blocks = [memlimits.allocate(n * MIB) for n in (4, 8, 16)]
        for block in blocks:
            block.release()
            memlimits.reset_peak_memory()
        memlimits.set_pressure_trim(2005 * MIB)
        block = memlimits.allocate({size} * MIB)        # with a reading
        counters = memory.counters()
        assert counters["cache"] == 16 * MIB, counters
        assert (counters["pressure_trims"], counters["pressure_trimmed"]) == (1, 12 * MIB)
        assert counters["trims"] == 0
        """,
        words=words,
    )


@needs_namespace
@pytest.mark.host
def test_exactly_the_threshold_is_enough(tmp_path):
    words = recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=MACHINE)
    run(
        """
        with_room()
        for n in (8, 4):
            memlimits.allocate(n * MIB).release()
            memlimits.reset_peak_memory()
        memlimits.set_pressure_trim(2000 * MIB)
        assert memlimits.trim(None) == memlimits.trim(12 * MIB) == 0
        memlimits.set_pressure_trim(2000 * MIB + 1)
        assert memlimits.trim(None) == 8 * MIB
        memlimits.set_pressure_trim(2000 * MIB)
        memlimits.set_idle_timeout(0)
        assert memlimits.trim(12 * MIB) == 0
        """,
        words=words,
    )


PRESSURE = "some avg10={}.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=90.00 avg60=0.00 total=0"


@needs_namespace
@pytest.mark.host
def test_the_stall_is_the_highest_of_the_groups(tmp_path):
    """Those of version 2 have one each; it is read in trim() and at slow steps."""
    files = {
        "a/memory.pressure": PRESSURE.format(30),
        "a/b/memory.pressure": PRESSURE.format(20),
        "a/b/c/memory.max": "max",
        "beside/memory.pressure": PRESSURE.format(80),
    }
    words = recorded(tmp_path, "0::/a/b/c", UNIFIED.format(top="/"), files)
    run(
        """
        from memlimits._bindings import system_info
        allocator = memory.default_allocator()
        assert system_info.stall(allocator) == 30
        with_room()
        memlimits.allocate(8 * MIB).release()
        memlimits.set_pressure_trim(stall=30.5)
        assert memlimits.trim(None) == 0
        memlimits.set_pressure_trim(stall=30)
        assert memlimits.trim(None) == 8 * MIB
        memlimits.allocate(8 * MIB).release()
        memlimits.allocate(33 * MIB)
        assert memory.counters()["pressure_trims"] >= 2
        assert memory.counters()["cache"] <= 33 * MIB
        """,
        words=words,
    )


def stall_in(tmp_path, files, off=(), **machine):
    """What is read in the group a/b; in the groups `off` it is the file that they give."""
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    words = recorded(tmp_path, "0::/a/b", UNIFIED.format(top="/"), files, **machine)
    for group in off:
        file = tmp_path / "tree" / group / "memory.pressure"
        file.unlink()
        file.symlink_to(off[group])
    program = """
        import json
        from memlimits import memory
        from memlimits._bindings import system_info
        print(json.dumps(system_info.stall(memory.default_allocator())))
    """
    return json.loads(execute(program, words=words, check=True).stdout)


@needs_namespace
@pytest.mark.host
def test_the_machines_stall_where_no_group_tells(tmp_path):
    files = {"a/memory.max": "max"}
    assert stall_in(tmp_path, files, pressure=PRESSURE.format(40)) == 40


@needs_namespace
@pytest.mark.host
def test_a_group_that_nobody_waits_in_is_told_from_one_that_does_not_tell(tmp_path):
    files = {"a/memory.pressure": PRESSURE.format(0)}
    assert stall_in(tmp_path, files, pressure=PRESSURE.format(40)) == 0


@needs_namespace
@pytest.mark.host
def test_where_a_groups_stall_cannot_be_read_the_machines_stands_in(tmp_path):
    files = {"a/memory.pressure/is": "a directory"}
    assert stall_in(tmp_path, files, pressure=PRESSURE.format(40)) == 40


def a_file_that_is_turned_off():
    for path in Path("/sys/class/net").glob("*/phys_*"):
        try:
            path.read_text()
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return path
    pytest.skip("no file here says what a group's says whose pressure is not counted")


@needs_namespace
@pytest.mark.host
def test_a_group_whose_pressure_is_not_counted_hides_no_other(tmp_path):
    off = a_file_that_is_turned_off()
    files = {"a/memory.pressure": PRESSURE.format(30), "a/b/memory.pressure": ""}
    assert stall_in(tmp_path, files, off={"a/b": off}) == 30
    assert stall_in(tmp_path, files, off={"a/b": off, "a": off}, pressure=PRESSURE.format(40)) == 40


@needs_pressure
@pytest.mark.core
def test_the_stall_is_a_percentage():
    assert 0 <= system_info.stall(private()) <= 100


@pytest.mark.skipif(not stand_in(), reason="macOS' level, as the stand-in tells it")
def test_macos_levels(calm):
    for level, percent in ((1, 0), (2, 50), (4, 100), (-1, None)):
        with setting("pressure_level", level):
            assert system_info.stall(calm) == percent
    idle(calm, 8)
    with setting("pressure_level", 2):
        system_info.set_pressure_trim(calm, None, 51)
        assert system_info.trim(calm, None) == 0
        system_info.set_pressure_trim(calm, None, 50)
        assert system_info.trim(calm, None) == 8 * MIB
