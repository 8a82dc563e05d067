"""The processes and pools that ``memlimits top`` looks at: which there are, and what they tell."""

import os
import time

from memlimits import pools, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Facts = dict[str, Any]
    Found = tuple[list[Facts], list[Facts]]

_ENDED = "ZX"  # as in /proc: it holds nothing any more


class GoneError(Exception):
    """What is to be watched is not there; the message says so."""


class Everything:
    """All processes and pools that this user may see.

    Attributes
    ----------
    title : str
        What is looked at. Every source has this and the next.
    note : str
        Why there is nothing, or nothing more, to see; empty otherwise.
    """

    title = "memlimits top"
    note = ""

    def find(self) -> "Found":
        """Return what there is by now: processes, and pools."""
        found = _all_pools()
        own = os.getpid()
        rows = [row for row in processes.running() if row["pid"] != own and _lives(row)]
        for row in rows:
            _put_into_its_pool(row, found)
        return rows, found


class Family:
    """A process and its descendants, also those whose parents ended since they were seen.

    Parameters
    ----------
    pid : int

    Raises
    ------
    GoneError
        There is no such process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.title = f"process {pid}"
        self.note = ""
        self._ended = False
        self._known = {pid: _start(pid)}
        if not self._known[pid]:
            raise GoneError(f"there is no process {pid}")

    def find(self) -> "Found":
        """Return what there is by now: processes, and pools that they are in.

        Raises
        ------
        PermissionError
            It is another user's.
        """
        alive = [pid for pid, began in self._known.items() if _start(pid) == began]
        if self.pid not in alive and not self._ended:
            self._ended = True
            self.note = f"process {self.pid} ended at {time.strftime('%H:%M:%S')}"
        self._known = {pid: _start(pid) for pid in _with_descendants(alive)}
        rows = [row for pid in self._known if (row := self._get(pid))]
        if rows and not self._ended:
            self.note = ""
        found = _all_pools()
        for row in rows:
            _put_into_its_pool(row, found)
        inside = {row["pool"] for row in rows}
        return rows, [pool for pool in found if pool["name"] in inside]

    def _get(self, pid: int) -> "Facts | None":
        try:
            row = processes.get(pid)
        except LookupError as error:
            if pid == self.pid and not self._ended:
                self.note = str(error)
            return None
        except PermissionError:
            if pid == self.pid:
                raise
            return None
        return row if _lives(row) else None


class Members:
    """The members of a pool.

    Parameters
    ----------
    name : str
        The pool's; or one of `memlimits.pools.trees`.

    Raises
    ------
    GoneError
        There is no such pool.
    ValueError
        A pool can have no such name.
    OSError
        Its file is damaged, or another user's.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.note = ""
        try:
            self.title = f"pool {_look(name)['name']}"
        except LookupError as error:
            raise GoneError(error.args[0]) from None

    def find(self) -> "Found":
        """Return what there is by now: members, and the pool."""
        try:
            pool = _look(self.name)
        except (LookupError, OSError) as error:
            if not self.note:
                self.note = f"removed at {time.strftime('%H:%M:%S')}: {error.args[0]}"
            return [], []
        self.note = ""
        rows = []
        for member in pool["members"]:
            row = _page_of(member["pid"]) or _stranger(member)
            row.update(_membership(pool["name"], member))
            rows.append(row)
        return rows, [pool]


# ---- processes ----


def _lives(row: "Facts") -> bool:
    return row["state"] not in _ENDED


def _start(pid: int) -> str:
    """When a process that lives began, in whatever unit; empty where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # Its name comes before, and may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _ENDED else fields[19]


def _with_descendants(pids: "Iterable[int]") -> "list[int]":
    found: dict[int, None] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = None
            waiting += _children(pid)
    return list(found)


def _children(pid: int) -> "list[int]":
    """The processes that its threads started, as the kernel has them listed by thread."""
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children += map(int, file.read().split())
    except OSError:
        pass  # It ended meanwhile, or a thread of it.
    return children


# ---- pools ----


def _look(name: str) -> "Facts":
    facts = pools.look(name)
    if not facts["name"]:
        facts["name"] = "run " + os.path.basename(name).partition("-")[0]
    return {**facts, "path": name}


def _all_pools() -> "list[Facts]":
    found = []
    names = pools.names()
    for name in [*names, *pools.trees()]:
        try:
            pool = _look(name)
        except (LookupError, OSError):
            continue  # It was removed meanwhile, or `memlimits pool list` says what is wrong.
        # A program whose last process was killed leaves its file.
        if pool["members"] or name in names:
            found.append(pool)
    return found


def _membership(pool: "str | None" = None, member: "Facts | None" = None) -> "Facts":
    member = member or {}
    return {
        "pool": pool,
        "held": member.get("held"),
        "waiting_for": member.get("waiting_for", 0),
        "waiting_since": member.get("waiting_since"),
    }


def _put_into_its_pool(row: "Facts", found: "list[Facts]") -> None:
    row.update(_membership())
    if row["pool_limit"] is None:
        return
    for pool in found:
        for member in pool["members"]:
            if member["pid"] == row["pid"]:
                row.update(_membership(pool["name"], member))


def _page_of(pid: int) -> "Facts | None":
    """What a member tells itself: it may have pids of its own, as in a container, or no page."""
    try:
        row = processes.get(pid)
    except (LookupError, PermissionError):
        return None
    return row if row["pool_limit"] is not None and _lives(row) else None


def _stranger(member: "Facts") -> "Facts":
    """What the pool's file says of a member that no page of can be seen."""
    known = {
        "pid": member["pid"],
        "command": member["command"],
        "active": member["active"],
        "idle": member["cached"],
        "footprint": member["used"],
        "peak": member["peak"],
        "wired": member["wired"],
        "refusals": member["refusals"],
        "waits": member["waits"],
        "waiting": int(member["waiting_since"] is not None),
        "began": member["joined"],
        "overruns": member["overruns"],
    }
    return dict.fromkeys(_OF_A_PAGE) | known


_OF_A_PAGE = (
    "at",
    "memory_limit",
    "cache_limit",
    "wired_limit",
    "policy",
    "memory_count",
    "pool_limit",
    "pending",
    "reserved",
    "mlx_active",
    "mlx_cache",
    "mlx_peak",
    "mlx_tickets",
    "misses",
    "evictions",
    "evicted",
    "trims",
    "pressure_trims",
    "decays",
    "waited_seconds",
    "refusals_by",
    "resident",
    "swap",
    "state",
    "parent",
    "user",
)
