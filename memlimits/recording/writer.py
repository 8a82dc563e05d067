"""What writes a recording, in bounded disk."""

import errno
import fcntl
import json
import os
import time

from memlimits.recording import compaction
from memlimits.recording.entries import FIRST, LIMITS, VERSION, limit_or_none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self

    from memlimits.figures import Holder

    Frames = Sequence[tuple[str, int, str]]
    Stack = tuple[tuple[str, int, str], ...]

__all__ = ["Writer"]

_MOST_BYTES = 32 << 20
_LEAST_BYTES = 1 << 20
_BUFFERED = 1 << 16  # bytes
_BUFFERED_SECONDS = 1.0
_PATIENCE = 2.0  # seconds, for who writes the same file
_LONGEST = 1000  # characters of a word of a command line
_MOST_WORDS = 100
_OUTER_FRAMES, _INNER_FRAMES = 56, 200  # of a stack that has more


class Writer:
    """A recording that is being written.

    What it has reached the file a second later at most, if any method is called then; so whoever
    samples twice a second loses one second at a kill. The file is never longer than its bound: it
    is thinned before, for which a second one of at most 3/4 of the bound lies beside it for a
    moment. The samples that stay are those with the most footprint and the most resident of each
    span of time, the span doubling each time that it is necessary. Not for several threads at once;
    a forked child's copy writes nothing.

    Parameters
    ----------
    path : str or os.PathLike
        A recording that is there is replaced.
    program : sequence of str
        The words of its command line.
    interval : float
        Seconds from one sample of a process to the next, as whoever samples intends.
    machine : mapping, optional
        Facts such as those of `memlimits.device_info`.
    versions : mapping, optional
        Further fields of the first line: what was recorded by which version of what.
    max_bytes : int
        How many bytes the file may have, at least 1 MiB.
    on_error : callable, optional
        Called once with the `OSError` after which nothing is written any more, such as that of a
        full disk. The file has what was written before, to the end of a line.
    at : float, optional
        Seconds since 1970 at which it begins; now unless given.

    Attributes
    ----------
    path : str
        Where the file lies, absolute and without links.
    error : OSError or None
        Why nothing is written any more.
    interval : float
        Seconds between the samples that were kept when the file was thinned last.
    size : int
        Bytes written, or to be.

    Raises
    ------
    ValueError
        `max_bytes` is too small, or the name is that of a compressed file.
    FileExistsError
        There is something that is no recording.
    OSError
        The file cannot be made.

    See Also
    --------
    Reader, load : read it.
    memlimits.snapshot : what can be written.

    Examples
    --------
    >>> import memlimits, os, tempfile, time
    >>> from memlimits.recording import Reader, Writer
    >>> path = os.path.join(tempfile.mkdtemp(), "run.rec")
    >>> with Writer(path, program=["load.py"]) as writer:
    ...     writer.process(time.time(), os.getpid(), command="load.py", memory_limit=1 << 30)
    ...     writer.sample(time.time(), os.getpid(), footprint=memlimits.stats().footprint)
    >>> [entry["kind"] for entry in Reader(path)]
    ['process', 'sample', 'closed']
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        *,
        program: "Sequence[str]" = (),
        interval: float = 0.5,
        machine: "Mapping[str, Any] | None" = None,
        versions: "Mapping[str, Any] | None" = None,
        max_bytes: int = _MOST_BYTES,
        on_error: "Callable[[OSError], None] | None" = None,
        at: "float | None" = None,
    ) -> None:
        if max_bytes < _LEAST_BYTES:
            raise ValueError(
                f"max_bytes is {max_bytes}, less than {_LEAST_BYTES}: a recording may have 1 MiB "
                "and more"
            )
        self.path = os.path.realpath(path)
        self.error: OSError | None = None
        self.interval = interval
        self._max_bytes, self._on_error = max_bytes, on_error
        self._pid = os.getpid()
        self._numbers: dict[Stack, int] = {}
        self._in_file: set[int] = set()
        self._next_number = 0
        self._lines: list[bytes] = []
        self._written = self._buffered = 0
        self._flushed = time.monotonic()
        self._closed = False
        self._end: int | None = None  # where it says that it ended, if it does
        self._descriptor = _open(self.path)
        first = {
            "kind": FIRST,
            "version": VERSION,
            "at": time.time() if at is None else at,
            "program": [_short(word) for word in program[:_MOST_WORDS]],
            "interval": interval,
            "machine": dict(machine or {}),
            **(versions or {}),
        }
        try:
            os.ftruncate(self._descriptor, 0)
            _write(self._descriptor, line := _line(first))
        except OSError:
            os.close(self._descriptor)
            raise
        self._written = len(line)

    @property
    def size(self) -> int:
        return self._written + self._buffered

    def process(self, at: float, pid: int, **facts: "Any") -> None:
        """Note a process when it is first seen, and again when something of it changed.

        Parameters
        ----------
        at : float
            Seconds since 1970.
        pid : int
            Its id.
        **facts
            ``parent`` (its process id), ``started`` (seconds since 1970, which tells it from others
            with its id), ``command``, ``policy``, ``memory_count``; ``memory_limit``,
            ``cache_limit``, ``wired_limit`` in bytes, with None or 2**63 and more for no limit.
        """
        for name in LIMITS:
            if name in facts:
                facts[name] = limit_or_none(facts[name])
        if facts.get("command") is not None:
            facts["command"] = _short(facts["command"])
        self._add("process", {"at": at, "pid": pid, **facts})

    def sample(self, at: float, pid: int, *, footprint: int, **values: "int | None") -> None:
        """Note what a process holds.

        Parameters
        ----------
        at, pid
            As for `process`.
        footprint : int
            Bytes, as all sizes here.
        **values
            ``active``, ``cache``, ``slack``, ``wired``, ``peak``, ``resident``, ``swap``;
            ``waiting``, how many requests wait now; and how often it happened since the process
            began: ``refusals``, ``waits``, ``overruns``, ``trims``, ``evictions``.
        """
        self._add("sample", {"at": at, "pid": pid, "footprint": footprint, **values})

    def pool(self, at: float, *, used: int, limit: "int | None", **values: int) -> None:
        """Note what all processes hold together.

        Parameters
        ----------
        at : float
            Seconds since 1970.
        used : int
            Bytes.
        limit : int or None
            Bytes; None for none.
        **values
            ``peak``, ``refusals``, ``waits``, and ``members``, the number of processes.
        """
        fields = {"at": at, "limit": limit_or_none(limit), "used": used, **values}
        self._add("pool", fields)

    def refusal(
        self,
        at: float,
        pid: int,
        *,
        requested: int,
        holders: "Iterable[Holder]" = (),
        **numbers: "Any",
    ) -> None:
        """Note that a process was refused memory.

        Parameters
        ----------
        at, pid
            As for `process`.
        requested : int
            Bytes.
        holders : iterable of Holder
            Who held most then.
        **numbers
            ``limit``, ``active``, ``cache``, ``slack``, ``blocked_by``, as `MemoryLimitError`
            has them.
        """
        if "limit" in numbers:
            numbers["limit"] = limit_or_none(numbers["limit"])
        stacks: list[Stack] = []
        fields = {"at": at, "pid": pid, "requested": requested, **numbers}
        self._add("refusal", {**fields, "holders": self._holders(holders, stacks)}, stacks)

    def holders(self, at: float, pid: int, holders: "Iterable[Holder]") -> None:
        """Note who holds the memory of a process.

        Parameters
        ----------
        at, pid
            As for `process`.
        holders : iterable of Holder
            As `memlimits.holders` returns them.
        """
        stacks: list[Stack] = []
        held = self._holders(holders, stacks)
        self._add("holders", {"at": at, "pid": pid, "holders": held}, stacks)

    def snapshot(
        self,
        at: float,
        pid: int,
        *,
        stats: "Mapping[str, Any]",
        blocks: "Iterable[tuple[int, int, int, str, Frames | None]]",
        holders: "Iterable[Holder]" = (),
        budgets: "Iterable[Mapping[str, Any]]" = (),
        **fields: "Any",
    ) -> None:
        """Note all that a process has.

        Parameters
        ----------
        at, pid
            As for `process`.
        stats : mapping
            Of ``stats()._asdict()``.
        blocks : iterable of tuple
            One a resource: its address, its bytes, how many of them are in callers' hands;
            ``"block"`` for a resource in use, ``"slab"`` for one cut into small blocks, ``"idle"``
            for one kept for reuse; and the stack of who allocated it, or None. Of more than fit
            into a 16th of the file the largest stay.
        holders, budgets
            As `Snapshot` has them.
        **fields
            Further fields, such as why it was taken.
        """
        most = self._max_bytes // 16
        rows, left_out = _largest(list(blocks), most)
        stacks: list[Stack] = []
        entry = {"at": at, "pid": pid, "stats": _plain(stats)}
        entry |= {"budgets": [_plain(budget) for budget in budgets], **fields}
        entry["holders"] = self._holders(holders, stacks)
        entry["blocks"] = [[*row[:4], self._number(row[4], stacks)] for row in rows]
        self._add("snapshot", {**entry, "blocks_left_out": left_out}, stacks)

    def end(self, at: float, pid: int, ending: str, **fields: "Any") -> None:
        """Note that a process is no more: it ``"exited"``, or ``"vanished"`` amid something.

        Parameters
        ----------
        at, pid
            As for `process`.
        ending : str
            How.
        **fields
            Further fields, such as the exit status.
        """
        self._add("end", {"at": at, "pid": pid, "ending": ending, **fields})

    def flush(self) -> None:
        """Have the file have all of it; so may be called by whoever will not write for long."""
        if os.getpid() != self._pid or self.error is not None or self._closed:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._buffered = 0
        self._flushed = time.monotonic()
        try:
            self._written += _write(self._descriptor, data)
        except OSError as error:
            self._fail(error)

    def pause(self, at: "float | None" = None, *, lost: int = 0) -> None:
        """Note that the recording ended in order, and have the file have all of it.

        What is added later takes that back.

        Parameters
        ----------
        at : float, optional
            Seconds since 1970; now unless given.
        lost : int
            How many refusals and notes of holders there was no room for on the way here.
        """
        if self._end is not None:
            return
        self.flush()
        missing = {"lost": lost} if lost else {}
        self._add("closed", {"at": time.time() if at is None else at, **missing})
        length = self._buffered
        self.flush()
        self._end = self._written - length

    def close(self, at: "float | None" = None, *, lost: int = 0) -> None:
        """Note that the recording ended in order, as `pause` does, and close the file.

        Again it does nothing.

        Parameters
        ----------
        at, lost
            As for `pause`.
        """
        if self._closed:
            return
        self.pause(at, lost=lost)
        self._closed = True
        os.close(self._descriptor)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, kind: str, fields: "Mapping[str, Any]", stacks: "Sequence[Stack]" = ()) -> None:
        """Write an entry, behind those of its stacks that the file has not."""
        if self.error is not None or self._closed or os.getpid() != self._pid:
            return
        if self._end is not None:
            self._go_on(self._end)
        line = _line({"kind": kind, **fields})
        lines = [*self._missing(stacks), line]
        if self.size + sum(map(len, lines)) > self._max_bytes:
            self._thin(stacks)
            lines = [*self._missing(stacks), line]
            if self.error is not None or self.size + sum(map(len, lines)) > self._max_bytes:
                return
        self._in_file.update(self._numbers[stack] for stack in stacks)
        self._lines += lines
        self._buffered += sum(map(len, lines))
        late = time.monotonic() - self._flushed >= _BUFFERED_SECONDS
        if late or self._buffered >= _BUFFERED:
            self.flush()

    def _go_on(self, end: int) -> None:
        self._end = None
        try:
            os.ftruncate(self._descriptor, end)
            self._written = end
        except OSError as error:
            self._fail(error)

    def _missing(self, stacks: "Sequence[Stack]") -> "list[bytes]":
        numbers = {stack: self._numbers[stack] for stack in stacks}
        return [
            _line({"kind": "stack", "id": number, "frames": stack})
            for stack, number in numbers.items()
            if number not in self._in_file
        ]

    def _holders(
        self, holders: "Iterable[Holder]", stacks: "list[Stack]"
    ) -> "list[dict[str, Any]]":
        return [
            {
                "stack": self._number(holder.stack, stacks),
                "file": holder.file,
                "line": holder.line,
                "function": holder.function,
                "nbytes": holder.nbytes,
                "blocks": holder.blocks,
            }
            for holder in holders
        ]

    def _number(self, frames: "Frames | None", stacks: "list[Stack]") -> "int | None":
        """Return the number of a stack, and add it to those that the entry needs."""
        if not frames:
            return None
        if len(frames) > _OUTER_FRAMES + _INNER_FRAMES:
            frames = [*frames[:_OUTER_FRAMES], *frames[-_INNER_FRAMES:]]
        stack = tuple((file, line, function) for file, line, function in frames)
        number = self._numbers.get(stack)
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
            self._numbers[stack] = number
        stacks.append(stack)
        return number

    def _thin(self, stacks: "Sequence[Stack]") -> None:
        """Have a shorter file take the place of this one. The numbers of these stacks stay."""
        self.flush()
        if self.error is not None or os.getpid() != self._pid:
            return
        try:
            if not os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
                raise FileNotFoundError(errno.ENOENT, "another file took its place", self.path)
            thinned = compaction.compact(self.path, self._max_bytes, self.interval)
            os.close(self._descriptor)
            self._descriptor = thinned.descriptor
        except OSError as error:
            self._fail(error)
            return
        self.interval, self._written = thinned.interval, thinned.size
        self._in_file = thinned.stacks
        wanted = {self._numbers[stack] for stack in stacks} | self._in_file
        self._numbers = {k: number for k, number in self._numbers.items() if number in wanted}

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._lines.clear()
        self._numbers.clear()
        self._in_file.clear()
        if self._on_error is not None:
            self._on_error(error)


def _open(path: str) -> int:
    if path.endswith((".gz", ".xz", ".bz2", ".zst")):
        raise ValueError(
            f"invalid file {path!r}: a recording is not compressed while it is written, so that it "
            "can be read whenever that ends; leave the last part of the name out"
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    status = os.fstat(descriptor)
    start = b'{"kind":"memlimits recording"'
    if not os.path.isfile(path) or (status.st_size and os.pread(descriptor, 29, 0) != start):
        os.close(descriptor)
        raise FileExistsError(
            errno.EEXIST, "there is something that is no recording: write another name", path
        )
    if not _lock(descriptor):
        os.close(descriptor)
        raise FileExistsError(
            errno.EEXIST, "another process records to it now: write another name", path
        )
    return descriptor


def _lock(descriptor: int) -> bool:
    """Wait a little: a recorder stays for what the last process of its program has started."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        else:
            return True


def _write(descriptor: int, data: bytes) -> int:
    """Write lines; where not all can be, leave whole ones, and raise."""
    view, done = memoryview(data), 0
    try:
        while done < len(data):
            done += os.write(descriptor, view[done:])
    except OSError:
        torn = done - (data.rfind(b"\n", 0, done) + 1)
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - torn)
        raise
    return done


def _line(entry: "Mapping[str, Any]") -> bytes:
    text = json.dumps(entry, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def _short(word: str) -> str:
    return word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"


def _plain(values: "Mapping[str, Any]") -> "dict[str, Any]":
    return {name: limit_or_none(v) if name in LIMITS else v for name, v in values.items()}


_ROW = 60  # characters that a block takes, about


def _largest(blocks: "list[Any]", most: int) -> "tuple[list[Any], int]":
    """Return as many of the largest as take so many bytes in the file; and how many others."""
    number = max(1, most // _ROW)
    if len(blocks) <= number:
        return blocks, 0
    chosen = sorted(range(len(blocks)), key=lambda place: -blocks[place][1])[:number]
    return [blocks[place] for place in sorted(chosen)], len(blocks) - number
