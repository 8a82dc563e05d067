"""The device's facts against what /proc and the control groups say."""

import json
import os
import platform
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import memlimits
from memlimits._device import Device

MIB = 1 << 20
MEMORY_V1 = Path("/sys/fs/cgroup/memory")


def meminfo(key):
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def facts_from(*command, timeout=60):
    """The facts that an interpreter sees when the words of `command` start it."""
    script = "import json, memlimits; print(json.dumps(memlimits.device_info()))"
    words = [*command, sys.executable, "-c", script]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=timeout)
    return json.loads(done.stdout)


# ---- the machine ----


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
    """Not above what /proc/meminfo says, and no more than 64 MiB below where no group limits."""
    lower = min(meminfo("MemAvailable") + meminfo("SwapFree") for _ in range(3))
    available = Device().available()
    upper = max(meminfo("MemAvailable") + meminfo("SwapFree") for _ in range(3))
    assert 0 < available <= upper + 64 * MIB
    if Device().info()["memory_size"] == meminfo("MemTotal"):
        assert available >= lower - 64 * MIB


# ---- what may be locked ----


def wired_capacity_after(prepare):
    script = f"""
        import ctypes, os, resource
        from memlimits._device import Device
        {prepare}
        print(Device().info()["wired_capacity"])
    """
    words = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


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


# ---- control groups of version 1, real ones ----

needs_groups = pytest.mark.skipif(
    not (os.getuid() == 0 and os.access(MEMORY_V1 / "cgroup.procs", os.W_OK)),
    reason="needs root and a writable memory control group of version 1",
)


@pytest.fixture
def groups():
    """Three nested groups, named after this process; gone again afterwards."""
    name = f"memlimits-test-{os.getpid()}"
    made = []
    path = MEMORY_V1
    for part in (name, "middle", "inner"):
        path = path / part
        path.mkdir()
        made.append(path)
    yield made
    for path in reversed(made):
        path.rmdir()


def inside(group):
    """Words that start a command as a member of a group."""
    return "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"


def set_limit(group, n):
    (group / "memory.limit_in_bytes").write_text(str(n))


@needs_groups
@pytest.mark.parametrize("limited", [0, 1, 2])
def test_the_smallest_limit_of_any_ancestor_counts(groups, limited):
    for group in groups:
        set_limit(group, 900 * MIB)
    set_limit(groups[limited], 300 * MIB)
    info = facts_from(*inside(groups[2]))
    assert info["memory_size"] == 300 * MIB
    assert info["max_recommended_working_set_size"] == 225 * MIB


@needs_groups
def test_a_group_without_a_limit_changes_nothing(groups):
    assert facts_from(*inside(groups[2]))["memory_size"] == Device().info()["memory_size"]


@needs_groups
def test_a_limit_of_a_group_beside_ours_does_not_count(groups):
    set_limit(groups[2], 300 * MIB)
    assert facts_from(*inside(groups[1]))["memory_size"] == Device().info()["memory_size"]


