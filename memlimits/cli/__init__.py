"""The ``memlimits`` command."""

import sys

from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence

_OWN = ("--version", "--help")


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
            wanted = _parse(argv)
            if wanted.command == "pool":
                from memlimits.cli.pool import pool

                pool(wanted)
            elif wanted.command == "metrics":
                from memlimits.cli.metrics import metrics

                metrics(wanted)
            elif wanted.command == "top":
                from memlimits.cli.top import top

                return top(wanted)
            elif wanted.command == "convert":
                from memlimits.cli.convert import convert

                convert(wanted)
            elif wanted.command == "plot":
                from memlimits.cli.plot import plot

                plot(wanted)
            else:
                from memlimits.cli.info import info

                info(as_json=wanted.json)
    except CommandError as error:
        say(str(error))
        return 2
    return 0


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
    info = commands.add_parser(
        "info",
        help="show the device, the limits and the counters",
        description="Show the device, the limits and the counters.",
        allow_abbrev=False,
    )
    info.add_argument("--json", action="store_true", help="as JSON; sizes are in bytes")
    from memlimits.cli.pool import add_commands

    pool = commands.add_parser(
        "pool",
        help="make, show, change and remove budgets that processes share",
        description="Budgets that processes share: pools.",
        allow_abbrev=False,
    )
    add_commands(pool)
    from memlimits.cli.metrics import add_options

    metrics = commands.add_parser(
        "metrics",
        help="show pools as metrics for Prometheus, or serve them",
        description="Show pools as metrics for Prometheus, or serve them.",
        allow_abbrev=False,
    )
    add_options(metrics)
    from memlimits.cli.top import KEYS, add_options

    top = commands.add_parser(
        "top",
        help="show what processes and pools hold, live",
        description="Show what processes and pools hold, live. They are asked nothing: they may "
        "compute, hang or be stopped.",
        epilog=KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(top)
    from memlimits.cli import convert, plot

    made = "a report, a flame graph, a trace or a table"
    for name, module, text in (
        ("convert", convert, f"make {made} of a recording"),
        ("plot", plot, "draw a recording, for papers and slides"),
    ):
        description = f"{text[0].upper()}{text[1:]}."
        parsed = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        module.add_arguments(parsed)
    return parser.parse_args(argv)
