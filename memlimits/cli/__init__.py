"""The ``memlimits`` command."""

import os
import sys
from _signal import SIGPIPE  # type: ignore[import-not-found]

from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence
    from types import ModuleType

_OWN = ("--version", "--help")
# But for ``run``.
_COMMANDS = {
    "info": "show the device, the limits and the counters",
    "top": "show what processes and pools hold, live",
    "pool": "make, show, change and remove budgets that processes share",
    "metrics": "show pools as metrics for Prometheus, or serve them",
    "convert": "make a report, a flame graph, a trace or a table of a recording",
    "plot": "draw a recording, for papers and slides",
}


def main(argv: "Sequence[str] | None" = None, known: "Iterable[str] | None" = None) -> int:
    """Run the ``memlimits`` command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.
    known : iterable of str, optional
        The modules that the interpreter had imported before the command; by default those up to
        `site`.

    Returns
    -------
    int
        The exit status. ``memlimits run`` does not return where it starts a program, but leaves by
        `memlimits.cli._start.Start`, which must reach the interpreter.
    """
    if argv is None:
        argv = sys.argv[1:]
    try:
        if argv and argv[0].startswith("--") and argv[0] not in _OWN:
            raise CommandError(
                f"{argv[0]!r}: options follow a command: memlimits run {argv[0]} ..."
            )
        if argv[:1] == ["run"]:
            from memlimits.cli.run import run

            run(argv[1:], known)
        elif argv[:1] == ["_record"]:  # a process of ours, started by `memlimits run --record`
            from memlimits.cli.recorder import record

            record(argv[1:])
        else:
            return _execute(argv)
    except CommandError as error:
        say(str(error))
        return 2
    return 0


def _execute(argv: "Sequence[str]") -> int:
    wanted = _parse(argv)
    command = getattr(_module(wanted.command), wanted.command)
    try:
        status: int | None = command(wanted)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read, such as `head`, has had enough: as what the signal for that would end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + int(SIGPIPE)
    return status or 0


def _parse(argv: "Sequence[str]") -> "Namespace":
    """Read the arguments of all but ``run``, which reads its own."""
    import argparse

    import memlimits

    parser = argparse.ArgumentParser(
        prog="memlimits", description="Memory limits for Python programs.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"memlimits {memlimits.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run a program inside memory limits", add_help=False)
    for name, text in _COMMANDS.items():
        description = f"{text[0].upper()}{text[1:]}."
        below = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        if name in argv[:1]:
            _module(name).add_arguments(below)
    return parser.parse_args(argv)


def _module(command: str) -> "ModuleType":
    """Return the module that has a function of the command's name, and what adds its arguments."""
    from importlib import import_module

    return import_module(f"memlimits.cli.{command}")
