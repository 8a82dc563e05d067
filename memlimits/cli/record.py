"""A program that is recorded: how that begins and ends in its processes.

A process of ours, `memlimits.cli.recorder`, looks at them from outside and writes. It is a child of
none of them, so that no program finds a child that it did not start.
"""

import atexit
import os
import sys

from memlimits import _modules, memory, pools
from memlimits.adapters import children
from memlimits.cli.children import leave_out_children_so_far
from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from memlimits.figures import Snapshot

_SUFFIX = ".events"
_READY = b"ready"
_PATIENCE = 2.0  # seconds, for the recorder at the end


def begin(
    file: "str | None", program: "Sequence[str]", pool: "str | None", above: "str | None"
) -> "str | None":
    """Have this process and those below be recorded; return the path by which they are.

    Below a command that records already, it is that which does.

    Parameters
    ----------
    file : str, optional
        Where the recording goes.
    program : sequence of str
        The program's part of the command line.
    pool : str, optional
        The file of the pool that its processes share.
    above : str, optional
        By which a command above this one records.

    Raises
    ------
    CommandError
        It cannot be written, or recorded.
    """
    if above is not None:
        if file is not None:
            say(
                f"warning: --record {file}: a command above this one records already, this program "
                "as well"
            )
        return above if _join(above) else None
    if file is None:
        return None
    try:
        folder = pools.folder_for_new()
        # Where a recorder was killed.
        for left in pools.left_behind(folder, _SUFFIX):
            os.unlink(left)
        path = f"{folder}/{os.getpid()}-{os.urandom(6).hex()}{_SUFFIX}"
        _modules.for_channel().create(path)
    except OSError as error:
        raise CommandError(f"cannot record: {error}") from None
    _join(path)
    try:
        _start(file, path, pool, program)
    except BaseException:
        os.unlink(path)
        raise
    return path


def join(path: str) -> None:
    """Have this process be recorded, which another one started."""
    pid = os.getpid()
    if _join(path):
        atexit.register(_tell_snapshot_of, pid)


def _join(path: str) -> bool:
    try:
        _modules.for_channel().join(path)
    except OSError:  # The recording has ended.
        return False
    memory.set_refusal_snapshots(True)
    return True


def finish() -> int:
    """Have all be in the recording as this process ends.

    Returns the number of the error for which it is not, -1 where nobody wrote in time, else 0.
    """
    _tell_snapshot()
    code: int = _modules.for_channel().finish(_PATIENCE)
    return code


def _tell_snapshot_of(pid: int) -> None:
    if os.getpid() == pid:
        _tell_snapshot()


def _tell_snapshot() -> None:
    """Tell what lived at the newest refusal."""
    try:
        found = memory.refusal_snapshot()
        if found is not None:
            from json import dumps

            _modules.for_channel().put(dumps(_plain(found)))
    except MemoryError:
        return


def _plain(found: "Snapshot") -> "dict[str, Any]":
    return {
        "at": found.at,
        "pid": found.pid,
        "stats": found.stats._asdict(),
        "holders": [holder._asdict() for holder in found.holders],
        "budgets": list(found.budgets),
        "blocks": [list(block) for block in found.blocks],
    }


def _start(file: str, events: str, pool: "str | None", program: "Sequence[str]") -> None:
    """Start the recorder, and wait until it records."""
    boot = os.path.join(os.path.dirname(__file__), "_boot.py")
    try:
        file = os.path.abspath(file)
        reads, writes = os.pipe()
    except OSError as error:
        raise CommandError(
            f"cannot record to {file!r}: {error.strerror}: write another name"
        ) from None
    os.set_inheritable(writes, True)
    words = [sys.executable, "-I", "-S", boot, "_record", file, events, pool or "", str(writes)]
    try:
        pid = os.posix_spawn(sys.executable, [*words, *program], _environ())
        os.close(writes)
        os.waitpid(pid, 0)  # It went on in a child of its own.
        leave_out_children_so_far()
        with open(reads, "rb") as answer:
            said = answer.read()
    except OSError as error:
        raise CommandError(f"cannot record: {error.strerror}: go on without --record") from None
    if said != _READY:
        why = said.decode("utf-8", "replace") or "the process that records did not start"
        raise CommandError(f"cannot record to {file!r}: {why}")


def _environ() -> "dict[str, str]":
    """Return the environment without what would have the recorder be governed."""
    environ = {name: text for name, text in os.environ.items() if name != children.VARIABLE}
    children.preload_no_more(environ)
    return environ
