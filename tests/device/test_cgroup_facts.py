"""What the device says in a memory control group."""

import pytest

from memlimits._device.device import Device
from support.cgroup import (
    OTHER_V1,
    UNIFIED,
    V1,
    at,
    facts_from,
    file_out_of_memory,
    inside,
    needs_groups,
    needs_namespace,
    nested,
    recorded,
    set_limit,
)
from support.kernel import meminfo
from support.process import execute
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.host]


@pytest.fixture
def groups():
    with nested("middle", "inner") as groups:
        yield groups


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
        from memlimits._device.device import Device
        device = Device()
        before = device.available()
        held = bytearray(b"x") * (100 << 20)
        print(before, device.available())
    """
    done = execute(script, words=inside(groups[2]), check=True)
    before, after = map(int, done.stdout.split())
    assert 200 * MIB < before <= 256 * MIB
    assert abs(before - after - 100 * MIB) < 4 * MIB


@needs_groups
def test_clean_page_cache_counts_as_room(groups, tmp_path):
    """What the kernel drops before it kills is no reason to refuse."""
    set_limit(groups[1], 256 * MIB)
    data = tmp_path / "data"
    file_out_of_memory(data, 160 * MIB)
    script = f"""
        from memlimits._device.device import Device
        device = Device()
        before = device.available()
        with open({str(data)!r}, "rb", buffering=0) as file:
            chunk = bytearray(1 << 20)
            while file.readinto(chunk):
                pass
        usage = int(open({str(groups[2] / "memory.usage_in_bytes")!r}).read())
        print(before, device.available(), usage)
    """
    done = execute(script, words=inside(groups[2]), check=True)
    before, after, usage = map(int, done.stdout.split())
    if usage < 100 * MIB:
        pytest.skip("the file system here does not charge the page cache to the group")
    assert after > before - 16 * MIB


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
    "v2: a container that is limited as a whole": (
        "0::/docker/1234/worker",
        UNIFIED.format(top="/docker/1234"),
        {"memory.max": 210, "worker/memory.max": 220},
        210,
    ),
    "v2: a group outside what can be seen": (
        "0::/../other",
        UNIFIED.format(top="/"),
        {"memory.max": 260, "../other/memory.max": 100},
        260,
    ),
    "v2: what lies above the mount is no group": (
        "0::/a",
        UNIFIED.format(top="/"),
        {"a/memory.max": 230, "../memory.max": 100},
        230,
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
    "v1: a hierarchy that is named memory": (
        "5:memory:/a\n4:name=memory:/b\n3:cpu,memory_like:/b\n0::/",
        V1.format(top="/"),
        {"a/memory.limit_in_bytes": 285, "b/memory.limit_in_bytes": 50},
        285,
    ),
    "both: the smaller one": (
        "5:memory:/a\n0::/a",
        V1.format(top="/") + "\n" + UNIFIED.format(top="/"),
        {"a/memory.limit_in_bytes": 290, "a/memory.max": 240},
        240,
    ),
    "both: each in its own group": (
        "0::/a\n5:memory:/b",
        at("v2", UNIFIED.format(top="/")) + "\n" + at("v1", V1.format(top="/")),
        {
            "v2/a/memory.max": 240,
            "v1/a/memory.limit_in_bytes": 50,
            "v2/b/memory.max": 60,
            "v1/b/memory.limit_in_bytes": 290,
        },
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
    mountinfo = "\n".join(
        V1.format(top=top).replace("{root}", f"{{root}}{at}")
        for top, at in (("/our", "/seen"), ("/", ""), ("/other", "/seen"))
    )
    files = {"ours/memory.limit_in_bytes": 300, "seen/memory.limit_in_bytes": 100}
    files = {path: str(n * MIB) for path, n in files.items()}
    info = facts_from(*recorded(tmp_path, "5:memory:/ours", mountinfo, files))
    assert info["memory_size"] == 300 * MIB
