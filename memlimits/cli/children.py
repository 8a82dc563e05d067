"""What can be told of Pythons below this one when the program has ended."""

import os
import sys

from memlimits import pools
from memlimits.adapters import children

# Each is imported when the first process is started that way.
_STARTED_ANEW = (
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.popen_forkserver",
    "loky.backend.popen_loky_posix",
)


# Seconds that children of ours took.
_our_own = 0.0


def leave_out_children_so_far() -> None:
    """Have the time that those took which ended until now be none of the program's."""
    global _our_own
    times = os.times()
    _our_own = times.children_user + times.children_system


def why_children_are_not_governed(*, others: bool = False) -> "str | None":
    """Say that Pythons were not governed which were started below this one, or may have been.

    Parameters
    ----------
    others : bool
        Whether others of the program's processes are known to have been governed.

    None where no other has run, as far as can be told: of what has ended nothing is known but that
    it took time, and what was started by a child that has ended is not known to be below.
    """
    anew = any(name.endswith(_STARTED_ANEW) for name in sys.modules)
    if anew and not children.hook_is_there():
        return (
            "worker processes were started anew (spawn, forkserver, loky), not governed: memlimits "
            "is not installed where Python looks for it when it starts"
        )
    count = len(without_memlimits())
    if count:
        below = "process below was" if count == 1 else "processes below were"
        return f"{count} Python {below} not governed at the end: memlimits was not loaded there"
    times = os.times()
    used = times.children_user + times.children_system - _our_own
    # Without this one a program can but fork, or use os.system and the like.
    started = "_posixsubprocess" in sys.modules and not anew and not others
    if started and used > 0:
        return "child processes ran: any Python among them without memlimits was not governed"
    return None


def leave_tree(path: str) -> None:
    """At the end of this process: remove the pool of a tree, unless others of it go on."""
    # A forked child is in the pool only once it grows.
    if path.endswith(".tree") and not _below(os.getpid()):
        pools.remove_unless_others_are_in(path)


def without_memlimits() -> "list[int]":
    """Return the live processes below this one that are Pythons and have not loaded memlimits."""
    return [pid for pid in _below(os.getpid()) if _is_python_without_memlimits(pid)]


def _below(pid: int) -> "list[int]":
    """Return the live processes below a process."""
    by_parent: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            # The fields after the command's name, which may have anything in it: state, parent.
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if len(fields) > 1 and fields[0] != b"Z":
                by_parent.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    left = [pid]
    while left:
        children_of = by_parent.get(left.pop(), [])
        found += children_of
        left += children_of
    return found


def _is_python_without_memlimits(pid: int) -> bool:
    try:
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:  # It is gone, or another user's.
        return False
    files = _read(f"/proc/{pid}/maps")
    # A program that embeds Python has it as a library.
    python = name.startswith("python") or b"/libpython" in files
    return python and b"/memlimits/_modules." not in files


def _read(path: str) -> bytes:
    """Return what a file has; nothing where its process is gone, or another user's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
