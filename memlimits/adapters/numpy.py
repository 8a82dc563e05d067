"""NumPy arrays in memlimits' memory: single ones, or all that a program makes."""

import contextvars
import threading
from types import TracebackType

from memlimits.adapters._numpy import empty, own_handler, set_handler, zeros

__all__ = ["Governing", "empty", "govern_numpy", "zeros"]

# Tells the context that a Governing was made in from every other.
_home: contextvars.ContextVar[None] = contextvars.ContextVar("memlimits_home")

# How many are open in this context, and the handler they replaced. NumPy keeps its handler in a
# context variable, so this is kept the same way.
_open_here: contextvars.ContextVar[tuple[int, object]] = contextvars.ContextVar(
    "memlimits_governing", default=(0, None)
)


class Governing:
    """NumPy's data allocations go through memlimits until `close`, or the end of the block.

    Made by `govern_numpy`. Several may be open at once, closed in any order; a second `close` does
    nothing.
    """

    def __init__(self) -> None:
        self._token = _home.set(None)
        self._closed = False
        _govern_this_context()
        _new_threads.add()

    def close(self) -> None:
        """Give NumPy the handler back that it had.

        Raises
        ------
        RuntimeError
            Called in another thread or context than `govern_numpy`.
        """
        if self._closed:
            return
        try:
            _home.reset(self._token)
        except ValueError:
            raise RuntimeError(
                "govern_numpy() was called in another thread or context: close it there"
            ) from None
        _leave_this_context()
        _new_threads.remove()
        self._closed = True

    def __enter__(self) -> "Governing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def govern_numpy() -> Governing:
    """Let NumPy's data allocations go through memlimits (NEP 49).

    It takes effect at once, in this context and in every thread that `threading` or
    `concurrent.futures` starts while it is on; such a thread stays governed until it ends. Arrays
    made before keep their memory; arrays made meanwhile keep theirs for as long as they live. Any
    array may be freed at any time, on any thread.

    Not governed: memory-mapped files, memory that C code asks ``malloc`` for, threads that already
    run, and threads started below `threading` (``_thread``, C).

    Returns
    -------
    Governing
        A context manager with `close`.
    """
    return Governing()


def _govern_this_context() -> None:
    count, replaced = _open_here.get()
    if count == 0:
        replaced = set_handler(own_handler())
    _open_here.set((count + 1, replaced))


def _leave_this_context() -> None:
    count, replaced = _open_here.get()
    if count == 1:
        set_handler(replaced)
        replaced = None
    _open_here.set((count - 1, replaced))


class _NewThreads:
    """Governs threads that start while anything is open: a new thread has an empty context.

    `Thread._bootstrap_inner` is the first of a thread's own Python that a subclass does not
    replace.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0

    def add(self) -> None:
        with self._lock:
            if self._open == 0:
                self._plain = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
                threading.Thread._bootstrap_inner = _bootstrap_governed  # type: ignore[attr-defined]
            self._open += 1

    def remove(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                threading.Thread._bootstrap_inner = self._plain  # type: ignore[attr-defined]

    def bootstrap(self, thread: threading.Thread) -> None:
        set_handler(own_handler())
        self._plain(thread)


_new_threads = _NewThreads()


def _bootstrap_governed(thread: threading.Thread) -> None:
    _new_threads.bootstrap(thread)
