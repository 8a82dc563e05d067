"""The ``memlimits`` command."""

import os
import sys
from _signal import SIGPIPE  # type: ignore[import-not-found]

from memlimits.cli.errors import CommandError, OutputError
from memlimits.cli.streams import put, say
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
            return _itself(argv)
        else:
            return _execute(argv)
    except OutputError as error:
        return _end(error.args[0])
    except CommandError as error:
        say("\n".join(map(printable, str(error).split("\n"))))
        return 2
    return 0


def _end(error: OSError) -> int:
    """Return the exit status of a command whose standard output takes no more."""
    # The interpreter is not to try again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        # Whoever read, such as `head`, has had enough: as what the signal for that would end.
        return 128 + int(SIGPIPE)
    say(f"cannot write to standard output: {error.strerror}: send it elsewhere")
    return 2


def _execute(argv: "Sequence[str]") -> int:
    from memlimits.cli.parsers import module_of, read

    if sys.stdout is None:  # It was closed: nobody wants to know.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    wanted = read(argv)
    try:
        status: int | None = getattr(module_of(wanted.command), wanted.command)(wanted)
    except OSError as error:
        raise CommandError(_in_words(error)) from None
    return status or 0


def _in_words(error: OSError) -> str:
    """Say what failed, of which file."""
    why = error.strerror or str(error)
    return why if error.filename is None else f"{os.fsdecode(error.filename)}: {why}"


def _itself(argv: "Sequence[str]") -> int:
    """Do what was asked for without a command."""
    import memlimits
    from memlimits.cli.help import overview

    if not argv:
        sys.stderr.write(overview())
        return 2
    if argv[0] in ("-V", "--version"):
        put(f"memlimits {memlimits.__version__}\n")
    elif argv[0] in ("-h", "--help"):
        put(overview())
    else:
        raise CommandError(
            f"{argv[0]!r}: options follow a command: memlimits run {argv[0]} ...; memlimits --help "
            "lists the commands"
        )
    return 0
