"""The ``memlimits`` command."""

import os
import sys
from _signal import SIGPIPE  # type: ignore[import-not-found]

from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


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
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    try:
        if argv[:1] == ["run"]:
            from memlimits.cli.run import run

            run(argv[1:], known)
        elif argv[:1] == ["_record"]:  # a process of ours, started by `memlimits run --record`
            from memlimits.cli.recorder import record

            record(argv[1:])
        elif argv[:1] == ["_names"]:  # asked by what completes words in a shell
            from memlimits.cli.completion import names

            names(argv[1:])
        elif not argv or argv[0].startswith("-"):
            return _written(lambda: _itself(argv))
        else:
            return _written(lambda: _execute(argv))
    except CommandError as error:
        say("\n".join(map(printable, str(error).split("\n"))))
        return 2
    return 0


def _written(do: "Callable[[], int]") -> int:
    """Do something, and have all be written that it says.

    Raises
    ------
    CommandError
        It cannot be.
    """
    if sys.stdout is None:  # It was closed: nobody wants to know.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        try:
            return do()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter is not to try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            # Whoever read, such as `head`, has had enough: as what the signal for that would end.
            return 128 + int(SIGPIPE)
        raise CommandError(
            f"cannot write to standard output: {error.strerror}: send it elsewhere"
        ) from None


def _execute(argv: "Sequence[str]") -> int:
    from memlimits.cli.parsers import module_of, read

    wanted = read(argv)
    status: int | None = getattr(module_of(wanted.command), wanted.command)(wanted)
    return status or 0


def _itself(argv: "Sequence[str]") -> int:
    """Do what was asked for without a command."""
    import memlimits
    from memlimits.cli.help import overview

    if not argv:
        sys.stderr.write(overview())
        return 2
    if argv[0] in ("-V", "--version"):
        sys.stdout.write(f"memlimits {memlimits.__version__}\n")
    elif argv[0] in ("-h", "--help"):
        sys.stdout.write(overview())
    else:
        raise CommandError(
            f"{argv[0]!r}: options follow a command: memlimits run {argv[0]} ...; memlimits --help "
            "lists the commands"
        )
    return 0
