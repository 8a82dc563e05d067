"""Which mounts show a group, over recorded trees: odd lines, mounts over others, namespaces."""

import os

import pytest

from support.cgroup import (
    OTHER_V1,
    UNIFIED,
    V1,
    at,
    facts_from,
    inside,
    needs_groups,
    needs_namespace,
    nested,
    recorded,
    set_limit,
)
from support.process import execute
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.host, needs_namespace]

ODD = (
    "1391 23 0:51 / /host rw - 9p C:\\134Program\\040Files rw,dirsync,aname=drvfs;path=C:\\x y - z;"
)

# /proc/self/cgroup, mountinfo, limits in MiB, and what is right.
LAYOUTS = {
    "an empty source": (
        "5:memory:/a",
        "33 23 0:29 / {root} rw,nosuid - cgroup  rw,memory",
        {"a/memory.limit_in_bytes": 310},
        310,
    ),
    "an empty source, v2": (
        "0::/a",
        "30 23 0:26 / {root} rw,nosuid shared:4 - cgroup2  rw",
        {"a/memory.max": 311},
        311,
    ),
    "several optional fields": (
        "0::/a",
        "30 23 0:26 / {root} rw shared:4 master:7 propagate_from:2 - cgroup2 none rw",
        {"a/memory.max": 312},
        312,
    ),
    "a name with blanks, a tab and a backslash": (
        r"0::/a b",
        r"30 23 0:26 / {root}/x\040y\011z\134 rw - cgroup2 cgroup2 rw",
        {"x y\tz\\/a b/memory.max": 313},
        313,
    ),
    "a root with a blank": (
        "0::/a b/c",
        r"30 23 0:26 /a\040b {root} rw - cgroup2 cgroup2 rw",
        {"c/memory.max": 314, "memory.max": 900},
        314,
    ),
    "a name with a colon": (
        "11:memory:/pod.slice:cri-containerd:6ef\n0::/",
        V1.format(top="/"),
        {"pod.slice:cri-containerd:6ef/memory.limit_in_bytes": 315},
        315,
    ),
    "lines that are not well formed": (
        "0::/a",
        ODD + "\nnonsense\n\n" + UNIFIED.format(top="/"),
        {"a/memory.max": 316},
        316,
    ),
    "the container's part over the whole": (
        "0::/job/task",
        "30 23 0:26 / {root} rw - cgroup2 cgroup2 rw\n"
        "99 30 0:26 /job {root} rw - cgroup2 cgroup2 rw",
        {"task/memory.max": 317, "job/task/memory.max": 100},
        317,
    ),
    "the whole over the container's part": (
        "0::/job/task",
        "30 23 0:26 /job {root} rw - cgroup2 cgroup2 rw\n"
        "99 30 0:26 / {root} rw - cgroup2 cgroup2 rw",
        {"task/memory.max": 100, "job/task/memory.max": 318},
        318,
    ),
    "something else over it, and it once more over that": (
        "5:memory:/a",
        "30 23 0:26 /wrong {root} rw - cgroup cgroup rw,memory\n"
        "31 30 0:27 / {root} rw - tmpfs tmpfs rw\n"
        "32 31 0:26 / {root} rw - cgroup cgroup rw,memory",
        {"a/memory.limit_in_bytes": 319, "memory.limit_in_bytes": 900},
        319,
    ),
    "a directory above it mounted over": (
        "0::/a",
        "30 23 0:26 / {root}/up/v2 rw - cgroup2 cgroup2 rw\n"
        "31 23 0:27 / {root}/up rw - tmpfs tmpfs rw\n"
        "32 23 0:26 / {root}/v2 rw - cgroup2 cgroup2 rw",
        {"up/v2/a/memory.max": 100, "v2/a/memory.max": 320},
        320,
    ),
    "mounted inside what is mounted": (
        "0::/a",
        "30 23 0:21 / {root} rw - tmpfs tmpfs rw\n31 30 0:26 / {root}/v2 rw - cgroup2 cgroup2 rw",
        {"v2/a/memory.max": 321},
        321,
    ),
    "the mount that shows most of what is above": (
        "0::/pod/container",
        at("part", UNIFIED.format(top="/pod/container"))
        + "\n"
        + at("whole", UNIFIED.format(top="/")).replace("30 ", "31 ", 1),
        {
            "part/memory.max": 500,
            "whole/pod/memory.max": 322,
            "whole/pod/container/memory.max": 500,
        },
        322,
    ),
    "more mounts than anyone has": (
        "0::/a",
        "\n".join(
            f"{n} 23 0:26 /other/{n} {{root}}/{n} rw - cgroup2 cgroup2 rw" for n in range(400, 600)
        )
        + "\n"
        + at("v2", UNIFIED.format(top="/")),
        {"v2/a/memory.max": 323},
        323,
    ),
    "lines longer than a page": (
        "0::/a",
        f"29 23 0:25 / {{root}}/over rw - overlay overlay rw,lowerdir={'/layer:' * 2000}\n"
        + UNIFIED.format(top="/"),
        {"a/memory.max": 324},
        324,
    ),
    "a long path of a group": (
        "\n".join(f"{n}:name=c{n}:/{'x' * 200}" for n in range(80))
        + "\n0::/"
        + "/".join(["y" * 200] * 9),
        UNIFIED.format(top="/"),
        {"/".join(["y" * 200] * 9) + "/memory.max": 325},
        325,
    ),
    "both hierarchies, and the group in each has its own name": (
        "0::/system.slice/a.scope\n11:memory:/memory.slice/a.scope",
        at("u", UNIFIED.format(top="/")) + "\n" + at("m", V1.format(top="/")) + "\n" + OTHER_V1,
        {
            "u/system.slice/a.scope/memory.max": "max",
            "m/memory.slice/a.scope/memory.limit_in_bytes": 326,
        },
        326,
    ),
    "memory.high alone": (
        "0::/a/b",
        UNIFIED.format(top="/"),
        {"a/b/memory.max": "max", "a/b/memory.high": 327},
        327,
    ),
    "memory.high of an ancestor below every maximum": (
        "0::/a/b",
        UNIFIED.format(top="/"),
        {"a/b/memory.max": 500, "a/memory.high": 328, "a/memory.max": 400},
        328,
    ),
    "memory.high above the maximum": (
        "0::/a",
        UNIFIED.format(top="/"),
        {"a/memory.max": 329, "a/memory.high": 400},
        329,
    ),
    "a soft limit of version 1 bounds nothing": (
        "5:memory:/a",
        V1.format(top="/"),
        {"a/memory.limit_in_bytes": 330, "a/memory.soft_limit_in_bytes": 100},
        330,
    ),
    "a limit of what cannot be seen, in version 1": (
        "5:memory:/docker/1",
        V1.format(top="/docker/1"),
        {
            "memory.limit_in_bytes": 900,
            "memory.stat": f"cache 0\nhierarchical_memory_limit {331 * MIB}",
        },
        331,
    ),
    "a group that was removed": (
        "0::/a/b (deleted)",
        UNIFIED.format(top="/"),
        {"a/memory.max": 332},
        332,
    ),
    "nothing in the files": (
        "0::/a/b",
        UNIFIED.format(top="/"),
        {"a/memory.max": 333, "a/b/memory.max": "", "a/memory.high": ""},
        333,
    ),
}


