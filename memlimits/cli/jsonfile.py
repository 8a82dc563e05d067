"""A JSON file that appears whole or not at all."""

import errno
import os
import stat
import sys
from typing import Any

from memlimits.cli import streams


class JSONFile:
    """A file to be written once, at the end, that can be written now.

    An existing file is replaced. Something that is no plain file (a device, a pipe), or is where
    a standard stream goes, is appended to.

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def __init__(self, name: str) -> None:
        # Now: in the end `json` may be a module of the program's.
        from json import dumps

        self._dumps = dumps
        path = os.path.abspath(name)  # The program may change its directory.
        self._replace = _is_replaceable(path)
        self.path = os.path.realpath(path) if self._replace else path
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        if self._replace:
            os.unlink(self._create_beside())

    def write(self, value: Any) -> None:
        """Write a value.

        Raises
        ------
        OSError
            It cannot be written, now; an existing file is as it was.
        """
        data = self._dumps(value, indent=2).encode() + b"\n"
        if not self._replace:
            streams.flush()
            with open(self.path, "ab", buffering=0) as file:
                file.write(data)
            return
        scratch = self._create_beside()
        try:
            with open(scratch, "wb") as file:
                file.write(data)
            os.replace(scratch, self.path)
        except BaseException:
            os.unlink(scratch)
            raise

    def _create_beside(self) -> str:
        """Create an empty file in the same directory, and return its name."""
        scratch = os.path.join(os.path.dirname(self.path), f".memlimits-{os.urandom(8).hex()}")
        with open(scratch, "xb"):
            return scratch


def _is_replaceable(path: str) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # `--report /dev/stdout > log` must not put a new file in the place of the log.
    standard = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]
    return stat.S_ISREG(status.st_mode) and not any(
        os.path.samestat(status, os.fstat(stream.fileno())) for stream in standard
    )
