"""Finding a program, and what the interpreter does before it runs one."""

import builtins
import os
import sys
from _frozen_importlib import BuiltinImporter
from _frozen_importlib_external import PathFinder

from memlimits.cli import _start
from memlimits.cli.modules import let_go_of_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Program:
    """A program that was found and can be started, once.

    Attributes
    ----------
    argv : list of str
        `sys.argv` for it.
    path0 : str or None
        The first entry of `sys.path` for it; None where the interpreter would add none.
    code : tuple of (str, str)
        What `_start.leave_for` is to run.
    """

    def __init__(self, argv: "list[str]", path0: "str | None", kind: str, what: str) -> None:
        self.argv = argv
        self.path0 = path0
        self.code = kind, what


def find(words: "Sequence[str]") -> Program:
    """Find the program of a command line, as the interpreter does.

    Parameters
    ----------
    words : sequence of str
        ``script.py ARGS...``, ``-m module ARGS...``, ``-c code ARGS...`` or ``- ARGS...``.

    Raises
    ------
    OSError
        The script cannot be read.
    """
    first = words[0]
    if first == "-m":
        return Program(["-m", *words[2:]], _unless_safe(_working_directory()), "module", words[1])
    if first == "-c":
        return Program(["-c", *words[2:]], _unless_safe(""), "command", _command(words[1]))
    if first == "-":
        return Program([*words], _unless_safe(""), "stdin", "")
    # The interpreter makes the name absolute, and leaves it otherwise as it was written.
    path = os.path.join(_working_directory() or "", first)
    if _is_importable_from(path):
        return Program([*words], path, "directory", "__main__")
    _start.open_script(os.open(path, os.O_RDONLY))
    directory = os.path.dirname(os.path.realpath(path))
    return Program([*words], _unless_safe(directory), "script", path)


def what_is_meant_by(name: str) -> str:
    """Return a line on what may be meant by a script that does not exist, or nothing."""
    if name.startswith("python"):
        return f"\nLeave {name!r} out: its options and the program follow `memlimits run` directly"
    spec = PathFinder.find_spec(name, None) if name.isidentifier() else None
    if spec is not None and spec.submodule_search_locations is not None:
        spec = PathFinder.find_spec(f"{name}.__main__", spec.submodule_search_locations)
    if spec is not None:
        return f"\nTo run the module: memlimits run -m {name}"
    import shutil  # what a program that is found does without

    if shutil.which(name) is not None:
        return f"\n{name!r} is a command, and what runs here is Python: a script, -m or -c"
    return ""


def start(program: Program, adopt: "Callable[[], object]") -> None:
    """Leave for a program: it runs after all frames of the command, whose last call is `adopt`.

    Raises
    ------
    memlimits.cli._start.Start
        Always. It must reach the interpreter uncaught.
    """
    _start.leave_for(program.code, adopt)


def adopt(program: Program, orig_argv: "list[str]", known: "frozenset[str]") -> None:
    """Put the interpreter into the state that a program, and what it imports, must find.

    Parameters
    ----------
    program : Program
        The program that is to run.
    orig_argv : list of str
        `sys.orig_argv` for it.
    known : frozenset of str
        The modules that the interpreter had imported before the command.
    """
    # The interpreter put one of these first for the ``memlimits`` command, if it put any.
    ours = (_working_directory(), os.path.dirname(os.path.realpath(sys.argv[0])))
    if not sys.flags.safe_path and sys.path[0] in ours:
        del sys.path[0]
    sys.argv = program.argv
    sys.orig_argv = orig_argv
    if program.path0 is not None:
        sys.path.insert(0, program.path0)
    _clear_main()
    let_go_of_modules(known)


def _working_directory() -> "str | None":
    try:
        return os.getcwd()
    except OSError:  # It was deleted.
        return None


def _unless_safe(path0: "str | None") -> "str | None":
    return None if sys.flags.safe_path else path0


def _is_importable_from(path: str) -> bool:
    """Tell whether a path is a directory, a zip file or the like, with a ``__main__`` inside."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _command(text: str) -> str:
    """Return the code of ``-c`` as this version of Python takes it: indented or not."""
    if sys.version_info < (3, 14):
        return text
    lines = text.split("\n")
    indents = [line[: -len(line.lstrip(" \t"))] for line in lines if line.strip(" \t")]
    common = _common_start(indents)
    if not common:
        return text
    return "\n".join(line.removeprefix(common) if line.strip(" \t") else "" for line in lines)


def _common_start(texts: "list[str]") -> str:
    if not texts:
        return ""
    first, last = min(texts), max(texts)
    length = 0
    while length < len(first) and first[length] == last[length]:
        length += 1
    return first[:length]


def _clear_main() -> None:
    """Give ``__main__`` what it has in a new interpreter, in the same order.

    It stays the module it is: the interpreter uses its dictionary after the program has ended.
    """
    names = vars(sys.modules["__main__"])
    names.clear()
    names.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=BuiltinImporter,
        __spec__=None,
    )
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
