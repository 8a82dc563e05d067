"""A function run in turn with its first, second, third, ... request for memory refused."""

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import tempfile
import time
import warnings
from typing import NamedTuple

import memlimits
from memlimits import testing
from memlimits.errors import is_refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import IO, Any

# What a child that had nothing to say was, and what is worse than being refused cleanly.
CLEAN = ("passed", "raised")

_NEVER = 2**63 - 1  # the number of a request that nobody makes
_LONGEST = 500  # characters of what is told of an error
# Where Python's objects count, too, what it keeps for later comes and goes by its arenas.
_NOISE = (1 << 20) + (128 << 10)
_NOISE_AFTERWARDS = 16 << 10
_RUNS_DRY = 65536
_LOOKS_EVERY = 0.2  # seconds
_ENDS_SOON = 0.002
_TO_SAY_WHERE = 2.0
_MUTE = 250  # the status of a child that cannot say what came of it


class Turn(NamedTuple):
    """One run, and what came of it.

    Attributes
    ----------
    nth : int
        The number of the request that was refused; 0 where none was to be.
    kind : str
        ``"passed"``: it returned as if nothing had been. ``"raised"``: a `MemoryError`, or another
        error that a refusal was behind. ``"wrong"``: another error, a failed assertion for one.
        ``"leaked"``: one of the former two, and memory stayed that does not stay without the
        refusal. ``"crashed"``: the process ended. ``"hung"``: it was ended after the timeout.
    detail : str
        A sentence.
    requests : int
        How many requests counted.
    refused : int
        How many of them were refused: 0 where the function makes fewer.
    nbytes : int
        Bytes of the request that was refused.
    kept : int
        Bytes that were active afterwards and not before.
    """

    nth: int
    kind: str
    detail: str
    requests: int = 0
    refused: int = 0
    nbytes: int = 0
    kept: int = 0

    def __str__(self) -> str:
        what = f"request {self.nth}" if self.nth else "without a refusal"
        size = f" ({self.nbytes:,} bytes)" if self.nbytes else ""
        return f"{what}{size}: {self.kind}{': ' if self.detail else ''}{self.detail}"


def in_turn(
    function: "Callable[[], object]",
    rule: "dict[str, Any]",
    *,
    most: int,
    timeout: float,
    leak: "int | None",
) -> "list[Turn]":
    """Run a function in forked children: unharmed, and then with one request refused in each.

    Parameters
    ----------
    function : callable
        Without arguments.
    rule : dict
        For `memlimits.testing.fail`, without `nth`.
    most : int
        How many requests are refused at most.
    timeout : float
        Seconds, for each run.
    leak : int or None
        Bytes that may stay after a run, more than without a refusal; None for 0, or where others
        than NumPy and the program itself take memory of memlimits' for what they keep by the way.

    Returns
    -------
    list of Turn
        The unharmed run first. If that did not pass there is no other. Else up to the first in
        which nothing was refused, which is left out.
    """
    if leak is None:
        leak = _noise()
    turns = [_turn(0, function, rule, timeout)]
    if turns[0].kind != "passed":
        return turns
    for nth in range(1, most + 1):
        turn = _turn(nth, function, rule, timeout)
        if turn.kind in CLEAN and not turn.refused:
            break
        more = turn.kept - turns[0].kept
        if turn.kind in CLEAN and more > leak:
            what = f"{turn.kind}: {turn.detail}" if turn.detail else turn.kind
            turn = turn._replace(kind="leaked", detail=f"{more:,} bytes; it {what}")
        turns.append(turn)
    return turns


def _noise() -> int:
    if testing.is_governed("python") or testing.is_governed("malloc"):
        return _NOISE
    # A dict that was made while Python's objects were governed grows here.
    return _NOISE_AFTERWARDS if testing.was_governed("python") else 0


# ---- the child ----


