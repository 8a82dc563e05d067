"""What other processes that use memlimits hold: looked at from outside, without their help.

Each keeps a page of figures in shared memory, which it writes at its slow steps (`objc/page.h`).
So it may compute in C, hang or be stopped: looking costs it nothing. On Linux only.
"""

import os
import time

from memlimits import _modules
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["get", "running"]

_SHARED = "/dev/shm"
_FOLDER = "memlimits-"


def running() -> "list[dict[str, Any]]":
    """Return the figures of all processes that use memlimits and that this user may see.

    Root sees those of all users, any other user his own.

    Returns
    -------
    list of dict
        As of `get`, by pid.

    See Also
    --------
    get : of one process.
    memlimits.pools.get : of a pool's members.

    Examples
    --------
    >>> import memlimits, os
    >>> block = memlimits.allocate(1 << 20)
    >>> os.getpid() in [facts["pid"] for facts in memlimits.processes.running()]
    True
    """
    found = (_facts(path) for path in _pages())
    return sorted((facts for facts in found if facts), key=lambda facts: facts["pid"])


def get(pid: int) -> "dict[str, Any]":
    """Return what a process holds, in bytes.

    Parameters
    ----------
    pid : int
        A process of this user's; root may ask for any, also of one that has pids of its own, as in
        a container.

    Returns
    -------
    dict
        ``footprint``, ``pending``, ``wired``, ``peak``, ``reserved``, ``memory_limit``, ``policy``
        and so on as in `Stats`, as of its last slow step; ``active``, by now, to 2 % or 64 KiB a
        thread; ``idle``, what is in its cache and its slack; limits are None where there is none;
        ``refusals_by``, a dict. Of the system: ``resident``, ``swap``, ``state`` (``"R"``, ``"S"``,
        ``"D"``, ``"T"``, ... as in /proc), ``parent``, ``user`` (a number), ``command``, and
        ``began`` and ``at``, seconds since 1970: when it first asked for memory, and its last slow
        step.

    Raises
    ------
    TypeError, ValueError
        `pid` is no such number.
    LookupError
        There is no such process, or it does not use memlimits.
    PermissionError
        It is another user's.

    See Also
    --------
    running : of all of them.
    memlimits.stats : of this process, exactly.

    Examples
    --------
    >>> import memlimits, os
    >>> block = memlimits.allocate(1 << 20)
    >>> facts = memlimits.processes.get(os.getpid())
    >>> facts["footprint"], facts["state"]
    (1048576, 'R')
    """
    if isinstance(pid, bool) or not hasattr(pid, "__index__"):
        raise TypeError(f"pid must be an integer, not {pid!r}")
    number = pid.__index__()
    if number <= 0:
        raise ValueError(f"pid must be 1 or more, not {number}")
    for path in _pages_of(number):
        facts = _facts(path, number)
        if facts:
            return facts
    raise _why_not(number)


def _why_not(pid: int) -> Exception:
    status = _status(f"/proc/{pid}")
    if not status:
        return LookupError(f"there is no process {pid}")
    if os.geteuid() not in (0, _user(status)):
        return PermissionError(f"process {pid} is another user's: root can look at it")
    return LookupError(
        f"process {pid} does not use memlimits, or has not asked for any memory yet, or has no "
        f"{_SHARED} to write to"
    )


def hide() -> None:
    """Have this process not be seen, which only looks at others."""
    for path in _pages_of(os.getpid()):
        try:
            os.unlink(path)
        except OSError:
            continue


# ---- where the pages are ----


def _space(proc: str = "/proc/self") -> int:
    try:
        return os.stat(f"{proc}/ns/pid").st_ino
    except OSError:
        return 0


def _pages() -> "Iterator[str]":
    space = _space()
    for folder in _folders():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            pid, _, its_space = name.partition("@")
            if pid.isdigit() and its_space == str(space):
                yield f"{folder}/{name}"


def _folders() -> "list[str]":
    if os.geteuid() != 0:
        return [f"{_SHARED}/{_FOLDER}{os.geteuid()}/running"]
    try:
        return [f"{_SHARED}/{name}/running" for name in os.listdir(_SHARED) if _FOLDER in name]
    except OSError:
        return []


def _pages_of(pid: int) -> "list[str]":
    """Where its page may be, by names of ours and by its own."""
    status = _status(f"/proc/{pid}")
    if not status:
        return []
    user, own_pid = _user(status), status.get("NSpid", str(pid)).split()[-1]
    own = f"/proc/{pid}/root{_SHARED}/{_FOLDER}{user}/running/{own_pid}@{_space(f'/proc/{pid}')}"
    return [f"{_SHARED}/{_FOLDER}{user}/running/{pid}@{_space()}", own]


# ---- what they say ----


def _facts(path: str, pid: "int | None" = None) -> "dict[str, Any] | None":
    """Return what a page says of a process that lives; it may be nobody's by now."""
    try:
        facts: dict[str, Any] = _modules.for_pages().read(path)
    except (OSError, ValueError):
        return None
    # What has its name from somebody else, or was never written, says nothing.
    told_at, owner = facts.pop("told_at"), facts.pop("owner")
    if told_at == 0 or str(facts["pid"]) != os.path.basename(path).partition("@")[0]:
        return None
    pid = pid or facts["pid"]
    proc = f"/proc/{pid}"
    status, fields = _status(proc), _fields(proc)
    if not status or len(fields) < 20 or int(fields[19]) != facts.pop("clock_ticks"):
        return None
    if owner != _user(status):
        return None
    ago = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - told_at) / 1e9
    return {
        **facts,
        "pid": pid,
        # By a coarser clock than when it began.
        "at": max(facts["began"], time.time() - ago),
        "resident": _kilobytes(status, "VmRSS"),
        "swap": _kilobytes(status, "VmSwap"),
        "state": fields[0],
        "parent": int(fields[1]),
        "user": _user(status),
        "command": _command(proc) or printable(status["Name"]),
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _status(proc: str) -> "dict[str, str]":
    # Not splitlines: a name may have other ends of lines in it.
    lines = (line.partition(":") for line in _read(f"{proc}/status").split("\n") if line)
    return {name: value.strip() for name, _, value in lines}


def _user(status: "dict[str, str]") -> int:
    """The one whose files it makes: the effective one."""
    return int(status["Uid"].split()[1])


def _fields(proc: str) -> "list[str]":
    """Those of its stat from the state on: its name before them may hold anything."""
    return _read(f"{proc}/stat").rpartition(")")[2].split()


def _kilobytes(status: "dict[str, str]", name: str) -> int:
    return int(status.get(name, "0 kB").split()[0]) * 1024


_OURS = ("memlimits", "-mmemlimits", "_boot.py")
_WITHOUT_VALUE = ("--per-process", "--quiet")


def _command(proc: str) -> str:
    """On one line, without what would disturb a terminal, nor what `memlimits run` takes itself."""
    words = _read(f"{proc}/cmdline").rstrip("\0").split("\0")
    return printable(" ".join(_program(words)))


def _program(words: "list[str]") -> "list[str]":
    for place, word in enumerate(words[1:4], start=1):
        if word == "run" and os.path.basename(words[place - 1]) in _OURS:
            return without_options(words[place + 1 :]) or words
    return [os.path.basename(words[0]), *words[1:]]


def without_options(words: "list[str]") -> "list[str]":
    """Return the words behind ``memlimits run`` without its own options."""
    while words and words[0].startswith("--"):
        option, *words = words
        if option == "--":
            break
        if "=" not in option and option not in _WITHOUT_VALUE:
            words = words[1:]
    return words
