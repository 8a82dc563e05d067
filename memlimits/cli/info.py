"""``memlimits info``: the device, the limits and the counters."""

import os
from typing import Any

from memlimits import memory
from memlimits.cli.options import unknown_variables, variables
from memlimits.cli.streams import put, say
from memlimits.sizes import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_LIMITS = ("memory_limit", "cache_limit", "wired_limit", "policy", "memory_count", "idle_timeout")


def facts() -> dict[str, dict[str, Any]]:
    """Return what ``memlimits info`` shows, by section; sizes are in bytes, times in seconds."""
    counters = memory.stats()._asdict()
    limits = {name: counters.pop(name) for name in _LIMITS}
    return {"device": memory.device_info(), "limits": limits, "counters": counters}


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits info`` to its parser."""
    parser.add_argument("--all", action="store_true", help="counters that are 0, too")
    parser.add_argument(
        "--json", action="store_true", help="all of it, as JSON; sizes are in bytes"
    )


def info(wanted: "Namespace") -> None:
    """Print the facts for people, or as JSON for programs.

    The variables that stand for options of ``memlimits run`` change nothing here, which is said.
    """
    if wanted.json:
        import json

        text = json.dumps(facts(), indent=2)
    else:
        shown = facts()
        if not wanted.all:
            counters = shown.pop("counters")
            if said := {name: value for name, value in counters.items() if value}:
                shown["counters"] = said
        text = "\n\n".join(_section(name, values) for name, values in shown.items())
    put(text + "\n")
    if names := sorted(variables(os.environ)):
        say(f"of use to `memlimits run` only: {', '.join(names)}")
    for sentence in unknown_variables(os.environ):
        say(f"warning: {sentence}")


def _section(name: str, values: dict[str, Any]) -> str:
    lines = (f"  {key:<32}  {show(key, value)}" for key, value in values.items())
    return "\n".join([name, *lines])