def _end_with_parent() -> None:
    """One that hangs is not to stay where whoever would end it was killed."""
    set_death_signal = 1
    with contextlib.suppress(AttributeError, OSError):  # not on macOS
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _run(
    nth: int,
    function: "Callable[[], object]",
    rule: "dict[str, Any]",
) -> "dict[str, Any]":
    failing = testing.fail(nth=nth or _NEVER, **rule)
    gc.collect()
    before = memlimits.get_active_memory()
    kind, detail = "passed", ""
    try:
        with failing:
            function()
    except BaseException as error:
        kind, detail = _judged(error), _told(error)
    nbytes = _refused_bytes() if failing.refused else 0
    gc.collect()
    return {
        "kind": kind,
        "detail": detail,
        "requests": failing.requests,
        "refused": failing.refused,
        "nbytes": nbytes,
        "kept": memlimits.get_active_memory() - before,
    }


def _refused_bytes() -> int:
    last = memlimits.last_refusal()
    return last.requested if last is not None and last.blocked_by == "test" else 0


def _judged(error: BaseException) -> str:
    return "raised" if isinstance(error, MemoryError) or is_refusal(error) else "wrong"


def _told(error: BaseException) -> str:
    """Name the error and its place, by which nothing is read or kept."""
    place, at = "", error.__traceback__
    while at is not None:
        place = f" in {at.tb_frame.f_code.co_name} ({_name(at)}:{at.tb_lineno})"
        at = at.tb_next
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}{place}{': ' if text else ''}{text}"[:_LONGEST]


def _name(at: "TracebackType") -> str:
    return os.path.basename(at.tb_frame.f_code.co_filename)


# ---- its parent ----


def _turn(
    nth: int,
    function: "Callable[[], object]",
    rule: "dict[str, Any]",
    timeout: float,
) -> Turn:
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as crash:
        with warnings.catch_warnings():
            # That of a fork where there are threads: the child runs what was asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _end_with_parent()
            _child(writing, crash, lambda: _run(nth, function, rule))
        os.close(writing)
        hung = False
        try:
            said, hung = _hear(reading, child, timeout)
        finally:
            os.close(reading)
            status = _end(child, hung=hung)
        if hung:
            return Turn(nth, "hung", f"ended after {timeout:g} s{_place(crash)}")
        if not said:
            return Turn(nth, "crashed", _cause(status) + _place(crash))
    return Turn(nth, **json.loads(said))


def _child(writing: int, crash: "IO[bytes]", run: "Callable[[], dict[str, Any]]") -> None:
    """Does not return."""
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(crash)
        said = json.dumps(run()).encode()
        while said:
            said = said[os.write(writing, said) :]
    except OSError:
        os._exit(_MUTE)
    finally:
        os._exit(0)


def _hear(reading: int, child: int, timeout: float) -> "tuple[bytes, bool]":
    """Return what the child says, and whether it took too long.

    Children of its own may keep the pipe open, so it is not over only when that is closed; nor is
    it where the function itself closed it.
    """
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    end = time.monotonic() + timeout
    said, looks_every = b"", _LOOKS_EVERY
    while True:
        left = end - time.monotonic()
        if poll.poll(max(0, min(looks_every, left)) * 1000):
            more = os.read(reading, _RUNS_DRY)
            said += more
            if said.endswith(b"}"):
                return said, False
            if not more:
                poll.unregister(reading)
                looks_every = _ENDS_SOON
        elif _has_ended(child):
            return said, False
        elif left <= 0:
            return said, True


def _has_ended(child: int) -> bool:
    """Tell whether it has, and leave its status."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: int, *, hung: bool) -> int:
    """End it and its children, however far they are; return its status."""
    if hung:
        os.kill(child, signal.SIGABRT)  # which has faulthandler say where Python is
        end = time.monotonic() + _TO_SAY_WHERE
        while time.monotonic() < end and not _has_ended(child):
            time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _cause(status: int) -> str:
    if status == _MUTE:
        return "it closed the pipe by which to tell what came of it"
    if status >= 0:
        return f"the process ended with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


def _place(crash: "IO[bytes]") -> str:
    """Return where Python was, as `faulthandler` wrote it."""
    crash.seek(0)
    for line in crash.read().decode(errors="replace").splitlines():
        if line.startswith("  File "):
            return f" at {line.removeprefix('  File ')}"
    return ""
