"""Statistics of a program that runs, when a signal asks for them."""

import contextlib
import signal
from types import FrameType

from memlimits.cli.report import statistics
from memlimits.cli.streams import say


def tell_when_asked() -> None:
    """Let SIGUSR1 print the statistics, unless it is ignored; a handler set later takes its place.

    The interpreter does it on the main thread between two steps of Python: at once where Python
    sleeps or waits, which then goes on as it would have; else when the call of C code that is under
    way returns. A forked child tells of itself.
    """
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, _tell)


def _tell(number: int, frame: FrameType | None) -> None:
    # The program knows nothing of it: whatever goes wrong here is not its own.
    with contextlib.suppress(Exception):
        say(statistics(), flushed=False)
