"""Running a program as ``__main__``, the way the interpreter does."""

import builtins
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from types import ModuleType, TracebackType
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A program that was found and can be started, once."""

    argv: list[str]
    """`sys.argv` for it."""
    path0: str | None
    """The first entry of `sys.path` for it; None where the interpreter would add none."""
    start: Callable[[], None]
    """Runs its code as ``__main__``."""


def find(words: Sequence[str]) -> Program:
    """Find the program of a command line: ``script.py ARGS...`` or ``-m module ARGS...``.

    Raises
    ------
    OSError
        The script cannot be read.
    """
    first, args = words[0], list(words[1:])
    if first == "-m":
        return _module(args[0], args[1:])
    # The interpreter makes the name absolute, and leaves it otherwise as it was written.
    path = os.path.join(_working_directory() or "", first)
    if _is_importable_from(path):
        return Program([first, *args], path, lambda: _run_main_module("__main__", named=False))
    return _script(path, [first, *args])


def adopt(program: Program) -> None:
    """Put `sys.argv` and `sys.path` as the program, and what it imports, must find them."""
    # The interpreter put one of these first for the ``memlimits`` command, if it put any.
    ours = (_working_directory(), os.path.dirname(os.path.realpath(sys.argv[0])))
    if not sys.flags.safe_path and sys.path[0] in ours:
        del sys.path[0]
    sys.argv = program.argv
    if program.path0 is not None:
        sys.path.insert(0, program.path0)


def run(program: Program) -> None:
    """Run an adopted program; leave by the exception that ended it, if one did.

    That exception must reach the interpreter uncaught: it then prints the traceback through
    `sys.excepthook`, without the frames of memlimits, and exits as it does for any program.
    """
    try:
        program.start()
    except SystemExit:
        raise
    except BaseException as error:
        _leave_to_interpreter(error)
        raise


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # It was deleted.
        return None


def _is_importable_from(path: str) -> bool:
    """Tell whether a path is a directory, a zip file or the like, with a ``__main__`` inside."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _module(name: str, args: list[str]) -> Program:
    path0 = None if sys.flags.safe_path else _working_directory()
    return Program(["-m", *args], path0, lambda: _run_main_module(name, named=True))


def _run_main_module(name: str, *, named: bool) -> None:
    # The function behind `python -m`; runpy.run_module() would take __main__ away at the end,
    # under threads and atexit callbacks that still need it.
    from runpy import _run_module_as_main  # type: ignore[attr-defined]

    _new_main(BuiltinImporter)
    _run_module_as_main(name, alter_argv=named)


def _script(path: str, argv: list[str]) -> Program:
    with open(path, "rb") as file:
        source = file.read()
    compiled = path.endswith(".pyc") or source.startswith(MAGIC_NUMBER[:2])
    loader = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)

    def start() -> None:
        main = _new_main(loader, __file__=path, __cached__=None)
        code: Any
        if compiled:
            code = loader.get_code("__main__")
        else:
            code = compile(source, path, "exec", dont_inherit=True)
        exec(code, main.__dict__)

    path0 = None if sys.flags.safe_path else os.path.dirname(os.path.realpath(path))
    return Program(argv, path0, start)


def _new_main(loader: object, **attributes: object) -> ModuleType:
    """Register a new ``__main__`` with what the interpreter gives it, in the same order."""
    main = ModuleType("__main__")
    main.__dict__.update(__loader__=loader, __annotations__={}, __builtins__=builtins, **attributes)
    sys.modules["__main__"] = main
    return main


def _leave_to_interpreter(error: BaseException) -> None:
    """Have the interpreter print an exception as if there were no frames but the program's."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    hook = getattr(sys, "excepthook", sys.__excepthook__)

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> Any:
        # The frames left on the way to here went into the traceback again.
        sys.excepthook = hook
        error.__traceback__ = sys.last_traceback = traceback
        try:
            return hook(kind, error, traceback)
        except BaseException as second:
            # The interpreter prints this one too. A bare `raise` adds no entry for this frame.
            second.__traceback__ = second.__traceback__ and second.__traceback__.tb_next
            raise

    sys.excepthook = show
