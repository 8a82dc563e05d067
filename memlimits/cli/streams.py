"""The standard streams, for what the command says after the program has used them."""

import os
import sys
from _signal import SIG_DFL, SIG_IGN, SIGPIPE, getsignal, signal  # type: ignore[import-not-found]

from memlimits import _modules
from memlimits.cli.errors import OutputError


def flush() -> None:
    """Let out what the program wrote and a buffer still holds."""
    for stream in (sys.stdout, sys.stderr):
        # The interpreter flushes again when it exits, and reports the failure.
        try:
            stream.flush()
        except Exception:
            continue


def put(text: str) -> None:
    """Write to standard output, and have it written; where that was closed, nobody wants to know.

    Raises
    ------
    OutputError
        It cannot be.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from None


def say(text: str, *, flushed: bool = True) -> None:
    """Write lines to standard error; where that is broken or closed, do nothing.

    They go to the file descriptor: text stuck in the buffer of a broken `sys.stderr` would change
    the exit status, and a program may have put something else there. A file that only has the
    number of standard error, which was closed, gets none. In a signal handler the streams may be
    in use, and are not to be flushed.
    """
    if sys.__stderr__ is None:  # Closed from the start: descriptor 2 may now be any file.
        return
    if flushed:
        flush()
    data = "".join(f"memlimits: {line}\n" for line in text.splitlines())
    # A program may have chosen to die of a broken pipe; it must not die of ours.
    deadly = getsignal(SIGPIPE) == SIG_DFL
    if deadly:
        signal(SIGPIPE, SIG_IGN)
    if _modules.for_notes().may_go_to_stderr():
        _write(2, data.encode(errors="backslashreplace"))
    if deadly:
        signal(SIGPIPE, SIG_DFL)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError:
            return
