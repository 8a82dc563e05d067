"""`realloc` of long blocks within limits: what it takes, what it returns, what is refused."""

import pytest

import memlimits
from memlimits import memory
from memlimits._device.device import Device
from support.functions import changed, free, holds, malloc, realloc, write
from support.places import TESTS
from support.process import run
from support.units import MIB

pytestmark = pytest.mark.inside


@pytest.mark.core
@pytest.mark.host
def test_strict_lets_a_block_grow_up_to_the_limit_to_the_byte(blocks):
    memlimits.set_memory_policy("strict")
    address = blocks.make(6 * MIB)
    memlimits.set_memory_limit(memory.counters()["footprint"] + 4 * MIB)
    address = blocks.resize(address, 10 * MIB)
    assert holds(address, 6 * MIB)
    write(address, 10 * MIB)
    before = memory.counters()
    assert blocks.resize(address, 10 * MIB + 1) is None
    assert changed(before) == {"refusals": 1}
    refusal = memlimits.last_refusal()
    assert (refusal.requested, refusal.blocked_by) == (10 * MIB + 1, "limit")
    assert (refusal.active, refusal.footprint) == (before["active"], before["footprint"])
    assert holds(address, 10 * MIB)


@pytest.mark.core
def test_a_refusal_trims_nothing_and_is_counted_once(blocks):
    memlimits.set_memory_policy("strict")
    address = blocks.make(6 * MIB)
    free(malloc(3 * MIB))
    memlimits.set_memory_limit(memory.counters()["footprint"])
    before = memory.counters()
    assert blocks.resize(address, 12 * MIB) is None
    assert changed(before) == {"refusals": 1}
    assert holds(address, 6 * MIB)


@pytest.mark.core
@pytest.mark.host
def test_growth_trims_just_enough(blocks):
    memlimits.set_memory_policy("strict")
    address = blocks.make(6 * MIB)
    for other in [malloc(n * MIB) for n in (3, 4, 5)]:
        free(other)
    before = memory.counters()
    memlimits.set_memory_limit(before["footprint"])
    address = blocks.resize(address, 10 * MIB)
    assert holds(address, 6 * MIB)
    assert changed(before)["cache"] == -7 * MIB
    assert changed(before)["footprint"] == -3 * MIB


@pytest.mark.core
@pytest.mark.host
def test_guideline_counts_an_overrun(blocks):
    address = blocks.make(6 * MIB)
    before = memory.counters()
    memlimits.set_memory_limit(before["footprint"])
    assert blocks.resize(address, 10 * MIB)
    assert changed(before)["overruns"] == 1
    assert changed(before)["footprint"] == 4 * MIB


@pytest.mark.host
def test_blocks_grown_one_after_the_other_do_not_fill_the_memory():
    """None of what is idle could serve the next one, which is short at first."""
    for _ in range(20):
        address, n = malloc(4 * MIB), 4 * MIB
        while n < 64 * MIB:
            n = n * 3 // 2
            address = realloc(address, n)
        free(address)
    assert memory.counters()["footprint"] < 4 * 64 * MIB


@pytest.mark.core
def test_an_idle_block_serves_one_that_is_to_be_much_longer(blocks):
    idle = malloc(64 * MIB)
    address = blocks.make(2 * MIB)
    free(idle)
    before = memory.counters()
    assert blocks.resize(address, 64 * MIB) == idle
    assert holds(idle, 2 * MIB)
    assert {"footprint", "misses"}.isdisjoint(changed(before))


@pytest.mark.core
@pytest.mark.host
def test_what_the_system_still_counts_as_its_own_is_not_made_longer(blocks):
    free(malloc(4 * MIB))
    memlimits.set_idle_timeout(0)
    memlimits.set_idle_timeout(None)
    address = blocks.make(4 * MIB)
    before = memory.counters()
    assert holds(blocks.resize(address, 6 * MIB), 4 * MIB)
    assert changed(before)["misses"] == 1


@pytest.mark.host
def test_what_the_system_has_not_is_refused(blocks):
    address = blocks.make(4 * MIB)
    before = memory.counters()
    device = Device()
    n = (device.available() + device.info()["max_buffer_length"]) // 2
    assert blocks.resize(address, n) is None
    refusal = memlimits.last_refusal()
    assert (refusal.requested, refusal.blocked_by) == (n, "system")
    assert changed(before) == {"refusals": 1}
    assert holds(address, 4 * MIB)


@pytest.mark.host
def test_addresses_that_are_not_to_be_had_are_a_refusal_by_the_device():
    run(f"""
        sys.path.append({str(TESTS)!r})
        from support.functions import malloc, realloc
        address = malloc(40 * MIB)
        ctypes.memset(address, 7, 40 * MIB)
        limit = proc("VmSize") + 30 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = memory.counters()
        size = proc("VmSize")
        for _ in range(10):
            assert realloc(address, 80 * MIB) is None
        refusal = memlimits.last_refusal()
        assert (refusal.requested, refusal.blocked_by) == (80 * MIB, "device")
        assert memory.counters() == {{**before, "refusals": 10}}, memory.counters()
        assert all(ctypes.string_at(address + i * MIB, 9) == bytes([7] * 9) for i in range(40))
        assert proc("VmSize") < size + 4 * MIB
        assert realloc(address, 4 * MIB) == address
        longer = realloc(address, 44 * MIB)
        assert all(ctypes.string_at(longer + i * MIB, 9) == bytes([7] * 9) for i in range(4))
    """)
