"""The device's facts, and limits that follow, against /proc and the control groups."""

import json
import os
import platform
import resource
from pathlib import Path

import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._device.device import Device
from support.kernel import meminfo
from support.process import execute
from support.units import MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.host]

UNLIMITED = 1 << 62  # version 1 control groups write "none" as a larger number

CAP_IPC_LOCK = 1 << 14


def cgroup_limits():
    """The memory limits of this process's control group and all above it, versions 1 and 2."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split()[0], after.split()[2].split(",")
        root, mount = before.split()[3:5]
        if kind == "cgroup2":
            own = [path for _, controllers, path in groups if controllers == ""]
            name = "memory.max"
        elif kind == "cgroup" and "memory" in options:
            own = [path for _, controllers, path in groups if "memory" in controllers.split(",")]
            name = "memory.limit_in_bytes"
        else:
            continue
        for path in own:
            below = os.path.relpath(path, root)
            folder = Path(mount) if below.startswith("..") else Path(mount, below)
            for group in [folder, *folder.parents]:
                if group.is_relative_to(mount) and (group / name).exists():
                    text = (group / name).read_text().strip()
                    yield UNLIMITED if text == "max" else int(text)


@pytest.fixture(scope="module")
def memory_size():
    return min(meminfo("MemTotal"), *cgroup_limits(), UNLIMITED)


@pytest.mark.core
def test_defaults_of_a_fresh_process(memory_size):
    getters = [
        "get_memory_limit",
        "get_cache_limit",
        "get_wired_limit",
        "get_active_memory",
        "get_cache_memory",
        "get_peak_memory",
        "get_wired_memory",
    ]
    program = "import json, memlimits; print(json.dumps([getattr(memlimits, name)() "
    program += f"for name in {getters}] + [memlimits.set_memory_policy('strict')]))"
    result = execute(program, "-W", "error", check=True)
    limit = int(0.95 * memory_size)
    assert json.loads(result.stdout) == [limit, limit, 0, 0, 0, 0, 0, "guideline"]
    assert result.stderr == ""


@pytest.mark.core
def test_device_info_says_what_the_system_says(memory_size):
    info = memlimits.device_info()
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    longest = memory_size + meminfo("SwapTotal")
    assert info["backend"] == "host"
    assert info["architecture"] == os.uname().machine
    assert info["device_name"] == (models[0] if models else os.uname().machine)
    assert info["memory_size"] == memory_size
    assert info["max_recommended_working_set_size"] == int(0.75 * memory_size)
    assert info["max_buffer_length"] == longest - longest % PAGE
    assert info["resource_limit"] == int(Path("/proc/sys/vm/max_map_count").read_text())
    assert len(info) == 8


@pytest.mark.core
def test_wired_capacity_is_what_the_process_may_lock(memory_size):
    capabilities = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    )
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if capabilities & CAP_IPC_LOCK or hard == resource.RLIM_INFINITY:
        hard = memory_size
    assert memlimits.device_info()["wired_capacity"] == min(hard, memory_size)


@pytest.mark.core
def test_device_info_is_the_callers_own_dict():
    memlimits.device_info().clear()
    assert memlimits.device_info()["backend"] == "host"


@pytest.mark.core
def test_a_smaller_device_has_a_smaller_default_limit():
    allocator = Allocator(Device(memory_size=100 * MIB))
    assert allocator.get_memory_limit() == 95 * MIB
    assert allocator.device_info()["max_recommended_working_set_size"] == 75 * MIB


@pytest.mark.core
def test_the_names():
    info = memlimits.device_info()
    assert set(info) == {
        "device_name",
        "architecture",
        "memory_size",
        "max_recommended_working_set_size",
        "max_buffer_length",
        "resource_limit",
        "backend",
        "wired_capacity",
    }
    assert info["backend"] == "host"
    assert info["architecture"] == platform.machine()
    assert info["device_name"]
    cpuinfo = Path("/proc/cpuinfo").read_text()
    assert info["device_name"] in cpuinfo or info["device_name"] == info["architecture"]


@pytest.mark.core
def test_the_sizes():
    info = memlimits.device_info()
    assert 0 < info["memory_size"] <= meminfo("MemTotal")
    assert info["max_recommended_working_set_size"] == int(0.75 * info["memory_size"])
    longest = info["memory_size"] + meminfo("SwapTotal")
    assert longest - 4096 < info["max_buffer_length"] <= longest
    assert info["resource_limit"] == int(Path("/proc/sys/vm/max_map_count").read_text())


@pytest.mark.core
def test_default_limits_follow_from_the_facts():
    size = memlimits.device_info()["memory_size"]
    assert memlimits.get_memory_limit() == int(0.95 * size)
    assert memlimits.get_cache_limit() == memlimits.get_memory_limit()
    assert memlimits.get_wired_limit() == 0


@pytest.mark.core
def test_a_device_can_be_opened_smaller_but_not_larger():
    small = Device(memory_size=64 * MIB, max_buffer_length=MIB, wired_capacity=4096).info()
    assert small["memory_size"] == 64 * MIB
    assert small["max_recommended_working_set_size"] == 48 * MIB
    assert small["max_buffer_length"] == MIB
    assert small["wired_capacity"] <= 4096
    large = 1 << 62
    assert (
        Device(memory_size=large, max_buffer_length=large, wired_capacity=large).info()
        == Device().info()
    )


@pytest.mark.core
def test_available_is_what_the_system_says():
    """Between what /proc/meminfo says before and after, whichever way others change it meanwhile,
    give or take 64 MiB, and less only where a group limits."""

    def said():
        return [meminfo("MemAvailable") + meminfo("SwapFree") for _ in range(3)]

    before, available, after = said(), Device().available(), said()
    assert 0 < available <= max(before + after) + 64 * MIB
    if Device().info()["memory_size"] == meminfo("MemTotal"):
        assert available >= min(before + after) - 64 * MIB


def wired_capacity_after(prepare):
    program = f"""
        import ctypes, os, resource
        from memlimits._device.device import Device
        {prepare}
        print(Device().info()["wired_capacity"])
    """
    return int(execute(program, check=True).stdout)


AS_NOBODY = "os.getuid() or os.setresuid(65534, 65534, 65534)"


@pytest.mark.parametrize(
    ("soft", "hard"), [(0, 0), (0, 65536), (65536, 65536), (4096, 65536), (MIB + 1, MIB + 1)]
)
def test_an_ordinary_user_may_lock_up_to_the_hard_limit(soft, hard):
    hard_now = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard_now != resource.RLIM_INFINITY and hard_now < hard and os.getuid() != 0:
        pytest.skip(f"RLIMIT_MEMLOCK is {hard_now} here")
    limit = f"resource.setrlimit(resource.RLIMIT_MEMLOCK, ({soft}, {hard}))"
    assert wired_capacity_after(f"{limit}; {AS_NOBODY}") == hard


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to have CAP_IPC_LOCK")
def test_with_cap_ipc_lock_all_may_be_locked():
    capacity = wired_capacity_after("resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))")
    assert capacity == Device().info()["memory_size"]
