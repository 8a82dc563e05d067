"""Statistics of a program that runs, when a signal asks for them."""

from _signal import SIG_DFL, SIGUSR1, getsignal, signal  # type: ignore[import-not-found]

from memlimits.cli.report import statistics
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


# The file of the pool that the program's processes share.
_pool: "str | None" = None


def tell_when_asked(pool: "str | None" = None) -> None:
    """Let SIGUSR1 print the statistics, unless it is ignored; a handler set later takes its place.

    The interpreter does it on the main thread between two steps of Python: at once where Python
    sleeps or waits, which then goes on as it would have; else when the call of C code that is under
    way returns. A forked child tells of itself; and each of all processes of the program.

    Parameters
    ----------
    pool : str, optional
        The file of the pool that they share.
    """
    global _pool
    _pool = pool
    if getsignal(SIGUSR1) == SIG_DFL:
        signal(SIGUSR1, _tell)


def _tell(number: int, frame: "FrameType | None") -> None:
    # The program knows nothing of it: whatever goes wrong here is not its own.
    try:
        say(statistics(_pool), flushed=False)
    except Exception:
        return
