"""What a group lets its members take, of RAM and of swap, over recorded trees of both versions."""

import json

import pytest

from support.cgroup import BATCHES, UNIFIED, V1, left, needs_namespace, recorded
from support.process import execute
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.host, needs_namespace]

# 2000 MiB available, 1000 MiB of swap free.
MACHINE = "\n".join(
    f"{name}: {size * MIB // KIB} kB"
    for name, size in {
        "MemTotal": 4000,
        "MemFree": 100,
        "MemAvailable": 2000,
        "SwapTotal": 1500,
        "SwapFree": 1000,
    }.items()
)


def look(tmp_path, cgroup, mountinfo, files):
    """What is available, and the bounds by groups and by the system."""
    program = """
        import json, memlimits
        from memlimits._device.device import Device
        memlimits.set_memory_limit(1 << 50)
        bounds = {bound.name: bound.nbytes for bound in memlimits.effective_limit().candidates}
        print(json.dumps([Device().available(), bounds]))
    """
    words = recorded(tmp_path, cgroup, mountinfo, files, meminfo=MACHINE)
    available, bounds = json.loads(execute(program, words=words, check=True).stdout)
    return available, bounds


def numbers(files):
    return {name: n if isinstance(n, str) else str(n * MIB) for name, n in files.items()}


def test_without_a_limit_the_system_bounds(tmp_path):
    available, bounds = look(tmp_path, "0::/a", UNIFIED.format(top="/"), {"a/memory.max": "max"})
    assert available == 3000 * MIB
    assert bounds["RAM and swap"] == available - left(4000 * MIB)
    assert not [name for name in bounds if name.startswith("/")]


def test_version_1_writes_no_limit_as_a_number(tmp_path):
    none = numbers({"a/memory.limit_in_bytes": str(2**63 - 4096), "a/memory.usage_in_bytes": 5})
    available, bounds = look(tmp_path, "5:memory:/a", V1.format(top="/"), none)
    assert available == 3000 * MIB
    assert not [name for name in bounds if name.startswith("/")]


STAT_V2 = "\n".join(
    f"{name} {size * MIB}"
    for name, size in {
        "anon": 7,
        "file": 9,
        "shmem": 50,
        "inactive_anon": 60,
        "inactive_file": 40,
        "active_file": 8,
        "file_mapped": 10,
        "file_dirty": 6,
        "file_writeback": 4,
        "slab_reclaimable": 2,
        "slab": 5,
    }.items()
)
# The group's own pages, and with those of the groups in it.
STAT_V1 = "\n".join(
    f"{name} {size * MIB}"
    for name, size in {
        "cache": 300,
        "inactive_file": 1,
        "active_file": 2,
        "mapped_file": 3,
        "dirty": 4,
        "writeback": 5,
        "total_cache": 300,
        "total_shmem": 50,
        "total_inactive_anon": 60,
        "total_inactive_file": 40,
        "total_active_file": 10,
        "total_mapped_file": 10,
        "total_dirty": 6,
        "total_writeback": 4,
    }.items()
)


@pytest.mark.parametrize(
    ("swap", "used", "expected"),
    [
        (0, 0, 0),
        (64, 0, 64),
        (64, 24, 40),
        (64, 70, 0),
        (5000, 10, 1000),
        ("max", 10, 1000),
        (None, None, 1000),
    ],
)
def test_version_2_limits_swap_beside_ram(tmp_path, swap, used, expected):
    """Limit less usage, plus the page cache, mapped and dirty pages included, and caches of the
    kernel's; swap as far as it is allowed, free, and there."""
    files = {"memory.max": 300, "memory.current": 200, "memory.stat": STAT_V2}
    if swap is not None:
        files |= {"memory.swap.max": swap, "memory.swap.current": used}
    files = numbers({f"a/{name}": n for name, n in files.items()})
    available, bounds = look(tmp_path, "0::/a", UNIFIED.format(top="/"), files)
    assert available == (150 + expected) * MIB - BATCHES
    assert bounds[f"{tmp_path}/tree/a"] == available - left(300 * MIB)


@pytest.mark.parametrize(
    ("both", "used", "expected"),
    [
        (340, 220, 170),
        (300, 200, 150),
        (300, 400, 0),
        (5000, 220, 1150),
        (str(2**63 - 4096), 220, 1150),
        (None, None, 1150),
    ],
)
def test_version_1_limits_swap_and_ram_together(tmp_path, both, used, expected):
    files = {"limit_in_bytes": 300, "usage_in_bytes": 200, "stat": STAT_V1}
    if both is not None:
        files |= {"memsw.limit_in_bytes": both, "memsw.usage_in_bytes": used}
    files = numbers({f"a/memory.{name}": n for name, n in files.items()})
    available, bounds = look(tmp_path, "5:memory:/a", V1.format(top="/"), files)
    assert available == max(expected * MIB - BATCHES, 0)
    assert bounds[f"{tmp_path}/tree/a"] == max(available - left(300 * MIB), 0)


def test_every_group_of_both_versions_bounds(tmp_path):
    """Where there are more of them than there is room for at the first try, too."""
    deep = [f"{root}{'/d' * n}" for root in ("v1", "v2") for n in range(40)]
    limits = {at: 300 + n for n, at in enumerate(deep)}
    files = {}
    for at, limit in limits.items():
        if at.startswith("v1"):
            files |= {f"{at}/memory.limit_in_bytes": limit, f"{at}/memory.usage_in_bytes": 0}
        else:
            files |= {f"{at}/memory.max": limit, f"{at}/memory.current": 0}
    mountinfo = "\n".join(
        text.format(top="/").replace("{root}", f"{{root}}/{version}")
        for text, version in ((V1, "v1"), (UNIFIED, "v2"))
    )
    own = "/d" * 39
    _, bounds = look(tmp_path, f"5:memory:{own}\n0::{own}", mountinfo, numbers(files))
    groups = {name: n for name, n in bounds.items() if name.startswith("/")}
    # Each has the machine's swap beside its RAM.
    expected = {
        f"{tmp_path}/tree/{at}": (1000 + n) * MIB - left(300 * MIB) for at, n in limits.items()
    }
    assert groups == expected


def test_as_many_bounds_as_there_is_room_for(tmp_path):
    files = {f"v2{'/d' * n}/memory.max": 300 + n for n in range(40)}
    files |= {f"v2{'/d' * n}/memory.current": 0 for n in range(40)}
    mountinfo = UNIFIED.format(top="/").replace("{root}", "{root}/v2")
    words = recorded(tmp_path, "0::/", mountinfo, numbers(files), meminfo=MACHINE)
    program = f"""
        import memlimits
        for depth in range(26, 36):
            with open({str(tmp_path / "cgroup")!r}, "r+") as file:
                file.write("0::" + "/d" * depth + "\\n")
            told = memlimits.effective_limit().candidates
            assert list(told) == sorted(told, key=lambda bound: bound.nbytes)
            groups = sorted(bound.nbytes for bound in told if bound.kind == "cgroup")
            left = {left(300 * MIB)}
            assert groups == [(1300 + n) * 2**20 - left for n in range(depth + 1)], (depth, groups)
            assert [bound.name for bound in told if bound.kind == "system"] == ["RAM and swap"]
    """
    execute(program, words=words, check=True)
