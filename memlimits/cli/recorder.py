"""The process that records a program: it looks at the program's processes from outside."""

import fcntl
import json
import os
import sys
import time

import memlimits
from memlimits import _modules, processes
from memlimits.figures import Holder
from memlimits.recording import RecordingError, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_INTERVAL = 0.1  # seconds from one sample to the next
_HOLDERS_EVERY = 1.0
_MUCH = 1.1  # times the footprint: who holds that is asked at once
_PART = 20  # of the time, that looking takes at most
_LINGERS = 1.0  # seconds, for those that were started by one that has ended
_OF_PROCESSES = (
    "command", "memory_limit", "cache_limit", "wired_limit", "policy", "memory_count", "parent",
)  # fmt: skip
_OF_SAMPLES = (
    "footprint", "active", "wired", "peak", "resident", "swap", "waiting", "refusals", "waits",
    "overruns", "evictions",
)  # fmt: skip


def record(words: "Sequence[str]") -> None:
    """Record until the program's last process has ended.

    Parameters
    ----------
    words : sequence of str
        The recording; the file by which the processes tell of themselves; the one of their pool, or
        nothing; a descriptor on which to say that all is ready, or what is not; the program.
    """
    file, events, pool, descriptor = words[:4]
    if os.fork():
        os._exit(0)
    # Above the standard streams, one of which it may be where they were closed.
    answer = fcntl.fcntl(int(descriptor), fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(int(descriptor))
    os.setsid()
    _close_streams()
    os.chdir("/")
    try:
        recorder = Recorder(file, events, pool or None, words[4:])
    except (OSError, RecordingError, ValueError) as error:
        os.write(answer, _why(error).encode())
        os._exit(1)
    processes.hide()
    os.write(answer, b"ready")
    os.close(answer)
    recorder.run()
    os.unlink(events)


def _why(error: Exception) -> str:
    """Without the file, which whoever tells it names."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _close_streams() -> None:
    """Whoever reads what the program writes is not to wait for this process."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdin = sys.stdout = sys.stderr = open(os.devnull, "w+", encoding="utf-8")  # noqa: SIM115


class Recorder:
    """What is known of the program's processes, and the file that it goes into.

    Raises
    ------
    OSError, ValueError
        The file cannot be written.
    """

    def __init__(
        self, file: str, events: str, pool: "str | None", program: "Sequence[str]"
    ) -> None:
        self._channels = _modules.for_channel()
        self._channel = self._channels.Channel(events)
        self._pool = pool
        self._writer = Writer(
            file,
            program=program,
            interval=_INTERVAL,
            machine=memlimits.device_info(),
            versions={"memlimits": memlimits.__version__, "python": sys.version.split()[0]},
            on_error=lambda error: self._channel.fail(error.errno or 1),
        )
        self._known: dict[int, tuple[object, ...]] = {}  # what was written of a process last
        self._started: dict[int, int] = {}  # when each of these began, as `members` has it
        self._now: dict[int, dict[str, Any]] = {}  # what each was seen to hold last
        self._parts: dict[int, list[bytes]] = {}  # of lines that are not complete
        self._asked = 0.0
        self._held: dict[int, int] = {}  # footprints when holders were asked for last
        self._alone_since: float | None = None  # no process has been there since

    def run(self) -> None:
        """Record until nobody is left."""
        number, wait = 0, 0.0
        while not self._is_over():
            number = self._channel.wait(wait)
            began = time.monotonic()
            self._look()
            self._writer.flush()
            if not self._members():
                # Unless one comes that the last had started, it is complete before that ends.
                self._writer.pause(lost=self._channel.lost())
            self._channel.wrote(number)
            took = time.monotonic() - began
            wait = max(_INTERVAL, self._writer.interval, _PART * took)
        self._writer.close(lost=self._channel.lost())
        self._channel.wrote(self._channel.wait(0))

    def _is_over(self) -> bool:
        if self._members():
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        return time.monotonic() - self._alone_since > _LINGERS

    def _look(self) -> None:
        self._take_messages()
        now = time.time()
        for pid, started, over, left in self._members():
            facts = self._facts(pid, started)
            if facts is not None:
                self._now[pid] = facts
                self._sample(now, pid, started, facts, over=over)
            if left or (facts is None and not _lives(pid, started)):
                self._take_messages()
                self._end(now, pid, "exited" if left else "vanished")
        if self._pool is not None and self._known:
            self._sample_pool(now)
        since = time.monotonic() - self._asked
        if since >= _HOLDERS_EVERY or (since >= _INTERVAL and self._have_grown()):
            self._ask()

    def _members(self) -> "list[tuple[int, int, bool, bool]]":
        """Return those that there are, and those that there were, should the file be damaged."""
        members: list[tuple[int, int, bool, bool]] = self._channel.members()
        there = {pid for pid, *_ in members}
        lost = [(pid, at, False, False) for pid, at in self._started.items() if pid not in there]
        return members + lost

    def _have_grown(self) -> bool:
        return any(
            now["footprint"] > _MUCH * self._held.get(pid, 0) for pid, now in self._now.items()
        )

    def _ask(self) -> None:
        """Ask who holds what; a thread that listens, in a pool, answers at once."""
        self._asked = time.monotonic()
        self._held = {pid: facts["footprint"] for pid, facts in self._now.items()}
        self._channel.ask()
        if self._pool is not None:
            try:
                _modules.for_pools().refresh(self._pool)
            except (MemoryError, OSError):
                return

    def _facts(self, pid: int, started: int) -> "dict[str, Any] | None":
        try:
            return processes.get(pid) if _lives(pid, started) else None
        except (LookupError, PermissionError):
            return None

    def _sample(
        self, now: float, pid: int, started: int, facts: "dict[str, Any]", *, over: bool
    ) -> None:
        about = {name: facts[name] for name in _OF_PROCESSES}
        # From its program's end on it lets all through that the rest takes.
        if self._known.get(pid) != tuple(about.values()) and not (over and pid in self._known):
            self._known[pid] = tuple(about.values())
            self._started[pid] = started
            self._writer.process(now, pid, started=facts["began"], **about)
        self._writer.sample(
            now,
            pid,
            **{name: facts[name] for name in _OF_SAMPLES},
            cache=facts["idle"],
            trims=facts["trims"] + facts["pressure_trims"],
        )

    def _sample_pool(self, now: float) -> None:
        try:
            pool = _modules.for_pools().read(self._pool)
        except (MemoryError, OSError):
            return
        self._writer.pool(
            now,
            used=sum(member["used"] for member in pool["members"]),
            limit=pool["limit"],
            peak=pool["peak"],
            refusals=pool["refusals"],
            waits=pool["waits"],
            members=len(pool["members"]),
        )

    def _end(self, now: float, pid: int, ending: str) -> None:
        if self._known.pop(pid, None) is not None:
            self._writer.end(now, pid, ending)
        self._started.pop(pid, None)
        self._parts.pop(pid, None)
        self._now.pop(pid, None)
        self._channel.forget(pid)

    def _take_messages(self) -> None:
        for kind, at, pid, data in self._channel.take():
            try:
                facts = self._read(kind, pid, data)
            except (ValueError, IndexError):
                continue  # Somebody else wrote there.
            if kind == "holders":
                self._writer.holders(at / 1e9, pid, _holders(facts))
            elif kind == "refusal":
                facts["holders"] = _holders(facts["holders"])
                self._writer.refusal(at / 1e9, pid, **facts)
            elif facts is not None:
                self._add_snapshot(facts)

    def _read(self, kind: str, pid: int, data: bytes) -> "Any":
        """Return what a message says; None for a part of what follows."""
        if kind == "holders":
            return self._channels.holders(data)
        if kind == "refusal":
            return self._channels.refusal(data)
        self._parts.setdefault(pid, []).append(data)
        return json.loads(b"".join(self._parts.pop(pid))) if kind == "line" else None

    def _add_snapshot(self, facts: "dict[str, Any]") -> None:
        holders = _holders(facts["holders"])
        blocks = [(*block[:4], _frames(block[4]) or None) for block in facts["blocks"]]
        self._writer.snapshot(
            facts["at"],
            facts["pid"],
            stats=facts["stats"],
            holders=holders,
            budgets=facts["budgets"],
            blocks=blocks,
        )


def _frames(frames: "Any") -> "tuple[tuple[str, int, str], ...]":
    return tuple((file, line, function) for file, line, function in frames or ())


def _holders(found: "list[dict[str, Any]]") -> "list[Holder]":
    return [
        Holder(
            one["file"],
            one["line"],
            one["function"],
            one["nbytes"],
            one["blocks"],
            _frames(one["stack"]),
        )
        for one in found
    ]


def _lives(pid: int, started: int) -> bool:
    """Whether it is there, and the same; a zombie is not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == started
