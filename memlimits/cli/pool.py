"""``memlimits pool``: budgets that processes share."""

from memlimits import pools
from memlimits.cli.errors import CommandError
from memlimits.cli.members import describe_pool, in_use
from memlimits.cli.streams import put, say
from memlimits.errors import NO_LIMIT
from memlimits.sizes import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the commands below ``memlimits pool`` to its parser."""
    parser.description = "Budgets that processes share: pools."
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> "ArgumentParser":
        return commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)

    create = add("create", "Make a pool")
    create.add_argument("name", metavar="NAME", help="what to call it")
    create.add_argument("--limit", required=True, metavar="SIZE", help="for all members together")
    create.add_argument(
        "--wired-limit",
        metavar="SIZE",
        help="of what they wire; what the system recommends for one unless given",
    )
    create.add_argument(
        "--everybody",
        action="store_true",
        help="processes of other users may join, and could damage it",
    )
    show = add("list", "Show pools, and who is in them")
    show.add_argument("name", nargs="?", metavar="POOL", help="which; all unless given")
    show.add_argument("--json", action="store_true", help="as JSON; sizes are in bytes")
    change = add("set", "Change a pool's limit")
    change.add_argument("name", metavar="POOL", help="which")
    change.add_argument("--limit", required=True, metavar="SIZE", help="for all members together")
    remove = add("remove", "Remove a pool without members")
    remove.add_argument("name", metavar="POOL", help="which")


def pool(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits pool`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    try:
        if wanted.action == "create":
            wired = None if wanted.wired_limit is None else _size(wanted.wired_limit)
            pools.create(
                wanted.name, _size(wanted.limit), wired_limit=wired, everybody=wanted.everybody
            )
        elif wanted.action == "set":
            _set(wanted.name, _size(wanted.limit))
        elif wanted.action == "remove":
            pools.remove(wanted.name)
        else:
            found = [pools.get(wanted.name)] if wanted.name else _all()
            _show(found, as_json=wanted.json)
    except (LookupError, OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def _set(name: str, limit: int) -> None:
    pools.set_limit(name, limit)
    facts = pools.get(name)
    used = in_use(facts)
    promised = sum(member["minimum"] for member in facts["members"])
    if promised > limit:
        say(
            f"pool {name!r}: the minimums of its members, {format_size(promised)} together, are "
            "above the limit: not all of them can be had until some leave, or the limit is raised"
        )
    if used > limit:
        say(
            f"pool {name!r}: its members use {format_size(used)}, which they keep until they free "
            "it; none grows until they use less than the limit"
        )


def _all() -> "list[dict[str, Any]]":
    """Return those that can be read, and say of the others why not."""
    found = []
    for name in pools.names():
        try:
            found.append(pools.get(name))
        except (LookupError, OSError) as error:
            say(f"pool {name!r}: {error}")
    return found


def _size(text: str) -> int:
    size = parse_size(text)
    if size >= NO_LIMIT:
        raise ValueError(f"a pool is a limit, and {text} is none: write a size such as 20GiB")
    return size


def _show(found: "list[dict[str, Any]]", *, as_json: bool) -> None:
    if as_json:
        import json

        put(json.dumps(found, indent=2) + "\n")
        return
    if not found:
        put("no pools\n")
    for facts in found:
        put("\n".join(describe_pool(facts)) + "\n")
