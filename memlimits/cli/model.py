"""What there is to write on a command line, for manual pages and for completion.

It comes from where the command lines are read: argparse's parsers, and for ``memlimits run``, which
has none, the table of its options.
"""

import re
from argparse import SUPPRESS, _SubParsersAction
from typing import NamedTuple

from memlimits._bindings.allocator import COUNTS, POLICIES
from memlimits.adapters.children import LEVELS
from memlimits.cli import columns, parsers, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Action, ArgumentParser

# What completes a value, by what stands for it, unless its parser has the choices.
FILES, FOLDERS, POOLS, PIDS = "files", "folders", "pools", "pids"
_KINDS = {
    "FILE": (FILES,),
    "FILE.json": (FILES,),
    "FOLDER": (FOLDERS,),
    "OUT": (FILES,),
    "PID | POOL": (PIDS, POOLS),
    "POOL": (POOLS,),
}
_VALUES = {
    "COLUMN": tuple(columns.NAMES),
    "LEVEL": tuple(LEVELS),
    "POLICY": tuple(POLICIES),
    "WHAT": tuple(COUNTS),
}


class Argument(NamedTuple):
    """An option, or where it has no flags, what stands by itself.

    Attributes
    ----------
    flags : tuple of str
    metavar : str
        What stands for its value; empty for none.
    text : str
    required, several : bool
        Whether it has to be given, and whether it may be more than once.
    values : tuple of str
        All that it can be, where these are few.
    kinds : tuple of str
        What it is of that is found only when it is asked for: `FILES`, `FOLDERS`, `POOLS`, `PIDS`.
    """

    flags: tuple[str, ...]
    metavar: str
    text: str
    required: bool
    several: bool
    values: tuple[str, ...]
    kinds: tuple[str, ...]


class Command(NamedTuple):
    """A command, or one below another, as in ``pool create``.

    Attributes
    ----------
    name, summary, description, notes : str
        `notes` are what its help has below the options.
    arguments : tuple of Argument
    below : tuple of str
        The last words of the names of commands below it.
    """

    name: str
    summary: str
    description: str
    notes: str
    arguments: tuple[Argument, ...]
    below: tuple[str, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        return tuple(one for one in self.arguments if one.flags)

    @property
    def others(self) -> tuple[Argument, ...]:
        return tuple(one for one in self.arguments if not one.flags)


def commands() -> dict[str, Command]:
    """Return all commands, those below others after these, by name."""
    found: dict[str, Command] = {}
    for name, summary in texts.COMMANDS.items():
        if name == "run":
            found[name] = _run()
            continue
        parser = parsers.parser_of(name)
        inner = parsers.below(parser)
        for full, one in [(name, parser), *((f"{name} {last}", inner[last]) for last in inner)]:
            found[full] = _command(full, summary if full == name else "", one)
    return found


def _run() -> Command:
    arguments = [
        _argument((texts.SHORT[name], name) if name in texts.SHORT else (name,), metavar, text)
        for name, (metavar, text) in texts.RUN_OPTIONS.items()
    ]
    return Command("run", texts.COMMANDS["run"], texts.RUN_ABOUT, "", tuple(arguments), ())


def _command(name: str, summary: str, parser: "ArgumentParser") -> Command:
    inner = parsers.below(parser)
    notes = (parser.epilog or "").removesuffix(texts.examples(name)).strip("\n")
    description = " ".join((parser.description or "").split())
    arguments = [
        _of_action(action)
        for action in parser._actions
        if action.help != SUPPRESS and not isinstance(action, _SubParsersAction)
    ]
    return Command(name, summary, description, notes, tuple(arguments), tuple(inner))


def _of_action(action: "Action") -> Argument:
    takes = action.nargs != 0
    metavar = str(action.metavar or action.dest.upper()) if takes else ""
    return _argument(
        tuple(action.option_strings),
        metavar,
        action.help or "",
        required=action.required,
        several=action.nargs == "*",
        values=tuple(map(str, action.choices or ())),
    )


def _argument(
    flags: tuple[str, ...],
    metavar: str,
    text: str,
    *,
    required: bool = False,
    several: bool = False,
    values: tuple[str, ...] = (),
) -> Argument:
    values = values or _VALUES.get(metavar, ())
    return Argument(flags, metavar, text, required, several, values, _KINDS.get(metavar, ()))


def summary(text: str) -> str:
    """Return the first words of what an option is for, for a line beside it in a shell."""
    return re.split(r"[;:(]|\. |,? \S+ unless given", text)[0].strip()
