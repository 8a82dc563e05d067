"""Memory pressure: what is read of it, and idle memory that goes back for it."""

import math

import pytest

import memlimits
from memlimits import _system
from memlimits._buffer import allocate_in
from support.blocks import private
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
from support.process import run
from support.units import MIB

needs_pressure = pytest.mark.skipif(
    _system.stall(private()) is None, reason="the system does not tell of memory pressure"
)


@pytest.mark.core
def test_the_thresholds_are_set_and_told():
    allocator = private()
    default = (32 * MIB, None)
    assert _system.set_pressure_trim(allocator, 5 * MIB, 12.5) == default
    assert _system.get_pressure_trim(allocator) == (5 * MIB, 12.5)
    assert _system.set_pressure_trim(allocator, None, None) == (5 * MIB, 12.5)
    assert _system.get_pressure_trim(allocator) == (None, None)
    assert memlimits.get_pressure_trim() == default


@pytest.mark.parametrize(
    ("available", "stall"),
    [(-1, None), (2**63, None), (1.5, None), (True, None)]
    + [(1, stall) for stall in (0, -1, 101, math.nan, True, "5")],
)
def test_bad_thresholds(calm, available, stall):
    _system.set_pressure_trim(calm, 7, 9)
    with pytest.raises((TypeError, ValueError), match=r"available|stall"):
        _system.set_pressure_trim(calm, available, stall)
    assert _system.get_pressure_trim(calm) == (7, 9)


@pytest.mark.core
def test_a_system_with_less_than_the_threshold_gets_idle_memory(calm):
    """Where far more is wanted than there is, all goes, at a slow step and in trim()."""
    idle(calm, 8, 4)
    _system.set_pressure_trim(calm, 1 << 60, None)
    assert _system.trim(calm, None) == 12 * MIB
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
    _system.set_pressure_trim(calm, 1 << 60, None)
    large = allocate_in(calm, 20 * MIB)
    blocks = [allocate_in(calm, MIB)]  # a reading, which grants 16 MiB
    large.release()
    blocks += [allocate_in(calm, n * MIB) for n in (2, 3, 4)]  # slow steps without one
    assert calm.counters()["misses"] == 5
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
            device = memlimits._device.Device()
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
            device = memlimits._device.Device()
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
        from memlimits import _system
        allocator = memory.default_allocator()
        assert _system.stall(allocator) == 30
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


@needs_namespace
@pytest.mark.host
def test_the_machines_stall_where_no_group_tells(tmp_path):
    words = recorded(tmp_path, "0::/a", UNIFIED.format(top="/"), {"a/memory.max": "max"})
    (tmp_path / "pressure").write_text(PRESSURE.format(40) + "\n")
    script = """
        from memlimits import _system
        assert _system.stall(memory.default_allocator()) == {}
    """
    bind = 'mount --bind {} /proc/pressure/memory && exec "$@"'
    over = ("sh", "-c", bind.format(tmp_path / "pressure"), "sh")
    run(script.format(40), words=(*words, *over))


@needs_pressure
@pytest.mark.core
def test_the_stall_is_a_percentage():
    assert 0 <= _system.stall(private()) <= 100


@pytest.mark.skipif(not stand_in(), reason="macOS' level, as the stand-in tells it")
def test_macos_levels(calm):
    for level, percent in ((1, 0), (2, 50), (4, 100), (-1, None)):
        with setting("pressure_level", level):
            assert _system.stall(calm) == percent
    idle(calm, 8)
    with setting("pressure_level", 2):
        _system.set_pressure_trim(calm, None, 51)
        assert _system.trim(calm, None) == 0
        _system.set_pressure_trim(calm, None, 50)
        assert _system.trim(calm, None) == 8 * MIB