def lay(tmp_path, cgroup, mountinfo, files):
    texts = {name: n if isinstance(n, str) else str(n * MIB) for name, n in files.items()}
    return recorded(tmp_path, cgroup, mountinfo, texts)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_limit_that_is_in_force_is_found(tmp_path, name):
    *laid, expected = LAYOUTS[name]
    assert facts_from(*lay(tmp_path, *laid))["memory_size"] == expected * MIB


def test_the_room_below_what_cannot_be_seen(tmp_path):
    """The hidden group has at least what this one has."""
    stat = f"total_inactive_file 0\nhierarchical_memory_limit {300 * MIB}"
    files = {"memory.limit_in_bytes": 900, "memory.usage_in_bytes": 100, "memory.stat": stat}
    words = lay(tmp_path, "5:memory:/docker/1", V1.format(top="/docker/1"), files)
    program = "from memlimits._device.device import Device; print(Device().available())"
    assert int(execute(program, words=words, check=True).stdout) == 200 * MIB


def test_a_group_namespace_whose_mount_begins_outside_of_it(tmp_path):
    """Nothing names the directories in between: the one that lists this process is its group's."""
    files = {
        "a/one/memory.max": 100,
        "a/one/cgroup.procs": "1\n2",
        "a/ours/memory.max": 400,
        "b/ours/memory.max": 100,
        "b/ours/cgroup.procs": "77",
        "a/memory.max": 340,
        "memory.max": 800,
    }
    mountinfo = "30 23 0:26 /../.. {root} rw - cgroup2 cgroup2 rw"
    words = lay(tmp_path, "0::/", mountinfo, files)
    *words, script, directory = words
    script = 'echo $$ > "$0/tree/a/ours/cgroup.procs"\n' + script
    assert facts_from(*words, script, directory)["memory_size"] == 340 * MIB


