"""Limits for cells of IPython and Jupyter: ``%load_ext memlimits``.

A cell's limits are closed by the event that IPython triggers when a cell has ended, in whatever
way: one with ``await`` runs in a task, so nothing can stand around it. The first line of the cell
becomes a call that opens them.
"""

import contextlib
import gc
import re
import shlex
import threading

import memlimits
from memlimits import memory
from memlimits.adapters._failed import clear_frames, numbers_of
from memlimits.errors import is_refusal
from memlimits.figures import MAIN, holders_html, table_html
from memlimits.sizes import format_size, parse_size, show

try:
    from IPython.core.error import UsageError
    from IPython.core.inputtransformer2 import cell_magic
    from IPython.display import display
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "memlimits.adapters.jupyter needs IPython: pip install ipython",
        name="IPython",
    ) from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["load", "unload"]

_NAME = "memory_limit"
# What the kernel needs of Python's objects to tell how a cell ended.
_LEAST_ROOM = 16 << 20
_SAMPLE = 1 << 20
_MOST_HOLDERS = 10_000
# A cell that looks into the frames of the last error.
_DEBUGS = re.compile(r"\b(debug|pdb|ipdb|pm|post_mortem|last_traceback|last_value|last_exc)\b")

_loaded: "dict[int, Magics]" = {}


def load(shell: "Any") -> None:
    """Add the magics to a shell of IPython's, as ``%load_ext memlimits`` does.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
        Such as ``get_ipython()``. Where it has them nothing is done.

    See Also
    --------
    unload : take them out.

    Examples
    --------
    >>> from IPython.core.interactiveshell import InteractiveShell
    >>> from memlimits.adapters import jupyter
    >>> shell = InteractiveShell()
    >>> jupyter.load(shell)
    >>> "memory_limit" in shell.magics_manager.magics["cell"]
    True
    >>> jupyter.unload(shell)
    """
    if id(shell) not in _loaded:
        _loaded[id(shell)] = Magics(shell)


def unload(shell: "Any") -> None:
    """Take the magics out of a shell, as ``%unload_ext memlimits`` does.

    A limit that is open is closed.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
        Where it has none nothing is done.

    See Also
    --------
    load : add them.

    Examples
    --------
    >>> from IPython.core.interactiveshell import InteractiveShell
    >>> from memlimits.adapters import jupyter
    >>> shell = InteractiveShell()
    >>> jupyter.load(shell)
    >>> jupyter.unload(shell)
    >>> "memory_limit" in shell.magics_manager.magics["cell"]
    False
    """
    if magics := _loaded.pop(id(shell), None):
        magics.take_out()


