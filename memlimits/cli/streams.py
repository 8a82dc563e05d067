"""The standard streams, for what the command says after the program has used them."""

import contextlib
import os
import signal
import sys


def flush() -> None:
    """Let out what the program wrote and a buffer still holds."""
    for stream in (sys.stdout, sys.stderr):
        # The interpreter flushes again when it exits, and reports the failure.
        with contextlib.suppress(Exception):
            stream.flush()


def say(text: str, *, flushed: bool = True) -> None:
    """Write lines to standard error; where that is broken or closed, do nothing.

    They go to the file descriptor: text stuck in the buffer of a broken `sys.stderr` would change
    the exit status, and a program may have put something else there. In a signal handler the
    streams may be in use, and are not to be flushed.
    """
    if sys.__stderr__ is None:  # Closed from the start: descriptor 2 may now be any file.
        return
    if flushed:
        flush()
    data = "".join(f"memlimits: {line}\n" for line in text.splitlines())
    # A program may have chosen to die of a broken pipe; it must not die of ours.
    deadly = signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    if deadly:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.write(2, data.encode(errors="backslashreplace"))
    if deadly:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
