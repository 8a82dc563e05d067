"""What ``memlimits run`` says when the program has ended."""

import os

from memlimits import _modules, memory, pools
from memlimits.adapters import why_numpy_is_not_governed
from memlimits.cli import record
from memlimits.cli.children import leave_tree, why_children_are_not_governed
from memlimits.cli.members import describe_pool
from memlimits.cli.streams import say
from memlimits.figures import printable
from memlimits.processes import without_options
from memlimits.sizes import format_exact, format_limit, format_size, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from memlimits.cli.jsonfile import JSONFile
    from memlimits.errors import MemoryLimitError
    from memlimits.figures import Stats

# What is not governed is worth a word from so much on, and as such a part of all that was resident.
_MUCH = 64 << 20
_PART = 4
# A peak above the limit counts from such a part of the limit on.
_NOISE = 32
# By the level in force: what would govern more.
_MORE = {
    "numpy": "--govern python adds Python's objects, --govern all what malloc gives to libraries",
    "python": "--govern all adds what malloc gives to libraries",
    "all": "libraries have it from no malloc",
}
# By what the limit counts.
_COUNTED = {
    "given": "",
    "resident": ", on what is resident",
    "process": ", on what the process holds",
}
# Likewise: how it can be passed although nothing beyond it is given.
_PASSED = {
    "resident": "the limit counts what is resident, and more was touched after it was given",
    "process": "the limit counts the process, and what is not governed is not refused",
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
    pool : str, optional
        The file of the pool that the program's processes share.

    It is made when the program is about to start: what the process holds by then is not the
    program's.

    Attributes
    ----------
    level : {"numpy", "python", "all"}
        How much of the program's memory is governed; to be set.
    """

    def __init__(
        self,
        program: "Sequence[str]",
        file: "JSONFile | None",
        *,
        quiet: bool,
        pool: "str | None" = None,
    ) -> None:
        self._held_before = held(memory.stats())
        self._program = list(program)
        self._file = file
        self._quiet = quiet
        self._pool = pool
        self._pid = os.getpid()
        self.level = "numpy"

    def write(self) -> None:
        """Write the report, unless this is a forked child of the process that made it.

        What a handler raises meanwhile is the end of it: the program is over, and its exit status
        stays.
        """
        # Nothing before this: what the program holds may be over the limit, and a step be refused.
        stats = memory.closing_stats(self._pid)
        if stats is None:
            return
        try:
            self._write(stats)
        except (KeyboardInterrupt, SystemExit):
            return

    def _write(self, stats: "dict[str, Any]") -> None:
        values = facts(stats, self._held_before, self.level, self._pool)
        lines = [] if self._quiet else [describe(values)]
        if code := record.finish():
            why = os.strerror(code) if code > 0 else "the process that records does not answer"
            lines.append(f"the recording is not complete: {why}")
        if self._file is not None:
            try:
                self._file.write({"program": self._program, **values})
            except OSError as error:
                lines.append(f"cannot write the report to {self._file.path}: {error.strerror}")
        say("\n".join(lines))
        if self._pool is not None:
            leave_tree(self._pool)


def processes(path: "str | None") -> "dict[str, Any] | None":
    """Return what a pool says of its members, of those that ended, too; None without one.

    Of a pool that has a name not of those that were in it before this process was.
    """
    if path is None:
        return None
    try:
        found = pools.read(path, ended=True)
    except (MemoryError, OSError):
        return None
    joined = [member["joined"] for member in found["members"] if member["pid"] == os.getpid()]
    if found["name"] and joined:
        found["ended_members"] = [
            member for member in found["ended_members"] if member["joined"] >= joined[0]
        ]
    return found


def _count(pool: "dict[str, Any] | None") -> int:
    """Return how many processes there were in a pool."""
    return 0 if pool is None else len(pool["members"]) + pool["ended"]


def held(stats: "Stats") -> int:
    """Return what the process has and the system cannot drop, in bytes."""
    return stats.process_resident - stats.process_files + stats.process_swap


def facts(
    stats: "dict[str, Any]", held_before: int, level: str, pool: "str | None" = None
) -> "dict[str, Any]":
    """Return the statistics, the budgets, the newest refusal and what is not governed; in bytes.

    Parameters
    ----------
    stats : dict
        Of `memory.closing_stats`.
    held_before : int
        What the process had before the program, in bytes.
    level : {"numpy", "python", "all"}
        How much of the program's memory was governed.
    pool : str, optional
        The file of the pool that its processes share.
    """
    refusal = memory.latest_refusal()
    together = processes(pool)
    return {
        **stats,
        "governed": level,
        "ungoverned_peak": _ungoverned_peak(stats, held_before),
        "passed_by": _passed_by(stats, held_before, level),
        "budgets": memory.budgets(),
        "last_refusal": None if refusal is None else _numbers(refusal),
        "ungoverned": why_numpy_is_not_governed(),
        "ungoverned_objects": None if level == "numpy" else _modules.for_python().ungoverned(),
        "ungoverned_children": why_children_are_not_governed(others=_count(together) > 1),
        "processes": together,
    }


def _ungoverned_peak(stats: "dict[str, Any]", held_before: int) -> int:
    """Return about how much the program itself had at its peak that was not governed, in bytes."""
    # Idle memory may have been resident as well.
    governed: int = max(stats["peak"] + stats["peak"] // 4, stats["footprint"])
    return max(0, _held_at_peak(stats) - held_before - governed)


def _held_at_peak(stats: "dict[str, Any]") -> int:
    held: int = stats["process_peak_resident"] - stats["process_files"]
    return max(0, held)


def _passed_by(stats: "dict[str, Any]", held_before: int, level: str) -> int:
    """Return about how many bytes more than the memory limit there were of what it counts.

    They need no growth: what was given is touched later, and not all of a process is governed.
    """
    limit: int = stats["memory_limit"]
    touched = seen = 0
    if stats["memory_count"] == "process":
        seen = _held_at_peak(stats)
    elif stats["memory_count"] == "resident":
        touched = stats["footprint"] - stats["pending"] - stats["untouched"]
        if level == "all":
            seen = min(stats["peak"], _held_at_peak(stats) - held_before)
    # The peak is the process's, of other pages as well: a little more says nothing.
    return max(0, touched - limit, seen - limit if seen > limit + limit // _NOISE else 0)


def _numbers(refusal: "MemoryLimitError") -> "dict[str, Any]":
    names: tuple[str, ...]
    names = ("requested", "limit", "footprint", "active", "cache", "slack", "blocked_by")
    names += ("counted", "process", "untouched", "kept_back", "others", "mlx")
    holders = [
        {
            "file": holder.file,
            "line": holder.line,
            "function": holder.function,
            "nbytes": holder.nbytes,
            "blocks": holder.blocks,
            "stack": holder.stack,
        }
        for holder in refusal.holders
    ]
    return {**{name: getattr(refusal, name) for name in names}, "holders": holders}


def _place(holder: "dict[str, Any]") -> str:
    return f" ({holder['file']}:{holder['line']})" if holder["file"] else ""


def describe(values: "dict[str, Any]") -> str:
    """Return the facts as a few lines for people."""
    allocations = values["hits"] + values["misses"]
    share = 100 * values["hits"] / allocations if allocations else 0
    lines = [
        f"peak: governed {_share(values['peak'], values['process_peak_resident'])}, "
        f"limit {format_limit(values['memory_limit'])} ({_terms(values)})",
        f"cache hits {share:.1f}% of {allocations:,} allocations, refusals {values['refusals']:,}",
    ]
    if values["passed_by"] and values["policy"] != "guideline":
        lines.append(
            f"passed by about {format_size(values['passed_by'])}: {_PASSED[values['memory_count']]}"
        )
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
    if values["mlx_peak"]:
        lines.append(
            f"MLX: peak {format_size(values['mlx_peak'])}, active "
            f"{format_size(values['mlx_active'])}, cache {format_size(values['mlx_cache'])}, "
            f"tickets {format_size(values['mlx_tickets'])}"
        )
    if values["overruns"]:
        lines.append(f"allocations over the limit: {values['overruns']:,}")
    if values["wire_failures"]:
        lines.append(f"failures to wire memory: {values['wire_failures']:,}")
    if values["unwired_requested"]:
        lines.append(
            f"asked to be wired and not wired: {format_size(values['unwired_requested'])} "
            f"of {format_size(values['wired_requested'])}"
        )
    lines += _describe_processes(values["processes"])
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
            lines.append(f"  the process held {format_exact(refusal['process'])}")
            if refusal["untouched"]:
                lines.append(f"  given and not touched yet {format_exact(refusal['untouched'])}")
        elif refusal["counted"] == "resident":
            lines.append(f"  not touched and not counted {format_exact(refusal['untouched'])}")
        if refusal["kept_back"]:
            lines.append(f"  kept back for errors {format_exact(refusal['kept_back'])}")
        if refusal["mlx"]:
            lines.append(f"  for MLX {format_exact(refusal['mlx'])}")
        if refusal["blocked_by"] == "pool":
            lines.append(f"  other processes {format_exact(refusal['others'])}")
        lines += [
            printable(
                f"  held by {holder['function']}{_place(holder)}: {format_size(holder['nbytes'])}, "
                f"blocks: {holder['blocks']:,}"
            )
            for holder in refusal["holders"]
        ]
    return "\n".join(lines)


_SHOWN = 5  # processes, of each kind that is named


def _killed(pool: "dict[str, Any]") -> "list[dict[str, Any]]":
    """Return those that ended amid something, the largest first.

    A worker of multiprocessing's ends by `os._exit` when it is done, and holds little then.
    """
    found = [
        member
        for member in pool["ended_members"]
        if member["ending"] == "vanished" and member["used"] > _MUCH // 2
    ]
    return sorted(found, key=lambda member: -member["used"])


def _describe_processes(pool: "dict[str, Any] | None") -> "list[str]":
    """What is worth saying of a program's processes, if there were several."""
    count = _count(pool)
    if pool is None or count < 2:
        return []
    what = f"pool {pool['name']}, since it was made" if pool["name"] else "all processes"
    lines = [
        f"{what}: peak {format_size(pool['peak'])} of {format_limit(pool['limit'])} together, "
        f"{count} processes, refusals {pool['refusals']:,}, waits {pool['waits']:,}"
    ]
    if pool["overruns"]:
        lines.append(f"  allocations over the limit together: {pool['overruns']:,}")
    if pool["moved"]:
        lines.append(f"  idle memory that went to others: {format_size(pool['moved'])}")
    lines += [
        f"  ended without its exit handlers, holding {format_size(member['used'])}: process "
        f"{member['pid']} ({_program(member)})"
        for member in _killed(pool)[:_SHOWN]
    ]
    refused = [
        member
        for member in (*pool["members"], *pool["ended_members"])
        if member["refusals"] and member["pid"] != os.getpid()
    ]
    lines += [
        f"  refused {_times(member['refusals'])}: process {member['pid']} "
        f"({_program(member)}), peak {format_size(member['peak'])}"
        for member in refused[:_SHOWN]
    ]
    return lines


def _program(member: "dict[str, Any]") -> str:
    words: list[str] = member["command"].split(" ")
    return printable(" ".join(without_options(words) or words))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _terms(values: "dict[str, Any]") -> str:
    return f"{values['policy']}{_COUNTED[values['memory_count']]}"


def _share(governed: int, resident: int) -> str:
    """Show what was governed of what was resident; more is, where it was not touched."""
    if governed > resident:
        return f"{format_size(governed)}, resident {format_size(resident)}"
    return f"{format_size(governed)} of {format_size(resident)} resident"


def statistics(pool: "str | None" = None) -> str:
    """Return the statistics of a program that runs, and of its other processes, for people."""
    values = memory.stats()._asdict()
    width = max(map(len, values))
    lines = [f"statistics of process {os.getpid()}"]
    lines += [f"  {key:<{width}}  {show(key, value)}" for key, value in values.items()]
    together = processes(pool)
    if together is not None and _count(together) > 1:
        lines += describe_pool({**together, "name": together["name"] or "all processes"})
    return "\n".join(lines)
