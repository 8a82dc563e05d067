"""The command lines of all commands but ``run``, read with argparse."""

import sys
import textwrap
from argparse import ArgumentError, ArgumentParser, RawDescriptionHelpFormatter, _SubParsersAction
from importlib import import_module

from memlimits.cli import texts
from memlimits.cli.errors import CommandError
from memlimits.cli.meant import meant
from memlimits.cli.streams import put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Action, Namespace
    from collections.abc import Iterator, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

_WIDTH = 79


class Parser(ArgumentParser):
    """One whose errors end with the way out, in the same words under every version of Python."""

    def __init__(self, **options: "Any") -> None:
        # Descriptions and examples are as long as they are to be.
        options.setdefault("formatter_class", RawDescriptionHelpFormatter)
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> "NoReturn":
        self.print_usage(sys.stderr)
        way_out = "" if message.endswith("?)") else f"; {self.prog} --help has examples"
        self.exit(2, f"{self.prog}: error: {message}{way_out}\n")

    def _print_message(self, message: str, file: "Any" = None) -> None:
        # argparse's own passes over what cannot be written.
        if file is None or file is sys.stdout:
            put(message)
        else:
            super()._print_message(message, file)

    def _check_value(self, action: "Action", value: "Any") -> None:
        names = action.choices
        if names is not None and value not in names:
            raise ArgumentError(
                action,
                f"invalid value {value!r}: write one of {', '.join(names)}{meant(value, names)}",
            )


def read(argv: "Sequence[str]") -> "Namespace":
    """Read the arguments of all but ``run``.

    Returns
    -------
    argparse.Namespace
        The arguments, and the command as `command`.

    Raises
    ------
    CommandError
        There is no such command.
    SystemExit
        Help was asked for, and is shown; or an argument is wrong, and it was said which.
    """
    command, *words = argv
    if command not in texts.COMMANDS:
        raise CommandError(_no_such(command))
    parser = parser_of(command)
    _check_options(parser, words)
    wanted, more = parser.parse_known_args(words)
    if more:
        parser.error(f"{more[0]!r} is one too many")
    wanted.command = command
    return wanted


def parser_of(command: str) -> Parser:
    """Return the parser of a command that is not ``run``."""
    text = texts.COMMANDS[command]
    parser = Parser(prog=f"memlimits {command}", description=f"{text[0].upper()}{text[1:]}.")
    module_of(command).add_arguments(parser)
    for name, one in [(command, parser), *_below(parser)]:
        one.description = textwrap.fill(one.description or "", _WIDTH)
        keys = [one.epilog] if one.epilog else []
        one.epilog = "\n".join([*keys, texts.examples(name)])
    return parser


def module_of(command: str) -> "ModuleType":
    """Return the module that has a function of the command's name, and what adds its arguments."""
    return import_module(f"memlimits.cli.{command}")


def below(parser: ArgumentParser) -> "dict[str, ArgumentParser]":
    """Return the parsers of the commands below one, by their names."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            return dict(action.choices)
    return {}


def _below(parser: ArgumentParser) -> "Iterator[tuple[str, ArgumentParser]]":
    command = parser.prog.removeprefix("memlimits ")
    for name, one in below(parser).items():
        yield f"{command} {name}", one


def _no_such(word: str) -> str:
    if word.endswith(".py"):
        return f"there is no command {word!r}; a program follows run: memlimits run {word}"
    question = meant(word, texts.COMMANDS)
    if question:
        return f"there is no command {word!r}{question}"
    names = ", ".join(texts.COMMANDS)
    return f"there is no command {word!r}: write one of {names}; memlimits --help has more"


def _check_options(parser: ArgumentParser, words: "Sequence[str]") -> None:
    """Refuse a long option that there is not, before argparse misses what it stands for."""
    inner = next((one for name, one in below(parser).items() if name in words), None)
    known = {name: None for one in (parser, inner) if one for name in one._option_string_actions}
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            options = [option for option in known if option.startswith("--")]
            (inner or parser).error(f"unknown option: {word}{meant(name, options)}")
