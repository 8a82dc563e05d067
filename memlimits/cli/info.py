"""``memlimits info``: the device, the limits and the counters."""

import sys
from typing import Any

from memlimits import memory
from memlimits.cli.sizes import format_exact

# The facts and counters that are numbers of things, not of bytes.
_COUNTS = {
    "resource_limit",
    "resources",
    "hits",
    "misses",
    "overruns",
    "refusals",
    "wire_failures",
    "waiting",
    "waits",
    "waited_ns",
    "trims",
    "pressure_trims",
    "decays",
}


def facts() -> dict[str, dict[str, Any]]:
    """Return what ``memlimits info`` shows, by section; sizes are in bytes."""
    return {
        "device": memory.device_info(),
        "limits": {
            "memory_limit": memory.get_memory_limit(),
            "cache_limit": memory.get_cache_limit(),
            "wired_limit": memory.get_wired_limit(),
            "policy": memory.get_memory_policy(),
        },
        "counters": memory.counters(),
    }


def info(*, as_json: bool) -> None:
    """Print the facts for people, or as JSON for programs."""
    if as_json:
        import json

        text = json.dumps(facts(), indent=2)
    else:
        text = "\n\n".join(_section(name, values) for name, values in facts().items())
    sys.stdout.write(text + "\n")


def _section(name: str, values: dict[str, Any]) -> str:
    lines = (f"  {key:<32}  {_show(key, value)}" for key, value in values.items())
    return "\n".join([name, *lines])


def _show(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if key in _COUNTS else format_exact(value)
