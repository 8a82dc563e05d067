"""What reads a recording, line by line, whatever its length."""

import json
import os
import stat

from memlimits.recording.entries import FIRST, VERSION, RecordingError, wrong_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

__all__ = ["Reader"]

_WAY_OUT = "; memlimits run --record FILE makes one"
_LONGEST = 64 << 20  # bytes of a line


class Reader:
    """The entries of a recording, in the order in which they lie in the file.

    Iterating reads the file line by line; it can be done again, and while the file is still
    written. A line that is cut off at the end of the file is not an entry as yet. Lines that are
    damaged are skipped and counted.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Attributes
    ----------
    path : str
        The file.
    first : dict
        The first line: what was recorded when, and on what machine.
    cut_off : bool
        Whether the last line was, as seen when that was read.
    damaged : int
        Lines that were no entries of this format, in the last iteration.
    where : int
        The number of the first of them, the file's first line being 1; 0 without any.

    Raises
    ------
    RecordingError
        It is no recording, or one of a later version.
    OSError
        The file cannot be read.

    See Also
    --------
    load : have it in memory, thinned.
    Writer : write one.

    Examples
    --------
    How much the first process of a recording held at most:

    >>> import os, tempfile
    >>> from memlimits.recording import Reader, Writer
    >>> path = os.path.join(tempfile.mkdtemp(), "run.rec")
    >>> with Writer(path) as writer:
    ...     for second in range(3):
    ...         writer.sample(second, 71, footprint=second << 20)
    >>> max(entry["footprint"] for entry in Reader(path) if entry["kind"] == "sample")
    2097152
    """

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = os.fspath(path)
        self.cut_off = False
        self.damaged = self.where = 0
        with open(self.path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RecordingError(
                    f"{self.path}: no ordinary file: a recording is read more than once, so write "
                    "what comes from a pipe into a file first"
                )
            self.first = self._read_first(file.readline(_LONGEST))

    def _read_first(self, line: bytes) -> "dict[str, Any]":
        if not line:
            raise RecordingError(
                f"{self.path}: not a recording of memlimits: it is empty{_WAY_OUT}"
            )
        first = _entry(line)
        if first is None or first.get("kind") != FIRST:
            raise RecordingError(
                f"{self.path}: not a recording of memlimits: its first line is not that of one"
                f"{_WAY_OUT}"
            )
        version = first.get("version")
        if type(version) is int and version > VERSION:
            raise RecordingError(
                f"{self.path}: a recording in version {version} of the format, of which this "
                f"memlimits knows {VERSION}: read it with a later one"
            )
        wrong = wrong_field(first)
        if wrong is not None or version != VERSION:
            raise RecordingError(
                f"{self.path}: not a recording of memlimits: its first line has no right "
                f"{wrong or 'version'}{_WAY_OUT}"
            )
        return first

    def __iter__(self) -> "Iterator[dict[str, Any]]":
        return (entry for _, entry in self.with_offsets())

    def with_offsets(self) -> "Iterator[tuple[int, dict[str, Any]]]":
        """Yield each entry behind where in the file its line begins.

        Yields
        ------
        tuple of (int, dict)
            The place, in bytes, and the entry.
        """
        self.cut_off, self.damaged, self.where = False, 0, 0
        with open(self.path, "rb") as file:
            number, offset = 1, len(_read_line(file))
            while line := _read_line(file):
                number += 1
                entry = _entry(line)
                if entry is None and not line.endswith(b"\n") and len(line) < _LONGEST:
                    self.cut_off = True
                    return
                if entry is None or entry["kind"] == FIRST or wrong_field(entry) is not None:
                    self.damaged += 1
                    self.where = self.where or number
                else:
                    yield offset, entry
                offset = file.tell()

    def at_offset(self, offset: int) -> "dict[str, Any]":
        """Return the entry whose line begins there.

        Parameters
        ----------
        offset : int
            Where in the file, in bytes.

        Returns
        -------
        dict
            The entry.

        Raises
        ------
        RecordingError
            The file was changed meanwhile.
        """
        with open(self.path, "rb") as file:
            file.seek(offset)
            entry = _entry(file.readline(_LONGEST))
        if entry is None or wrong_field(entry) is not None:
            raise RecordingError(f"{self.path}: it was changed while it was read; try again")
        return entry


def _read_line(file: "BinaryIO") -> bytes:
    """Return a line; of one that is too long the beginning, without the end of a line."""
    line = file.readline(_LONGEST)
    if len(line) == _LONGEST and not line.endswith(b"\n"):
        while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
            pass
    return line


def _entry(line: bytes) -> "dict[str, Any] | None":
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if type(entry) is dict and type(entry.get("kind")) is str else None
