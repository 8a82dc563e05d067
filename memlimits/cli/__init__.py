"""The ``memlimits`` command."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import memlimits
from memlimits.cli.errors import CommandError
from memlimits.cli.sizes import FORM, parse_size
from memlimits.cli.streams import say

_RUN_USAGE = """memlimits run [options] script.py [ARGS...]
       memlimits run [options] -m module [ARGS...]"""

_MOST_SECONDS = 1_000_000_000

_RUN_EPILOG = f"""SIZE is {FORM}.
The script may also be a directory or a zip file with a __main__.py inside.
Everything after it, or after the module, is the program's own.
SIGUSR1 has the program print its statistics to standard error, and go on.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``memlimits`` command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status. A program under ``memlimits run`` that ends by an exception leaves by
        that exception, for the interpreter to treat as it does any program's.
    """
    if argv is None:
        argv = sys.argv[1:]
    parser, run_parser = _parsers()
    program: list[str] = []
    if argv[:1] == ["run"]:
        argv, program = _split(argv)
    options = parser.parse_args(argv)
    try:
        if options.command == "info":
            from memlimits.cli.info import info

            info(as_json=options.json)
        else:
            if not program:
                run_parser.error("a script, or -m and a module, is missing")
            if program == ["-m"]:
                run_parser.error("argument -m: a module is missing")
            if options.timeout is not None and options.policy != "wait":
                run_parser.error("argument --timeout: only --policy wait takes it")
            from memlimits.cli.run import run

            run(options, program)
    except CommandError as error:
        say(str(error))
        return 2
    return 0


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="memlimits", description="Memory limits for arrays.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"memlimits {memlimits.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser(
        "info",
        help="show the device, the limits and the counters",
        description="Show the device, the limits and the counters.",
        allow_abbrev=False,
    )
    info.add_argument("--json", action="store_true", help="as JSON; sizes are in bytes")
    run = commands.add_parser(
        "run",
        help="run a program inside memory limits",
        description="Run an unchanged Python program, with its NumPy arrays inside memory limits.",
        usage=_RUN_USAGE,
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, options in _RUN_OPTIONS.items():
        run.add_argument(name, **options)
    return parser, run


def _size(text: str) -> int:
    try:
        return parse_size(text, _memory_size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _memory_size() -> int:
    size = memlimits.device_info()["memory_size"]
    assert isinstance(size, int)
    return size


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"invalid time {text!r}: write seconds, from 0 to {_MOST_SECONDS}, such as 2.5"
        )
    return seconds


# Each of them takes a value.
_RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "--memory-limit": {
        "type": _size,
        "metavar": "SIZE",
        "help": "the most memory to hold; strict unless --policy says otherwise",
    },
    "--cache-limit": {
        "type": _size,
        "metavar": "SIZE",
        "help": "the most memory to keep for reuse",
    },
    "--wired-limit": {
        "type": _size,
        "metavar": "SIZE",
        "help": "the most memory to keep from being swapped out",
    },
    "--policy": {
        "choices": ("strict", "guideline", "wait"),
        "help": "at the memory limit: refuse, go on as long as the system has memory, or wait "
        "for other threads to free some",
    },
    "--timeout": {
        "type": _seconds,
        "metavar": "S",
        "help": "seconds to wait with --policy wait; 60 unless given",
    },
    "--report": {
        "metavar": "FILE.json",
        "help": "write the closing report to this file as well",
    },
}


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of ``run`` where the program begins.

    The options come back as ``--name=value``, which lets a value begin with a dash, and the
    program as ``script ARGS...`` or ``-m module ARGS...``.
    """
    words = list(argv)
    options = [words.pop(0)]
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _RUN_OPTIONS:
            if not equals:
                value = words.pop(0) if words else "--"
            # To argparse a value of "--" is none, and it says so of an option alone.
            options.append(name if value == "--" else f"{name}={value}")
        elif word == "--":
            break
        elif word.startswith("-m"):
            return options, ["-m", *([word[2:]] if word != "-m" else []), *words]
        elif not word.startswith("-"):
            return options, [word, *words]
        else:
            options.append(word)
    return options, words
