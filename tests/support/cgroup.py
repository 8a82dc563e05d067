"""Memory control groups: real ones of version 1, and recorded ones of either version."""

import json
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.process import execute
from support.units import MACHINES_PAGE, MIB

MEMORY_V1 = Path("/sys/fs/cgroup/memory")

needs_groups = pytest.mark.skipif(
    not (os.getuid() == 0 and os.access(MEMORY_V1 / "cgroup.procs", os.W_OK)),
    reason="needs root and a writable memory control group of version 1",
)


@contextmanager
def nested(*names):
    """A group named after this process, and one within another in it; gone again afterwards."""
    groups = []
    path = MEMORY_V1
    try:
        for name in (f"memlimits-{os.getpid()}", *names):
            path = path / name
            path.mkdir()
            groups.append(path)
        yield groups
    finally:
        for group in reversed(groups):
            remove(group)


def remove(group):
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:  # the last member is still leaving
            time.sleep(0.02)
    group.rmdir()


def set_limit(group, n):
    (group / "memory.limit_in_bytes").write_text(str(n))


def kills(group):
    """How many processes of a group the kernel has ended for want of memory."""
    lines = (group / "memory.oom_control").read_text().splitlines()
    return int(dict(line.split() for line in lines)["oom_kill"])


def left(memory_size):
    """What effective_limit() leaves to the program, where all programs share so many bytes."""
    return min(max(memory_size // 64, 2 * MIB), 32 * MIB) + MIB


# The kernel counts what lies in a group's page cache in batches, on each CPU one.
BATCHES = 64 * MACHINES_PAGE * os.sysconf("SC_NPROCESSORS_ONLN")


def inside(group):
    """Words that start a command as a member of a group."""
    return "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"


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


def recorded(tmp_path, cgroup, mountinfo, files, **machine):
    """Words that start a command which sees these /proc/self/cgroup, mountinfo and group files.

    {root} in mountinfo stands for where the files are. `machine`: /proc/meminfo, and
    /proc/pressure/memory as `pressure`. Its /dev/shm is {tmp_path}/shm.
    """
    root = tmp_path / "tree"
    root.mkdir()
    (tmp_path / "shm").mkdir(exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "cgroup").write_text(cgroup + "\n")
    (tmp_path / "mountinfo").write_text(mountinfo.format(root=root) + "\n")
    for name, text in machine.items():
        (tmp_path / name).write_text(text + "\n")
    over = {"meminfo": "/proc/meminfo", "pressure": "/proc/pressure/memory"}
    mounts = "".join(f'mount --bind "$0/{name}" {over[name]} &&' for name in machine)
    # exec keeps the process number, and with it the files put over /proc's.
    script = f"""
        mount --bind "$0/shm" /dev/shm &&
        mount --bind "$0/cgroup" /proc/$$/cgroup &&
        mount --bind "$0/mountinfo" /proc/$$/mountinfo &&
        {mounts}
        exec "$@"
    """
    return "unshare", "--mount", "sh", "-c", script, str(tmp_path)


def facts_from(*words):
    """The facts that an interpreter sees when these words start it."""
    program = "import json, memlimits; print(json.dumps(memlimits.device_info()))"
    return json.loads(execute(program, words=words, check=True).stdout)


def at(place, mountinfo):
    """The same mounts at a place below {root}."""
    return mountinfo.replace("{root}", "{root}/" + place)


UNIFIED = "30 23 0:26 {top} {{root}} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 23 0:29 {top} {{root}} rw,nosuid - cgroup cgroup rw,memory"
OTHER_V1 = "34 23 0:30 / {root}/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct"


def file_out_of_memory(path, n):
    """A file of n zeros, none of them in the page cache."""
    path.write_bytes(bytes(n))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
