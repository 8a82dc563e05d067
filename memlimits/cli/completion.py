"""``memlimits completion``: what has bash, zsh or fish complete the command's words."""

from importlib import import_module

from memlimits.cli.streams import put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Sequence

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits completion`` to its parser."""
    parser.description = (
        "Print a script that has a shell complete commands, options, their values, and the names "
        "of pools and processes that there are."
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def completion(wanted: "Namespace") -> None:
    """Print the script for the shell that the arguments of ``memlimits completion`` name."""
    from memlimits.cli.model import commands

    script = import_module(f"memlimits.cli.complete_{wanted.shell}").script(commands())
    put(script)


def names(kinds: "Sequence[str]") -> None:
    """Print what such a script asks for: what there is now, and behind a tab what it is.

    Whatever goes wrong there is nothing to complete, and nothing to say in the middle of a line.
    """
    for kind in kinds:
        found = {"pools": _pools, "pids": _pids}[kind]
        try:
            for name, what in found():
                put(f"{name}\t{what}\n")
        except (OSError, ValueError):
            continue


def _pools() -> "Iterator[tuple[str, str]]":
    from memlimits import pools

    for name in pools.names():
        yield name, "pool"


def _pids() -> "Iterator[tuple[str, str]]":
    from memlimits import processes
    from memlimits.figures import printable

    processes.hide()
    for facts in processes.running():
        yield str(facts["pid"]), printable(facts["command"])[:60]
