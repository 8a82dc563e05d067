"""The wired limit: what is accepted, what is warned about, what VmLck then says."""

import warnings

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.blocks import private
from support.kernel import locked, needs_lockable
from support.process import execute
from support.units import KIB, MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.core]


@needs_lockable(4 * MIB)
def test_wired_limit_locks_what_lives_and_unlocks_before_it_returns():
    before = locked()
    first, second = memlimits.allocate(MIB), memlimits.allocate(2 * MIB)
    memlimits.set_wired_limit(3 * MIB)
    assert locked() == before + 3 * MIB
    memlimits.set_wired_limit(3 * MIB - 1)
    assert locked() in (before + MIB, before + 2 * MIB)
    memlimits.set_wired_limit(0)
    assert locked() == before
    assert memlimits.get_wired_memory() == 0
    first.release()
    second.release()


@needs_lockable(4 * MIB)
def test_wired_memory_is_what_the_kernel_has_locked():
    before = locked()
    memlimits.set_wired_limit(4 * MIB)
    buffers = [memlimits.allocate(size) for size in (MIB, 100_000, 200, MIB, 8 * MIB)]
    wired = memlimits.get_wired_memory()
    assert 2 * MIB < wired <= 4 * MIB
    assert locked() - before == wired
    del buffers
    memlimits.clear_cache()
    assert locked() == before


def test_a_wired_limit_above_the_maximum_is_an_error_with_both_numbers():
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    memlimits.set_wired_limit(4096)
    with pytest.raises(memlimits.WiredLimitError) as caught:
        memlimits.set_wired_limit(maximum + 1)
    assert isinstance(caught.value, ValueError)
    assert (caught.value.requested, caught.value.maximum) == (maximum + 1, maximum)
    assert f"({maximum + 1:,} bytes)" in str(caught.value)
    assert f"({maximum:,} bytes)" in str(caught.value).replace(str(maximum + 1), "")
    assert memlimits.get_wired_limit() == 4096


def test_the_highest_wired_limit_is_accepted():
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        memlimits.set_wired_limit(maximum)
    assert memlimits.get_wired_limit() == maximum


def test_a_wired_limit_above_the_capacity_warns_once_with_the_way_out():
    allocator = Allocator(Device(wired_capacity=4 * PAGE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allocator.set_wired_limit(4 * PAGE)
    with pytest.warns(RuntimeWarning) as caught:
        allocator.set_wired_limit(4 * PAGE + 1)
    (warning,) = caught
    text = str(warning.message)
    assert f"{4 * PAGE + 1:,} bytes" in text
    assert f"{4 * PAGE:,} bytes" in text
    assert "ulimit -l" in text
    assert allocator.get_wired_limit() == 4 * PAGE + 1


def test_the_warning_names_the_callers_line():
    program = (
        "import sys, warnings, memlimits\n"
        "from memlimits import memory\n"
        "from memlimits._bindings.allocator import Allocator\n"
        "from memlimits._device.device import Device\n"
        "small = Allocator(Device(wired_capacity=4096))\n"
        "memory.default_allocator = lambda: small\n"
        "def caller():\n"
        "    memlimits.set_wired_limit(4097)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    caller()\n"
        "print([warning.lineno for warning in caught])\n"
    )
    result = execute(program, check=True)
    assert result.stdout == "[8]\n"


@needs_lockable(4 * MIB)
def test_what_is_above_the_capacity_stays_unlocked():
    allocator = Allocator(Device(wired_capacity=MIB))
    before = locked()
    with pytest.warns(RuntimeWarning, match="wired_capacity"):
        allocator.set_wired_limit(64 * MIB)
    buffers = [allocate_in(allocator, 512 * KIB) for _ in range(4)]
    assert locked() == before + MIB
    assert len(buffers) * 512 * KIB == allocator.get_active_memory()


def test_above_the_maximum_is_an_error_that_names_both_numbers():
    allocator = private()
    maximum = allocator.device_info()["max_recommended_working_set_size"]
    allocator.set_wired_limit(MIB)
    with pytest.raises(memlimits.WiredLimitError) as caught:
        allocator.set_wired_limit(maximum + 1)
    assert isinstance(caught.value, ValueError)
    assert f"({maximum:,} bytes)" in str(caught.value)
    assert f"({maximum + 1:,} bytes)" in str(caught.value)
    assert allocator.get_wired_limit() == MIB


@needs_lockable(4 * MIB)
def test_above_the_capacity_is_accepted_with_one_warning_and_wires_the_capacity():
    allocator = private(wired_capacity=2 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(4)]
    with pytest.warns(RuntimeWarning, match=r"lock, 2 MiB \(2,097,152 bytes\)") as caught:
        allocator.set_wired_limit(64 * MIB)
    assert len(caught) == 1
    assert "ulimit -l" in str(caught[0].message)
    assert allocator.get_wired_limit() == 64 * MIB
    assert locked() == allocator.get_wired_memory() == 2 * MIB
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no further warning
        blocks += [allocate_in(allocator, MIB) for _ in range(4)]
    assert locked() == 2 * MIB
    allocator.set_wired_limit(0)
    assert locked() == 0


@needs_lockable(4 * MIB)
def test_what_is_above_the_capacity_is_counted_once_a_limit_and_not_warned_about_again():
    allocator = private(wired_capacity=2 * MIB)
    with pytest.warns(RuntimeWarning, match="wired_capacity"):
        allocator.set_wired_limit(16 * MIB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blocks = [allocate_in(allocator, MIB) for _ in range(2)]
        assert allocator.counters()["wire_failures"] == 0
        for expected in range(1, 6):
            blocks.append(allocate_in(allocator, MIB))
            assert allocator.counters()["wire_failures"] == expected
    with pytest.warns(RuntimeWarning, match="wired_capacity"):
        allocator.set_wired_limit(15 * MIB)
    assert allocator.counters()["wire_failures"] == 10
    assert locked() == 2 * MIB
    allocator.set_wired_limit(0)


@needs_lockable(4 * MIB)
def test_what_is_above_the_wired_limit_itself_is_no_failure():
    allocator = private(wired_capacity=4 * MIB)
    allocator.set_wired_limit(2 * MIB)
    blocks = [allocate_in(allocator, MIB) for _ in range(5)]
    assert locked() == 2 * MIB
    assert allocator.counters()["wire_failures"] == 0
    assert len(blocks) == 5
    allocator.set_wired_limit(0)