@needs_groups
def test_available_is_the_groups_room(groups):
    set_limit(groups[1], 256 * MIB)
    script = """
        from memlimits._device import Device
        device = Device()
        before = device.available()
        held = bytearray(b"x") * (100 << 20)
        print(before, device.available())
    """
    words = [*inside(groups[2]), sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    before, after = map(int, done.stdout.split())
    assert 200 * MIB < before <= 256 * MIB
    assert abs(before - after - 100 * MIB) < 4 * MIB


@needs_groups
def test_clean_page_cache_counts_as_room(groups, tmp_path):
    """What the kernel drops before it kills is no reason to refuse."""
    set_limit(groups[1], 256 * MIB)
    data = tmp_path / "data"
    data.write_bytes(bytes(160 * MIB))
    fd = os.open(data, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    script = f"""
        from memlimits._device import Device
        device = Device()
        before = device.available()
        with open({str(data)!r}, "rb", buffering=0) as file:
            chunk = bytearray(1 << 20)
            while file.readinto(chunk):
                pass
        usage = int(open({str(groups[2] / "memory.usage_in_bytes")!r}).read())
        print(before, device.available(), usage)
    """
    words = [*inside(groups[2]), sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    before, after, usage = map(int, done.stdout.split())
    if usage < 100 * MIB:
        pytest.skip("the file system here does not charge the page cache to the group")
    assert after > before - 16 * MIB


# ---- control groups as recorded files, in a mount namespace of their own ----


def can_unshare():
    if os.getuid() != 0:
        return False
    try:
        words = ["unshare", "--mount", "true"]
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


needs_namespace = pytest.mark.skipif(
    not can_unshare(), reason="needs root and the right to make a mount namespace"
)


def recorded(tmp_path, cgroup, mountinfo, files):
    """Words that start a command which sees these /proc/self/cgroup, mountinfo and group files.

    {root} in mountinfo stands for where the files are.
    """
    root = tmp_path / "tree"
    root.mkdir()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "cgroup").write_text(cgroup + "\n")
    (tmp_path / "mountinfo").write_text(mountinfo.format(root=root) + "\n")
    # exec keeps the process number, and with it the files put over /proc's.
    script = """
        mount --bind "$0/cgroup" /proc/$$/cgroup &&
        mount --bind "$0/mountinfo" /proc/$$/mountinfo &&
        exec "$@"
    """
    return "unshare", "--mount", "sh", "-c", script, str(tmp_path)


UNIFIED = "30 23 0:26 {top} {{root}} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 23 0:29 {top} {{root}} rw,nosuid - cgroup cgroup rw,memory"
OTHER_V1 = "34 23 0:30 / {root}/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct"

LAYOUTS = {
    "v2: the group's own limit": (
        "0::/user.slice/app.scope",
        UNIFIED.format(top="/"),
        {"user.slice/app.scope/memory.max": 300, "user.slice/memory.max": "max"},
        300,
    ),
    "v2: an ancestor's limit": (
        "0::/a/b/c",
        UNIFIED.format(top="/"),
        {"a/memory.max": 200, "a/b/memory.max": 400, "a/b/c/memory.max": "max"},
        200,
    ),
    "v2: a group beside ours": (
        "0::/a/b",
        UNIFIED.format(top="/"),
        {"a/b/memory.max": 400, "a/c/memory.max": 200},
        400,
    ),
    "v2: a container with a group namespace": (
        "0::/",
        UNIFIED.format(top="/"),
        {"memory.max": 250},
        250,
    ),
    "v2: a container that sees its own part only": (
        "0::/docker/1234/worker",
        UNIFIED.format(top="/docker/1234"),
        {"memory.max": 250, "worker/memory.max": 220, "docker/1234/memory.max": 100},
        220,
    ),
    "v2: a group outside what can be seen": (
        "0::/../other",
        UNIFIED.format(top="/"),
        {"memory.max": 260},
        260,
    ),
    "v1: a container that sees its own part only": (
        "5:memory:/docker/1234\n1:name=systemd:/docker/1234\n0::/",
        V1.format(top="/docker/1234") + "\n" + OTHER_V1,
        {"memory.limit_in_bytes": 270, "cpu/memory.limit_in_bytes": 50},
        270,
    ),
    "v1: memory beside other controllers": (
        "6:cpuset,memory:/a\n5:memory_like:/b\n0::/",
        V1.format(top="/"),
        {"a/memory.limit_in_bytes": 280, "b/memory.limit_in_bytes": 50},
        280,
    ),
    "both: the smaller one": (
        "5:memory:/a\n0::/a",
        V1.format(top="/") + "\n" + UNIFIED.format(top="/"),
        {"a/memory.limit_in_bytes": 290, "a/memory.max": 240},
        240,
    ),
}


@needs_namespace
@pytest.mark.parametrize("name", LAYOUTS)
def test_recorded_groups(tmp_path, name):
    cgroup, mountinfo, files, expected = LAYOUTS[name]
    files = {path: str(n if n == "max" else n * MIB) for path, n in files.items()}
    info = facts_from(*recorded(tmp_path, cgroup, mountinfo, files))
    assert info["memory_size"] == expected * MIB


@needs_namespace
def test_version_1s_way_to_write_no_limit(tmp_path):
    none = {"a/memory.limit_in_bytes": str(2**63 - 4096)}
    info = facts_from(*recorded(tmp_path, "5:memory:/a", V1.format(top="/"), none))
    assert info["memory_size"] == meminfo("MemTotal")


@needs_namespace
def test_a_mount_that_shows_another_group_only_is_not_ours(tmp_path):
    """A bind mount of some other group's directory, as container tools leave behind."""
    mountinfo = V1.format(top="/") + "\n" + V1.format(top="/other").replace("{root}", "{root}/seen")
    files = {"ours/memory.limit_in_bytes": 300, "seen/memory.limit_in_bytes": 100}
    files = {path: str(n * MIB) for path, n in files.items()}
    info = facts_from(*recorded(tmp_path, "5:memory:/ours", mountinfo, files))
    assert info["memory_size"] == 300 * MIB


@needs_namespace
@pytest.mark.parametrize(
    ("swap", "expected"), [("0", 150), ("max", 150), ("64", 150)], ids=["none", "max", "some"]
)
def test_available_within_a_group_of_version_2(tmp_path, swap, expected):
    """Limit less usage, plus clean page cache; swap only as far as the machine has any."""
    files = {
        "a/memory.max": str(300 * MIB),
        "a/memory.current": str(200 * MIB),
        "a/memory.swap.max": swap if swap == "max" else str(int(swap) * MIB),
        "a/memory.swap.current": "0",
        "a/memory.stat": f"anon 1\nfile 2\ninactive_file {40 * MIB}\nactive_file {30 * MIB}\n"
        f"file_mapped {10 * MIB}\nfile_dirty {6 * MIB}\nfile_writeback {4 * MIB}",
    }
    script = "from memlimits._device import Device; print(Device().available())"
    words = recorded(tmp_path, "0::/a", UNIFIED.format(top="/"), files)
    words = [*words, sys.executable, "-c", script]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    swapped = 0 if swap == "0" else meminfo("SwapFree")
    if swap == "64":
        swapped = min(64 * MIB, swapped)
    assert int(done.stdout) == expected * MIB + swapped
