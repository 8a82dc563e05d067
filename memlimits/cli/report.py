"""What ``memlimits run`` says when the program has ended."""

import os

from memlimits import _modules, memory
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
    from memlimits.snapshot import Stats

# What is not governed is worth a word from so much on, and as such a part of all that was resident.
_MUCH = 64 << 20
_PART = 4
# By the level in force: what would govern more.
_MORE = {
    "numpy": "--govern python adds Python's objects, --govern all what malloc gives to libraries",
    "python": "--govern all adds what malloc gives to libraries",
    "all": "libraries have it from no malloc",
}


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

    It is made when the program is about to start: what the process holds by then is not the
    program's.

    Attributes
    ----------
    level : {"numpy", "python", "all"}
        How much of the program's memory is governed; to be set.
    """

    def __init__(self, program: "Sequence[str]", file: "JSONFile | None", *, quiet: bool) -> None:
        self._held_before = held(memory.stats())
        self._program = list(program)
        self._file = file
        self._quiet = quiet
        self._pid = os.getpid()
        self.level = "numpy"

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
        values = facts(self._held_before, self.level)
        lines = [] if self._quiet else [describe(values)]
        if self._file is not None:
            try:
                self._file.write({"program": self._program, **values})
            except OSError as error:
                lines.append(f"cannot write the report to {self._file.path}: {error.strerror}")
        say("\n".join(lines))


def held(stats: "Stats") -> int:
    """Return what the process has and the system cannot drop, in bytes."""
    return stats.process_resident - stats.process_files + stats.process_swap


def facts(held_before: int, level: str) -> "dict[str, Any]":
    """Return the statistics, the budgets, the newest refusal and what is not governed; in bytes.

    Parameters
    ----------
    held_before : int
        What the process had before the program, in bytes.
    level : {"numpy", "python", "all"}
        How much of the program's memory was governed.
    """
    stats = memory.stats()
    refusal = memory.latest_refusal()
    return {
        **stats._asdict(),
        "governed": level,
        "ungoverned_peak": _ungoverned_peak(stats, held_before),
        "budgets": memory.budgets(),
        "last_refusal": None if refusal is None else _numbers(refusal),
        "ungoverned": why_numpy_is_not_governed(),
        "ungoverned_objects": None if level == "numpy" else _modules.for_python().ungoverned(),
        "ungoverned_children": why_children_are_not_governed(),
    }


def _ungoverned_peak(stats: "Stats", held_before: int) -> int:
    """Return about how much the program itself had at its peak that was not governed, in bytes."""
    # Idle memory may have been resident as well.
    governed = max(stats.peak + stats.peak // 4, stats.footprint)
    return max(0, stats.process_peak_resident - stats.process_files - held_before - governed)


def _numbers(refusal: "MemoryLimitError") -> "dict[str, Any]":
    names = ("requested", "limit", "footprint", "active", "cache", "slack", "blocked_by")
    return {name: getattr(refusal, name) for name in (*names, "counted", "process", "untouched")}


def describe(values: "dict[str, Any]") -> str:
    """Return the facts as a few lines for people."""
    allocations = values["hits"] + values["misses"]
    share = 100 * values["hits"] / allocations if allocations else 0
    lines = [
        f"peak: governed {_share(values['peak'], values['process_peak_resident'])}, "
        f"limit {format_limit(values['memory_limit'])} ({values['policy']}), "
        f"cache hits {share:.1f}% of {allocations:,} allocations, refusals {values['refusals']:,}"
    ]
    if values["ungoverned_peak"] > max(_MUCH, values["process_peak_resident"] // _PART):
        about = format_size(values["ungoverned_peak"])
        lines.append(f"about {about} were not governed: {_MORE[values['governed']]}")
        if values["ungoverned_objects"]:
            lines.append(values["ungoverned_objects"])
    if values["process_swap"]:
        lines.append(f"swapped out at the end: {format_size(values['process_swap'])}")
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
        if refusal["counted"] == "process":
            lines.append(f"  counted: process, which held {format_exact(refusal['process'])}")
        elif refusal["counted"] == "resident":
            lines.append(f"  counted: resident, {format_exact(refusal['untouched'])} less")
    return "\n".join(lines)


def _share(governed: int, resident: int) -> str:
    """Show what was governed of what was resident; more is, where it was not touched."""
    if governed > resident:
        return f"{format_size(governed)}, resident {format_size(resident)}"
    return f"{format_size(governed)} of {format_size(resident)} resident"


def statistics() -> str:
    """Return the statistics of a program that runs, for people."""
    values = memory.stats()._asdict()
    width = max(map(len, values))
    lines = [f"statistics of process {os.getpid()}"]
    return "\n".join(
        lines + [f"  {key:<{width}}  {show(key, value)}" for key, value in values.items()]
    )