class Magics:
    """What one shell has: two magics, and what happens around its cells."""

    def __init__(self, shell: "Any") -> None:
        self._shell = shell
        self._threads = threading.local()  # cells of subshells run on threads of their own
        self._open: set[contextlib.ExitStack] = set()
        self._failed: BaseException | None = None
        self._samples = False
        shell.register_magic_function(self.memory_limit, "line_cell", _NAME)
        shell.register_magic_function(self.memory_stats, "line", "memory_stats")
        shell.input_transformers_cleanup.append(self._unfold)
        for event, what in self._events().items():
            shell.events.register(event, what)

    def _events(self) -> "dict[str, Any]":
        return {
            "pre_execute": self._before,
            "post_execute": self._after,
            "pre_run_cell": self._let_go,
            "post_run_cell": self._tell,
        }

    def take_out(self) -> None:
        """Undo all that was done to the shell, and set the samples to what they were."""
        for event, what in self._events().items():
            self._shell.events.unregister(event, what)
        self._shell.input_transformers_cleanup.remove(self._unfold)
        for kind in self._shell.magics_manager.magics.values():
            kind.pop(_NAME, None)
            kind.pop("memory_stats", None)
        for ends in list(self._open):
            self._close(ends)
        if self._samples:
            memlimits.set_holder_sampling(None)

    # ---- a cell's limits ----

    def memory_limit(self, line: str, cell: "str | None" = None) -> None:
        """Refuse a cell what is above a limit: %%memory_limit 2GiB

        What NumPy's arrays and Python's objects take counts, and of earlier such cells what still
        lives. As a line, %memory_limit 2GiB, it holds from there to the end of the cell. Of two
        limits the lower one holds.
        """
        if cell is None:
            self._begin(line)
        else:  # from run_cell_magic(): in a cell the line alone is called
            before = self._before()
            try:
                self._begin(line)
                self._shell.run_cell(cell).raise_error()
            finally:
                self._close(before)
                self._cells().remove(before)

    def _unfold(self, lines: "list[str]") -> "list[str]":
        """Put a call in place of a cell's first line: so the rest is a cell like any other."""
        if not lines or not lines[0].startswith(f"%%{_NAME}"):
            return lines
        name, _, line = lines[0][2:].strip().partition(" ")
        if name != _NAME:
            return lines
        call = f"get_ipython().run_line_magic({_NAME!r}, {line.strip()!r})\n"
        rest: list[str] = cell_magic(self._unfold(lines[1:]))  # type: ignore[no-untyped-call]
        return [call, *rest]

    def _begin(self, line: str) -> None:
        limit = _limit(line)
        if not self._cells():  # it was loaded in this very cell
            self._before()
        with contextlib.ExitStack() as ends:
            ends.callback(memlimits.clear_cache)
            ends.enter_context(memlimits.limits(memory=limit, policy="strict"))
            if memlimits._numpy_is_there():
                ends.enter_context(memlimits.govern_numpy())
            ends.enter_context(memlimits.govern_python())
            self._cells()[-1].enter_context(ends.pop_all())
        if memlimits.get_holder_sampling() is None:
            memlimits.set_holder_sampling(_SAMPLE)
            self._samples = True

    def _cells(self) -> "list[contextlib.ExitStack]":
        """Of the cells that run on this thread, one in another, what their ends close."""
        cells: list[contextlib.ExitStack] = self._threads.__dict__.setdefault("cells", [])
        return cells

    def _before(self) -> contextlib.ExitStack:
        ends = contextlib.ExitStack()
        self._open.add(ends)
        self._cells().append(ends)
        return ends

    def _after(self) -> None:
        # An empty cell has no beginning.
        if cells := self._cells():
            self._close(cells.pop())

    def _close(self, ends: contextlib.ExitStack) -> None:
        self._open.discard(ends)
        ends.close()

    # ---- a refusal ----

    def _tell(self, result: "Any") -> None:
        """Show the numbers under a cell that ended by a refusal, whoever set the limit."""
        error = result and (result.error_in_exec or result.error_before_exec)
        if not isinstance(error, BaseException) or not is_refusal(error):
            return
        self._failed = error
        rows, holders = numbers_of(error)
        holders = [one._replace(file=self._place(one.file)) for one in holders]
        lines = [f"  {name:<13} {value}" for name, value in rows]
        lines += [f"  {'held by' * (not i):<13} {one}" for i, one in enumerate(holders)]
        html = table_html(rows) + (holders_html(holders) if holders else "")
        _show("\n".join(["memory refused:", *lines]), f"<b>Memory refused</b>{html}")

    def _place(self, file: str) -> str:
        """Return what IPython calls a file: that of a cell has a name that nobody knows."""
        words = getattr(self._shell.compile, "format_code_name", lambda _: None)(file)
        return " ".join(words) if words else file

    def _let_go(self, info: "Any") -> None:
        """Have what the frames of a refused cell hold be free for the next, unless that debugs."""
        if self._failed is None or _DEBUGS.search(info.raw_cell or ""):
            return
        failed, self._failed = self._failed, None
        clear_frames(failed)
        gc.collect()
        memlimits.clear_cache()

    # ---- figures ----

    def memory_stats(self, line: str) -> "memlimits.figures.Stats | None":
        """Show limits and counters: %memory_stats [--all] [--holders N] [--reset-peak] [-o]

        --all, -a: every counter. --holders N, -n N: the lines that hold most, too. --reset-peak,
        -r: set the peak to 0. -o: return the object, too.
        """
        wanted = _options(line)
        stats = memlimits.stats(reset_peak=wanted["reset_peak"])
        values = stats._asdict()
        names = list(values) if wanted["all"] else MAIN
        rows = [(name, show(name, values[name])) for name in names]
        holders = [
            one._replace(file=self._place(one.file))
            for one in memlimits.holders(min(wanted["holders"], _MOST_HOLDERS))
        ]  # fmt: skip
        lines = [f"{name:<32}  {value}" for name, value in rows] + [f"held by {h}" for h in holders]
        _show("\n".join(lines), table_html(rows) + (holders_html(holders) if holders else ""))
        return stats if wanted["o"] else None


def _show(plain: str, html: str) -> None:
    display({"text/plain": plain, "text/html": html}, raw=True)  # type: ignore[no-untyped-call]


def _limit(line: str) -> int:
    """Return the limit that a cell is to have.

    Raises
    ------
    UsageError
        The line is no size, or leaves too little.
    """
    if not line.strip():
        raise UsageError(f"%%{_NAME} takes a size: %%{_NAME} 2GiB")
    try:
        limit = parse_size(line.strip())
    except ValueError as error:
        raise UsageError(f"%%{_NAME}: {error}") from None
    if limit < _used() + _LEAST_ROOM:
        gc.collect()  # what earlier cells made in circles
    used = _used()
    if limit < used + _LEAST_ROOM:
        raise UsageError(
            f"%%{_NAME} {line.strip()} leaves too little: {format_size(used)} are in use already, "
            f"and the kernel needs {format_size(_LEAST_ROOM)}"
        )
    return min(limit, memlimits.get_memory_limit())


def _used() -> int:
    counters = memory.counters()
    return counters["footprint"] - counters["cache"]


def _options(line: str) -> "dict[str, Any]":
    found: dict[str, Any] = {"all": False, "holders": 0, "reset_peak": False, "o": False}
    short = {"-a": "all", "-n": "holders", "-r": "reset_peak", "-o": "o"}
    long = {"--all": "all", "--holders": "holders", "--reset-peak": "reset_peak"}
    try:
        words = iter(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"%memory_stats {line}: {error}") from None
    for word in words:
        name, equals, value = word.partition("=")
        option = (short | long).get(name)
        if option == "holders":
            found[option] = _count(value if equals else next(words, ""))
        elif option is None or equals:
            raise UsageError(
                f"%memory_stats: no such option {word!r}; it takes --all, --holders N, "
                "--reset-peak and -o"
            )
        else:
            found[option] = True
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"%memory_stats --holders takes a number of lines, not {text!r}")
    return int(text)
