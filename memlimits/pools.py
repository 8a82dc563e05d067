"""Pools: budgets that processes share.

The processes of a pool may know nothing of each other. Together they never hold more than its
limit: the sum of what they count, whatever their own limits allow, is within it at every instant
as long as none of them has the policy ``"guideline"``. Each has its own limits besides. A pool is a
file that its members map; it lasts until it is removed, or the machine is started anew.
"""

import os
import re
import stat

from memlimits import _modules
from memlimits.memory import device_info, stats
from memlimits.sizes import format_exact, in_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self, SupportsIndex

__all__ = ["Membership", "create", "get", "join", "names", "remove", "set_limit"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_LONGEST = 63
_SUFFIX = ".pool"
_NOBODY_ELSE = 0o600
_EVERYBODY = 0o666
_NO_MAXIMUM = (1 << 64) - 1
_ROOM = 1 << 20  # bytes, for a file and what goes with it


# ---- where the files are ----


def _folders() -> "Iterator[str]":
    """Where pools of this user may be, the preferred first."""
    if chosen := _chosen():
        yield chosen
        return
    user = f"memlimits-{os.geteuid()}"
    yield f"/dev/shm/{user}"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/memlimits"
    import tempfile  # takes a sixth of what a program's start does

    yield f"{tempfile.gettempdir()}/{user}"


def _is_ours(folder: str) -> bool:
    """Whether nobody but this user, and root, can put a file there."""
    try:
        facts = os.lstat(folder)
    except OSError:
        return False
    safe = facts.st_uid in (os.geteuid(), 0) and not facts.st_mode & 0o022
    return stat.S_ISDIR(facts.st_mode) and safe


def _chosen() -> "str | None":
    chosen = os.environ.get("MEMLIMITS_POOLS")
    return os.path.abspath(chosen) if chosen else None


def _is_chosen(folder: str) -> bool:
    return folder == _chosen()


def folder_for_new(everybody: bool = False) -> str:
    """Return a directory for a new pool's file, which is made if it has to be.

    Raises
    ------
    OSError
        There is none in which files can be made.
    """
    failures = []
    for folder in _folders():
        try:
            # One that was named is there: a name that is misspelt would be another budget.
            if not os.path.isdir(folder) and not _is_chosen(folder):
                os.mkdir(folder, 0o700)
            if everybody and os.lstat(folder).st_uid == os.geteuid():
                os.chmod(folder, 0o755)
        except OSError as error:
            failures.append(f"{folder}: {error.strerror}")
            continue
        why_not = _why_not(folder)
        if why_not is None:
            return folder
        failures.append(f"{folder}: {why_not}")
    raise OSError(
        "there is no place for what processes share: "
        + "; ".join(failures)
        + ". Set MEMLIMITS_POOLS to a directory that all of them can write"
    )


def _why_not(folder: str) -> "str | None":
    """Say why no file is to be made in a directory; None where one can be."""
    if not os.path.isdir(folder):
        return "not there"
    if not (_is_ours(folder) or _is_chosen(folder)):
        return "others can write there"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "not writable"
    space = os.statvfs(folder)
    return "less than 1 MiB of room there" if space.f_bavail * space.f_frsize < _ROOM else None


def _all_folders() -> "list[str]":
    """Where a pool that is there may be: root's, too, which root may have made for everybody."""
    folders = [*_folders()]
    if not os.environ.get("MEMLIMITS_POOLS"):
        folders.append("/dev/shm/memlimits-0")
    return list(dict.fromkeys(folders))


def _entries(folder: str) -> "list[str]":
    """Return what is in a directory: nothing for whom it is closed, as root's may be."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, PermissionError):
        if _is_chosen(folder):
            raise
        return []


def check_name(name: object) -> str:
    """Return a pool's name.

    Raises
    ------
    TypeError, ValueError
        It is none that a pool can have.
    """
    if not isinstance(name, str):
        raise TypeError(f"a pool's name must be a str, not {name!r}")
    if len(name) > _LONGEST:
        raise ValueError(f"a pool's name has at most {_LONGEST} characters, not {len(name)}")
    if not _NAME.match(name):
        raise ValueError(
            f"invalid pool name {name!r}: write letters, digits, '.', '_' and '-', a letter or a "
            "digit first"
        )
    return name


def _path(name: str) -> str:
    for folder in _all_folders():
        path = f"{folder}/{name}{_SUFFIX}"
        if os.path.lexists(path) and (_is_ours(folder) or _is_chosen(folder)):
            return path
    raise LookupError(
        f"there is no pool {name!r}: memlimits pool create {name} --limit SIZE makes it, or "
        "join(..., limit=...)"
    )


def _checked_limit(limit: "SupportsIndex | str", name: str = "limit") -> int:
    number = in_bytes(limit, name)
    if not 1 << 20 <= number < 1 << 62:
        raise ValueError(f"{name} must be from 2**20 to 2**62 - 1 bytes, not {number}")
    return number


def _recommended() -> int:
    recommended = device_info()["max_recommended_working_set_size"]
    assert isinstance(recommended, int)
    return recommended


# ---- public ----


def create(
    name: str,
    limit: "SupportsIndex | str",
    *,
    wired_limit: "SupportsIndex | str | None" = None,
    everybody: bool = False,
) -> None:
    """Make a pool.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``, 63 at most.
    limit : int or str
        Bytes that its members may hold together, from 2**20 on, or a size such as ``"20GiB"``.
    wired_limit : int or str, optional
        Bytes that they may wire together; by default what the system recommends for one
        (``device_info()["max_recommended_working_set_size"]``).
    everybody : bool
        Whether processes of other users may join, which find root's. They can then also damage it.

    Raises
    ------
    ValueError
        There is a pool of the name, or an argument is not as it has to be.
    OSError
        There is no place for it: see ``MEMLIMITS_POOLS`` in the error.

    See Also
    --------
    join : become a member; it can make the pool, too.
    set_limit, remove : change it, and have it gone.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.pools.create("gpu0", "1GiB")
    >>> memlimits.pools.get("gpu0")["limit"] >> 20
    1024
    >>> memlimits.pools.remove("gpu0")
    """
    name, limit = check_name(name), _checked_limit(limit)
    if everybody and os.geteuid() != 0:
        raise ValueError(
            "a pool for everybody is root's, since nobody joins that of another user: make it as "
            "root, or for yourself"
        )
    pools = _modules.for_pools()
    path = f"{folder_for_new(everybody)}/{name}{_SUFFIX}"
    wired = _recommended() if wired_limit is None else _checked_limit(wired_limit, "wired_limit")
    try:
        pools.create(path, name, limit, _EVERYBODY if everybody else _NOBODY_ELSE, wired)
    except FileExistsError:
        raise ValueError(
            f"there is a pool {name!r} already, of {format_exact(pools.read(path)['limit'])}: "
            f"memlimits pool set {name} changes that, memlimits pool remove {name} removes it"
        ) from None


def names() -> "list[str]":
    """Return the names of the pools that this user may see.

    Returns
    -------
    list of str
        Sorted.

    See Also
    --------
    get : what one holds.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.pools.create("names-1", 1 << 30)
    >>> "names-1" in memlimits.pools.names()
    True
    >>> memlimits.pools.remove("names-1")
    """
    found: set[str] = set()
    for folder in _all_folders():
        if os.path.isdir(folder) and (_is_ours(folder) or _is_chosen(folder)):
            found.update(entry for entry in _entries(folder) if entry.endswith(_SUFFIX))
    plain = (entry.removesuffix(_SUFFIX) for entry in found)
    return sorted(name for name in plain if _NAME.match(name))


def get(name: str) -> "dict[str, Any]":
    """Return what a pool and its members hold, in bytes.

    Parameters
    ----------
    name : str
        The pool's.

    Returns
    -------
    dict
        ``limit``; ``peak``, the most in use at once; ``refusals``,
        ``waits``, ``overruns``, counts over all members that there were; ``moved``, idle bytes that
        were given back for others; ``ended`` and ``vanished``, members that ended, and those of
        them that did not leave, since they were killed or ended by `os._exit`; and ``members``, one
        dict each: ``pid``, ``command``, ``used``, ``held`` (with what it drew ahead, which others
        get when they need it), ``minimum``, ``maximum``, ``priority``, ``active``, ``cached``,
        ``wired``, ``waiting_since`` and ``joined`` (seconds since 1970; the former may be None),
        ``waiting_for``, ...

    Raises
    ------
    LookupError
        There is no such pool.
    OSError
        Its file is damaged, or another user's.

    See Also
    --------
    names : which there are.
    memlimits.processes.get : what one process holds.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.join("get-1", limit=1 << 30):
    ...     block = memlimits.allocate(1 << 20)
    ...     facts = memlimits.pools.get("get-1")
    >>> facts["limit"] >> 20, len(facts["members"])
    (1024, 1)
    >>> memlimits.pools.remove("get-1")
    """
    return read(path_of(name))


def read(path: str, *, ended: bool = False) -> "dict[str, Any]":
    """Return what a pool's file says, and its members by now; those that ended, too, if asked."""
    pools = _modules.for_pools()
    pools.refresh(path)
    facts: dict[str, Any] = pools.read(path, ended)
    return facts


def look(name: str) -> "dict[str, Any]":
    """Return what `get` does, but as members said it last, at their slow steps: they are not asked.

    Parameters
    ----------
    name : str
        A pool's; or one of `trees`, the path of its file.
    """
    path = name if name in trees() else _path(check_name(name))
    facts: dict[str, Any] = _modules.for_pools().read(path)
    return facts


def set_limit(name: str, limit: "SupportsIndex | str") -> int:
    """Set what a pool's members may hold together.

    What they hold above it they keep, but for idle memory; they do not grow until there is room.

    Parameters
    ----------
    name : str
        The pool's.
    limit : int or str
        Bytes, from 2**20 on, or a size such as ``"20GiB"``.

    Returns
    -------
    int
        The previous limit.

    Raises
    ------
    LookupError, ValueError, OSError
        As for `get` and `create`.

    See Also
    --------
    create : make one.
    get : what it is.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.pools.create("set-1", 1 << 30)
    >>> memlimits.pools.set_limit("set-1", 2 << 30) >> 20
    1024
    >>> memlimits.pools.remove("set-1")
    """
    path = path_of(name)
    before: int = _modules.for_pools().set_limit(path, _checked_limit(limit))
    return before


def remove(name: str) -> None:
    """Remove a pool.

    Parameters
    ----------
    name : str
        The pool's.

    Raises
    ------
    LookupError
        There is no such pool.
    ValueError
        It has members.

    See Also
    --------
    create : make one.

    Examples
    --------
    >>> import memlimits
    >>> memlimits.pools.create("remove-1", 1 << 30)
    >>> memlimits.pools.remove("remove-1")
    >>> "remove-1" in memlimits.pools.names()
    False
    """
    path = path_of(name)
    try:
        members = _modules.for_pools().read(path)["members"]
    except OSError:
        members = []  # Nobody can join what is damaged.
    if members:
        raise ValueError(
            f"pool {name!r} has members: "
            + ", ".join(f"{member['pid']} ({member['command']})" for member in members[:5])
            + ": wait for them to end or leave, or end them"
        )
    os.unlink(path)


def path_of(name: str) -> str:
    """Return the path of a pool's file, from its name.

    Raises
    ------
    LookupError, TypeError, ValueError
        There is no such pool, or it is no such name.
    """
    return _path(check_name(name))


def own_path() -> "str | None":
    """Return the path of the file of the pool, or tree, that this process is in, if any."""
    pools = _modules.for_pools()
    for folder in filter(os.path.isdir, _all_folders()):
        for entry in _entries(folder):
            path = f"{folder}/{entry}"
            if entry.endswith((_SUFFIX, _TREE)) and pools.is_own(path):
                return path
    return None


# ---- of one tree of processes ----

_TREE = ".tree"


def make_for_tree(limit: int) -> str:
    """Make the pool of the processes of one program, and join it; return its path.

    Raises
    ------
    OSError
        There is no place for it.
    """
    pools = _modules.for_pools()
    folder = folder_for_new()
    _sweep(folder)
    path = f"{folder}/{os.getpid()}-{os.urandom(6).hex()}{_TREE}"
    pools.create(path, "", limit, _NOBODY_ELSE, _recommended())
    join_tree(path)
    return path


def join_tree(path: str) -> None:
    """Become a member of a tree's pool; what is held already counts there, even if it is too much.

    Raises
    ------
    OSError
        It is gone, or cannot be used.
    """
    how = _modules.for_pools().join(path, 0, _NO_MAXIMUM, 0, True)
    if how == "no slot":
        raise OSError(
            "the pool of the program's processes has as many members as it can have: run fewer "
            "at once"
        )


def trees() -> "list[str]":
    """Return where the pools of programs' processes are that this user may see, sorted."""
    return sorted(
        f"{folder}/{entry}"
        for folder in _folders()
        if os.path.isdir(folder) and (_is_ours(folder) or _is_chosen(folder))
        for entry in _entries(folder)
        if entry.endswith(_TREE)
    )


def _sweep(folder: str) -> None:
    """Remove what trees left whose last process was killed."""
    # Where its first process lives it may not have joined yet.
    for path in left_behind(folder, _TREE):
        remove_unless_others_are_in(path)


def left_behind(folder: str, suffix: str) -> "Iterator[str]":
    """Find files whose names begin with the pid of a process that is gone."""
    for entry in os.listdir(folder):
        pid = entry.partition("-")[0]
        if not entry.endswith(suffix) or not pid.isdigit():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            yield f"{folder}/{entry}"
        except OSError:
            continue


def remove_unless_others_are_in(path: str) -> None:
    """Remove a pool's file: members that go on may start others, which are to join it."""
    try:
        members = _modules.for_pools().read(path)["members"]
        if all(member["pid"] == os.getpid() for member in members):
            os.unlink(path)
    except (MemoryError, OSError):
        return


class Membership:
    """This process's place in a pool. Made by `join`.

    A context manager that leaves.

    Attributes
    ----------
    name : str
        The pool's.

    See Also
    --------
    join : make one.
    """

    name: str = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def leave(self) -> None:
        """Leave the pool. What the process holds counts nowhere from then on.

        Raises
        ------
        RuntimeError
            The process is no member.
        """
        if not _modules.for_pools().leave():
            raise RuntimeError(
                f"this process is not in pool {self.name!r} any more: join() makes it one again"
            )

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"<memlimits.pools.Membership of {self.name!r}>"


def join(
    name: str,
    *,
    limit: "SupportsIndex | str | None" = None,
    minimum: "SupportsIndex | str" = 0,
    maximum: "SupportsIndex | str | None" = None,
    priority: int = 0,
) -> Membership:
    """Have this process share a budget with others of the machine.

    What it counts against its memory limit, as `set_memory_count` says, counts in the pool, too:
    what it holds already, and what it will hold. What does not fit there is refused, or waits, by
    its own policy; a forked child becomes a member of its own when it first grows, and counts what
    it has from its parent only once it writes over it.

    Parameters
    ----------
    name : str
        The pool's.
    limit : int or str, optional
        Bytes for all members together, or a size such as ``"20GiB"``. The pool is made if there is
        none of the name.
    minimum : int or str
        Bytes that this process can always have, whatever others hold.
    maximum : int or str, optional
        The most bytes it may hold in the pool.
    priority : int
        Idle memory of members with a lower priority is asked back first.

    Returns
    -------
    Membership
        To ``leave`` with; a context manager.

    Raises
    ------
    LookupError
        There is no such pool, and no limit to make one with.
    ValueError
        The pool has another limit; what the process holds, or the minimum, does not fit.
    RuntimeError
        The process is a member of a pool already.
    OSError
        The file cannot be used.

    See Also
    --------
    create : make a pool, and do not join it.
    get : what it holds.
    memlimits.limits : limits of this process alone.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.join("docs", limit=1 << 30):
    ...     block = memlimits.allocate(1 << 20)
    ...     memlimits.pools.get("docs")["members"][0]["active"]
    1048576
    >>> memlimits.pools.remove("docs")
    """
    name = check_name(name)
    least, most, rank = _amounts(minimum, maximum, priority)
    made = limit is not None and _make_if_missing(name, _checked_limit(limit))
    path = _path(name)
    pools = _modules.for_pools()
    how = pools.join(path, least, most, rank)
    facts = {} if how == "joined" else pools.read(path)
    if how not in ("joined", "is member") and made:
        remove_unless_others_are_in(path)
    if how == "is member":
        raise RuntimeError(
            "this process is a member of a pool already: of one that it joined, which leave() "
            "ends, or of that of all processes below `memlimits run --memory-limit`, in whose "
            "place --per-process or --pool can be given"
        )
    if how == "no slot":
        raise ValueError(
            f"pool {name!r} has as many members as it can have: wait for one to leave, or make "
            "another pool"
        )
    if how == "no room":
        _refuse(name, facts, least, most)
    return Membership(name)


def join_by_name(name: str) -> str:
    """Join, and return the path of the pool's file."""
    join(name)
    return _path(name)


def _amounts(
    minimum: "SupportsIndex | str", maximum: "SupportsIndex | str | None", priority: object
) -> "tuple[int, int, int]":
    if isinstance(priority, bool) or not hasattr(priority, "__index__"):
        raise TypeError(f"priority must be an integer, not {priority!r}")
    rank: int = priority.__index__()
    least = in_bytes(minimum, "minimum")
    most = None if maximum is None else in_bytes(maximum, "maximum")
    for key, number in {"minimum": least, "maximum": most, "priority": rank}.items():
        if number is not None and not 0 <= number < 1 << 62:
            raise ValueError(f"{key} must be from 0 to 2**62 - 1, not {number}")
    if most is not None and most < least:
        raise ValueError(
            f"maximum {format_exact(most)} is below minimum {format_exact(least)}: raise the one, "
            "or lower the other"
        )
    return least, _NO_MAXIMUM if most is None else most, rank


def _make_if_missing(name: str, limit: int) -> bool:
    """Return whether it was missing.

    Raises
    ------
    ValueError
        There is one with another limit.
    """
    try:
        path = _path(name)
    except LookupError:
        try:
            create(name, limit)
            return True
        except ValueError as error:
            if "already" not in str(error):
                raise
        path = _path(name)
    facts = _modules.for_pools().read(path)
    if facts["limit"] != limit // facts["unit"] * facts["unit"]:
        raise ValueError(
            f"pool {name!r} has a limit of {format_exact(facts['limit'])}, not "
            f"{format_exact(limit)}: join it without a limit, or change that with "
            "memlimits.pools.set_limit()"
        )
    return False


def _refuse(name: str, facts: "dict[str, Any]", minimum: int, maximum: int) -> None:
    taken = sum(max(member["held"], member["minimum"]) for member in facts["members"])
    held = stats().footprint
    raise ValueError(
        f"pool {name!r} has no room for this process: limit {format_exact(facts['limit'])}, "
        f"others {format_exact(taken)}, held here {format_exact(held)}, minimum "
        f"{format_exact(minimum)}, maximum {format_exact(maximum)}. Ask for a smaller minimum, "
        f"wait for others to leave, or raise the limit (memlimits pool set {name})"
    )
