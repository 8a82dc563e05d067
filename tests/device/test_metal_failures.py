"""Whatever of Metal's and the system's fails as it may, what was made is gone again."""

import re

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits._device.device import Device
from support.metal import count, fail, stand_in
from support.places import TESTS
from support.units import MIB

pytestmark = [
    pytest.mark.inside,
    pytest.mark.core,
    pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal"),
    pytest.mark.filterwarnings("ignore:.*kept resident:RuntimeWarning"),
]

CALLS = (TESTS / "fake_metal" / "calls.h").read_text()
MAY_FAIL = re.findall(r'^CALL_MAY_FAIL\("(.*)"\)$', CALLS, re.MULTILINE)
GAUGES = ("objects", "devices", "buffers", "sets", "resident_bytes", "host_rights")


def use_everything():
    allocator = Allocator(Device(), residency_set_cap=2 * MIB)
    allocator.set_wired_limit(64 * MIB)
    held = [allocate_in(allocator, n) for n in (100, MIB, 3 * MIB, 5 * MIB)]
    held.pop(1).release()
    allocator.set_wired_limit(0)
    held.append(allocate_in(allocator, 20 * MIB, zeroed=True))


@pytest.mark.parametrize("nth", [1, 2, 3, -1, -2])
@pytest.mark.parametrize("name", MAY_FAIL)
def test_nothing_is_left_behind(name, nth):
    before = [count(gauge) for gauge in GAUGES]
    fail(name, nth)
    try:
        use_everything()
    except (memlimits.DeviceError, MemoryError):
        pass
    finally:
        fail(name, 0)
    assert [count(gauge) for gauge in GAUGES] == before


def test_a_name_that_cannot_be_read():
    fail("UTF8String", -1)
    try:
        info = Device().info()
    finally:
        fail("UTF8String", 0)
    assert info["device_name"] == info["architecture"] == "unknown"
