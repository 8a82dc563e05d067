"""A JSON file, written into what is there under its name."""

import errno
import os
import stat
import time

from memlimits.cli import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_WAIT = 2.0  # seconds, for a reader that does not read


class JSONFile:
    """A file to be written once, at the end, that can be written now.

    What is there keeps its owner, mode and links: a plain file gets new contents; anything else (a
    device, a pipe), or a file that a standard stream goes to, is appended to. Nothing waits for the
    reader of a pipe for long.

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def __init__(self, name: str) -> None:
        # Now: in the end `json` may be a module of the program's.
        from json import dumps

        self._dumps = dumps
        self.path = os.path.abspath(name)  # The program may change its directory,
        self._mode = 0o666 & ~_mask()  # and its mask.
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            os.close(self._create())
            self._remove()
            return
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    def clear(self) -> None:
        """Empty a plain file that is there, so that what it says cannot pass for what is to come.

        Raises
        ------
        OSError
            It cannot be written.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return
        if stat.S_ISREG(status.st_mode) and not _is_standard_stream(status):
            _fill(_open(self.path, 0), b"", replace=True)

    def write(self, value: "Any") -> None:
        """Write a value.

        Raises
        ------
        OSError
            It cannot be written, or not to its end. A file that was not there before is not there
            then.
        """
        data = self._dumps(value, indent=2).encode() + b"\n"
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            self._write_new(data)
            return
        if stat.S_ISREG(status.st_mode) and not _is_standard_stream(status):
            descriptor = _open(self.path, 0)
            _fill(descriptor, data, replace=True)
        else:
            streams.flush()
            _fill(_open(self.path, os.O_APPEND), data, replace=False)

    def _write_new(self, data: bytes) -> None:
        descriptor = self._create()
        try:
            _fill(descriptor, data, replace=True)
        except OSError:
            self._remove()
            raise

    def _create(self) -> int:
        """Create an empty file, with the mode that it would have had at the start."""
        # A link that leads nowhere as yet stays, too.
        path = os.path.realpath(self.path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
        os.fchmod(descriptor, self._mode)
        return descriptor

    def _remove(self) -> None:
        os.unlink(os.path.realpath(self.path))


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_standard_stream(status: os.stat_result) -> bool:
    """Tell whether a standard stream goes there: `--report /dev/stdout > log` is not to cut it."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(status, os.fstat(descriptor)):
                return True
        except OSError:  # It is closed.
            continue
    return False


def _open(path: str, flags: int) -> int:
    # Whatever took its place meanwhile: a pipe without a reader is not to hold the process up.
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | flags)
    except OSError as error:
        if error.errno == errno.ENXIO:
            error.strerror = "nothing reads from it"
        raise


def _fill(descriptor: int, data: bytes, *, replace: bool) -> None:
    """Write all of it, and close."""
    try:
        length, end = len(data), time.monotonic() + _MOST_WAIT
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError as error:
                if time.monotonic() > end:
                    error.strerror = "what reads from it does not go on"
                    raise
                time.sleep(0.01)
        if replace:
            os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)