NAMESPACED = "30 23 0:26 /../.. {root} rw - cgroup2 cgroup2 rw"
LISTED = "1\n$$"  # The shell's number, which stays the process's.


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        # One directory at that depth: it is the namespace's top, whoever it lists.
        ("/", {"a/b/memory.max": 341, "a/b/cgroup.procs": "1"}, 341),
        ("/", {"a/b/memory.max": 342, "a/b/c/memory.max": 100}, 342),
        # Below the namespace's top, and beside it.
        ("/x", {"a/b/x/memory.max": 343, "a/other/memory.max": 100}, 343),
        (
            "/x",
            {
                "a/b/x/memory.max": 100,
                "a/c/x/memory.max": 344,
                "a/b/x/cgroup.procs": "1",
                "a/c/x/cgroup.procs": LISTED,
            },
            344,
        ),
        ("/../x", {"a/x/memory.max": 345, "a/b/memory.max": 100}, 345),
        ("/../../x", {"x/memory.max": 346, "a/b/memory.max": 100}, 346),
        # Two could be it: what is above both is in force.
        ("/", {"a/b/memory.max": 100, "a/c/memory.max": 100, "memory.max": 347}, 347),
        ("/gone", {"a/b/memory.max": 100, "memory.max": 348}, 348),
    ],
)
def test_where_a_group_namespace_begins(tmp_path, own, files, expected):
    words = lay(tmp_path, f"0::{own}", NAMESPACED, {"cgroup.procs": "", **files})
    assert facts_from(*listing(words, files))["memory_size"] == expected * MIB


def listing(words, files):
    """The same words, with the process's number where a file is to have it."""
    *words, script, directory = words
    for name, text in files.items():
        if text == LISTED:
            script = f'echo $$ >> "$0/tree/{name}"\n{script}'
    return *words, script, directory


@pytest.mark.parametrize(
    ("mountinfo", "files", "expected"),
    [
        (UNIFIED.format(top="/"), {"a/b/memory.max": 351, "a/b/cgroup.procs": LISTED}, 351),
        (
            UNIFIED.format(top="/"),
            {"a/memory.max": 352, "a/b/memory.max": 900, "a/b/cgroup.procs": LISTED},
            352,
        ),
        (UNIFIED.format(top="/job"), {"b/memory.max": 353, "b/cgroup.procs": LISTED}, 353),
        (
            V1.format(top="/"),
            {"a/memory.limit_in_bytes": 354, "a/cgroup.procs": LISTED},
            354,
        ),
        # In a container its own group is the mount's top; others below it bound nothing.
        (
            UNIFIED.format(top="/"),
            {"memory.max": 355, "cgroup.procs": LISTED, "a/memory.max": 100},
            355,
        ),
        (UNIFIED.format(top="/"), {"memory.max": 356, "a/memory.max": 100}, 356),
    ],
)
def test_a_group_that_no_path_tells(tmp_path, mountinfo, files, expected):
    words = lay(tmp_path, "", mountinfo, {"cgroup.procs": "1", **files})
    assert facts_from(*listing(words, files))["memory_size"] == expected * MIB


@needs_groups
def test_a_real_group_without_proc():
    with nested("job", "task") as (_, job, task):
        set_limit(job, 310 * MIB)
        script = 'mount -t tmpfs none /proc && exec "$@"'
        words = (*inside(task), "unshare", "--mount", "sh", "-c", script, "sh")
        assert facts_from(*words)["memory_size"] == 310 * MIB


@needs_groups
@pytest.mark.parametrize("limited", ["own", "above"])
def test_a_part_mounted_over_the_whole_for_real(limited):
    with nested("job", "task") as (top, job, task):
        set_limit(task if limited == "own" else job, 310 * MIB)
        mounts = os.path.dirname(top)
        script = f'echo $$ > {task}/cgroup.procs && mount --bind {job} {mounts} && exec "$@"'
        facts = facts_from("unshare", "--mount", "sh", "-c", script, "sh")
        assert facts["memory_size"] == 310 * MIB


@needs_groups
def test_what_lies_above_a_real_mount_is_told_by_the_groups_own_file():
    with nested("job", "task") as (top, job, task):
        set_limit(job, 310 * MIB)
        mounts = os.path.dirname(top)
        script = f'echo $$ > {task}/cgroup.procs && mount --bind {task} {mounts} && exec "$@"'
        facts = facts_from("unshare", "--mount", "sh", "-c", script, "sh")
        assert facts["memory_size"] == 310 * MIB
        # In a namespace of its own, too.
        words = inside(task)
        facts = facts_from(
            *words,
            "unshare",
            "--cgroup",
            "--mount",
            "sh",
            "-c",
            f'mount --bind {task} {mounts} && exec "$@"',
            "sh",
        )
        assert facts["memory_size"] == 310 * MIB
