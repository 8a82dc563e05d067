"""What ``memlimits run`` says when the program has ended."""

import os

from memlimits import memory
from memlimits.adapters import why_numpy_is_not_governed
from memlimits.cli.children import why_children_are_not_governed
from memlimits.cli.sizes import format_exact, format_limit, format_size, show
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from memlimits.cli.jsonfile import JSONFile
    from memlimits.errors import MemoryLimitError


class Report:
    """The report on one program: text and, if there is a file for it, JSON.

    Parameters
    ----------
    program : sequence of str
        The program's part of the command line.
    file : JSONFile, optional
        Where the JSON goes.
    quiet : bool
        Give no text.
    """

    def __init__(self, program: "Sequence[str]", file: "JSONFile | None", *, quiet: bool) -> None:
        self._program = list(program)
        self._file = file
        self._quiet = quiet
        self._pid = os.getpid()

    def write(self) -> None:
        """Write the report, unless this is a forked child of the process that made it.

        What a handler raises meanwhile is the end of it: the program is over, and its exit status
        stays.
        """
        if os.getpid() != self._pid:
            return
        try:
            self._write()
        except (KeyboardInterrupt, SystemExit):
            return

    def _write(self) -> None:
        values = facts()
        lines = [] if self._quiet else [describe(values)]
        if self._file is not None:
            try:
                self._file.write({"program": self._program, **values})
            except OSError as error:
                lines.append(f"cannot write the report to {self._file.path}: {error.strerror}")
        say("\n".join(lines))


def facts() -> "dict[str, Any]":
    """Return the statistics, the budgets, the newest refusal and what is not governed; in bytes."""
    refusal = memory.latest_refusal()
    return {
        **memory.stats()._asdict(),
        "budgets": memory.budgets(),
        "last_refusal": None if refusal is None else _numbers(refusal),
        "ungoverned": why_numpy_is_not_governed(),
        "ungoverned_children": why_children_are_not_governed(),
    }


def _numbers(refusal: "MemoryLimitError") -> "dict[str, Any]":
    names = ("requested", "limit", "footprint", "active", "cache", "slack", "blocked_by")
    return {name: getattr(refusal, name) for name in names}


def describe(values: "dict[str, Any]") -> str:
    """Return the facts as a few lines for people."""
    allocations = values["hits"] + values["misses"]
    share = 100 * values["hits"] / allocations if allocations else 0
    lines = [
        f"peak {format_size(values['peak'])}, limit {format_limit(values['memory_limit'])} "
        f"({values['policy']}), cache hits {share:.1f}% of {allocations:,} allocations, "
        f"refusals {values['refusals']:,}"
    ]
    if values["ungoverned"]:
        lines.append(values["ungoverned"])
    if values["ungoverned_children"]:
        lines.append(values["ungoverned_children"])
    if values["overruns"]:
        lines.append(f"allocations over the limit: {values['overruns']:,}")
    if values["wire_failures"]:
        lines.append(f"failures to wire memory: {values['wire_failures']:,}")
    if values["unwired_requested"]:
        lines.append(
            f"asked to be wired and not wired: {format_size(values['unwired_requested'])} "
            f"of {format_size(values['wired_requested'])}"
        )
    if values["waits"]:
        lines.append(
            f"allocations that waited: {values['waits']:,}, {values['waited_seconds']:.3g} s in all"
        )
    lines += [
        f"budget {budget['name']}: peak {format_size(budget['peak'])}, "
        f"active {format_size(budget['active'])}, limit {format_limit(budget['limit'])}"
        for budget in values["budgets"]
    ]
    if refusal := values["last_refusal"]:
        in_use = refusal["active"] + refusal["cache"] + refusal["slack"]
        lines += [
            f"last refusal: asked for {format_exact(refusal['requested'])}, "
            f"blocked by: {refusal['blocked_by']}",
            f"  limit {format_exact(refusal['limit'])}",
            f"  in use {format_exact(in_use)}: active {format_size(refusal['active'])}, "
            f"cache {format_size(refusal['cache'])}, slack {format_size(refusal['slack'])}",
        ]
    return "\n".join(lines)


def statistics() -> str:
    """Return the statistics of a program that runs, for people."""
    values = memory.stats()._asdict()
    width = max(map(len, values))
    lines = [f"statistics of process {os.getpid()}"]
    return "\n".join(
        lines + [f"  {key:<{width}}  {show(key, value)}" for key, value in values.items()]
    )
