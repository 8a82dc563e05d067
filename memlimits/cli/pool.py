"""``memlimits pool``: budgets that processes share."""

import sys
import time

from memlimits import memory, pools
from memlimits.cli.errors import CommandError
from memlimits.cli.sizes import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any


def add_commands(parser: "ArgumentParser") -> None:
    """Add the commands below ``memlimits pool`` to its parser."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> "ArgumentParser":
        return commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)

    create = add("create", "Make a pool")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--limit", required=True, metavar="SIZE", help="for all members together")
    create.add_argument(
        "--everybody",
        action="store_true",
        help="processes of other users may join, and could damage it",
    )
    show = add("list", "Show pools, and who is in them")
    show.add_argument("name", nargs="?", metavar="NAME")
    show.add_argument("--json", action="store_true", help="as JSON; sizes are in bytes")
    change = add("set", "Change a pool's limit")
    change.add_argument("name", metavar="NAME")
    change.add_argument("--limit", required=True, metavar="SIZE", help="for all members together")
    add("remove", "Remove a pool without members").add_argument("name", metavar="NAME")


def pool(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits pool`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    try:
        if wanted.action == "create":
            pools.create(wanted.name, _size(wanted.limit), everybody=wanted.everybody)
        elif wanted.action == "set":
            pools.set_limit(wanted.name, _size(wanted.limit))
        elif wanted.action == "remove":
            pools.remove(wanted.name)
        else:
            names = pools.names() if wanted.name is None else [wanted.name]
            _show([pools.get(name) for name in names], as_json=wanted.json)
    except (LookupError, OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def _size(text: str) -> int:
    def memory_size() -> int:
        size = memory.device_info()["memory_size"]
        assert isinstance(size, int)
        return size

    return parse_size(text, memory_size)


def _show(found: "list[dict[str, Any]]", *, as_json: bool) -> None:
    if as_json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    if not found:
        sys.stdout.write("no pools\n")
    for facts in found:
        sys.stdout.write("\n".join(describe(facts)) + "\n")


_COLUMNS = ("pid", "active", "cached", "wired", "held", "waiting", "command")


def describe(facts: "dict[str, Any]") -> "list[str]":
    """Return lines on a pool and its members, for people."""
    members = facts["members"]
    used = sum(member["used"] for member in members)
    ended = f", {facts['ended']} ended" if facts["ended"] else ""
    lines = [
        f"{facts['name']}: in use {format_size(used)} of {format_size(facts['limit'])}, peak "
        f"{format_size(facts['peak'])}; {len(members)} members{ended}; refusals "
        f"{facts['refusals']}, waits {facts['waits']}, moved {format_size(facts['moved'])}"
    ]
    if not members:
        return lines
    rows = [_COLUMNS, *map(_row, members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return lines


def _row(member: "dict[str, Any]") -> "tuple[str, ...]":
    waiting = "-"
    if member["waiting_since"] is not None:
        seconds = max(0.0, time.monotonic() - member["waiting_since"])
        waiting = f"{format_size(member['waiting_for'])} since {seconds:.1f} s"
    sizes = (format_size(member[key]) for key in ("active", "cached", "wired", "held"))
    return str(member["pid"]), *sizes, waiting, member["command"]
