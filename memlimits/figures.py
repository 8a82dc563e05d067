"""What `stats`, `holders` and `snapshot` return."""

from memlimits._bindings.allocator import at_the_limit
from memlimits.errors import NO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any, NamedTuple, NoReturn
else:
    from memlimits.system import NamedTuple

__all__ = [
    "SIZES", "Holder", "MemoryBlock", "Snapshot", "Stats",
    "format_size", "holders_html", "printable", "table_html",
]  # fmt: skip

# Those in bytes. The others are counts, but for the policy, its count and the idle timeout.
SIZES = frozenset(
    (
        "memory_limit",
        "cache_limit",
        "wired_limit",
        "footprint",
        "pending",
        "active",
        "cache",
        "slack",
        "peak",
        "wired",
        "registered",
        "wired_requested",
        "unwired_requested",
        "unwired_by_limit",
        "unwired_by_capacity",
        "purgeable",
        "largest_idle",
        "evicted",
        "reserved",
        "mlx_active",
        "mlx_cache",
        "mlx_peak",
        "mlx_tickets",
        "trimmed",
        "pressure_trimmed",
        "decayed",
        "process_resident",
        "process_files",
        "process_swap",
        "process_peak_resident",
    )
)


class Holder(NamedTuple):
    """A line of the program, and what is held of all that was allocated there.

    Made by `memlimits.holders`.

    Attributes
    ----------
    file : str
        The path, as tracebacks have it; empty where no Python ran.
    line : int
        Of the file, from 1; 0 where no Python ran.
    function : str
        The name of the function, with those that it is defined in.
    nbytes : int
        Bytes of the blocks that are held. Of blocks shorter than the bytes between two samples it
        is an estimate.
    blocks : int
        How many these are, likewise.
    stack : tuple of tuple
        Of the calls that led to most of them: file, line and function of each, the outermost first.
        Further ones than this line are of libraries, or of Python's own modules; where the whole
        stack is, `file` and `line` are of the innermost.

    See Also
    --------
    memlimits.holders : the lines that hold most.

    Examples
    --------
    >>> from memlimits.figures import Holder
    >>> print(Holder("load.py", 12, "read", 3_000_000, 2, (("load.py", 12, "read"),)))
    read (load.py:12) 2.86 MiB in 2 blocks
    """

    file: str
    line: int
    function: str
    nbytes: int
    blocks: int
    stack: "tuple[tuple[str, int, str], ...]"

    def __str__(self) -> str:
        place = f" ({self.file}:{self.line})" if self.file else ""
        blocks = "a block" if self.blocks == 1 else f"{self.blocks} blocks"
        return printable(f"{self.function}{place} {format_size(self.nbytes)} in {blocks}")


class MemoryBlock(NamedTuple):
    """One resource of the allocator. Made by `memlimits.snapshot`.

    It is what a caller holds, many small blocks, or what is idle.

    Attributes
    ----------
    address : int
        Where it starts.
    nbytes : int
        Bytes, with what is idle in it.
    used : int
        Bytes of them in callers' hands.
    state : {"block", "slab", "idle"}
        One caller's; cut into small blocks; in the cache.
    stack : tuple of tuple, or None
        As `Holder.stack`, of a block that was noted.

    See Also
    --------
    Snapshot : has all of them.
    """

    address: int
    nbytes: int
    used: int
    state: str
    stack: "tuple[tuple[str, int, str], ...] | None"


class Snapshot:
    """What this process held at one instant, and who held it. Made by `memlimits.snapshot`.

    It does not change.

    Attributes
    ----------
    at : float
        Seconds since 1970.
    pid : int
        The process.
    stats : Stats
        Its limits and counters. Of the snapshot of a refusal what the process held, whoever
        allocated it, is as of now.
    holders : tuple of Holder
        All lines that hold any, the one that holds most first; none where no samples are taken.
    budgets : tuple of dict
        ``name``, ``limit``, ``active`` and ``peak``, in bytes, of each, as of now.
    blocks : tuple of MemoryBlock
        Every resource, by its address.

    See Also
    --------
    memlimits.snapshot : make one.
    memlimits.refusal_snapshot : that of a refusal.
    Stats : the counters in it.
    """

    at: float
    pid: int
    stats: "Stats"
    holders: "tuple[Holder, ...]"
    budgets: "tuple[dict[str, Any], ...]"
    blocks: "tuple[MemoryBlock, ...]"

    def __init__(
        self,
        at: float,
        pid: int,
        stats: "Stats",
        holders: "tuple[Holder, ...]",
        budgets: "tuple[dict[str, Any], ...]",
        blocks: "tuple[MemoryBlock, ...]",
    ) -> None:
        values = {"at": at, "pid": pid, "stats": stats}
        self.__dict__.update(values, holders=holders, budgets=budgets, blocks=blocks)

    def write(self, path: "str | os.PathLike[str]") -> None:
        """Write it as a recording that has nothing else, for ``memlimits convert``.

        Parameters
        ----------
        path : str or os.PathLike
            A recording that is there is replaced.

        Raises
        ------
        FileExistsError
            There is something that is no recording.
        OSError
            It cannot be written.

        Examples
        --------
        >>> import memlimits, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "now.rec")
        >>> memlimits.snapshot().write(path)
        >>> [entry["kind"] for entry in memlimits.recording.Reader(path)]
        ['process', 'sample', 'holders', 'snapshot', 'closed']
        """
        from memlimits.recording import Writer
        from memlimits.recording.entries import COUNTS, LIMITS
        from memlimits.recording.entries import SIZES as SIZES_OF_SAMPLES

        with Writer(path, at=self.at) as writer:
            facts = self.stats._asdict()
            about = (*LIMITS, "policy", "memory_count")
            writer.process(self.at, self.pid, **{name: facts[name] for name in about})
            counted = [name for name in (*SIZES_OF_SAMPLES, *COUNTS) if name in facts]
            writer.sample(
                self.at,
                self.pid,
                resident=facts["process_resident"],
                swap=facts["process_swap"],
                **{name: facts[name] for name in counted},
            )
            writer.holders(self.at, self.pid, self.holders)
            writer.snapshot(
                self.at,
                self.pid,
                stats=self.stats._asdict(),
                blocks=self.blocks,
                holders=self.holders,
                budgets=self.budgets,
            )
            writer.flush()
            if writer.error is not None:
                raise writer.error

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a snapshot cannot be changed: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a snapshot cannot be changed: {name}")

    def __repr__(self) -> str:
        return at_the_limit(_summary, self)

    def _repr_html_(self) -> str:
        """Show its counters and the lines that hold most as tables, in Jupyter."""
        return at_the_limit(_tables, self)


def _summary(snapshot: Snapshot) -> str:
    stats = getattr(snapshot, "stats", None)
    if stats is None:
        return "<Snapshot>"
    shown = [
        f"<Snapshot of process {snapshot.pid}: active {stats.active:,} bytes in "
        f"{len(snapshot.blocks):,} blocks and slabs, cache {stats.cache:,} bytes"
    ]
    shown += [f"  {holder}" for holder in snapshot.holders[:_SHOWN_HOLDERS]]
    return "\n".join(shown) + ">"


def _tables(snapshot: Snapshot) -> str:
    return _html(snapshot.stats.__dict__) + holders_html(snapshot.holders[:_SHOWN_HOLDERS])


_SHOWN_HOLDERS = 5


class Stats:
    """Limits and counters at one instant, unchangeable. Made by `memlimits.stats`.

    ``active + cache + slack + pending == footprint``. Counts are those since the start.

    Attributes
    ----------
    memory_limit, cache_limit, wired_limit : int
        The limits, in bytes; from 2**63 on there is none.
    policy : str
        The memory policy.
    memory_count : str
        What the memory limit is on, as for `set_memory_count`.
    idle_timeout : float or None
        Seconds without use after which the system may take idle memory; None for never.
    footprint : int
        Bytes of all resources (mappings, Metal buffers) held from the device, being asked of it, or
        being returned to it.
    pending : int
        Bytes of those whose device call is under way.
    active : int
        Bytes of blocks in callers' hands, counted at their capacity.
    cache : int
        Bytes of idle resources, which `clear_cache` would return.
    slack : int
        Bytes in pieces that are free, of slabs that have others in callers' hands, and behind
        blocks that ``realloc`` lets grow into them.
    peak : int
        Bytes: the highest active since the start or the last reset.
    wired : int
        Bytes of resources kept resident.
    registered : int
        Bytes of them that are registered with CUDA.
    wired_requested, unwired_requested : int
        Bytes of resources that ``allocate(..., wired=True)`` or `wire` asked for, and of those of
        them that are not wired.
    unwired_by_limit, unwired_by_capacity : int
        Bytes in use that are not wired since the wired limit, or the pool's, is too low, and since
        the system lets this process wire no more; while the wired limit is 0, of those that were
        asked for.
    purgeable : int
        Bytes of the cache that the system may take.
    largest_idle : int
        Bytes of the largest idle resource.
    resources : int
        How many resources there are.
    slabs : int
        How many of them are cut into small blocks.
    heaps : int
        How many threads have idle memory of their own: those that took a block and have not ended.
    hits, misses : int
        Allocations served from what was idle, and by a new resource. (Where ``realloc`` resizes a
        block it is neither.)
    steals : int
        How often a thread had what it needed from another thread's idle blocks, or from what one
        left that has ended.
    evictions, evicted : int
        How many idle resources were returned to the system, for whatever reason, and their bytes.
    overruns : int
        Allocations past the memory limit, under the guideline policy.
    refusals : int
        Allocations refused.
    refusals_by_limit, refusals_by_system, refusals_by_device, refusals_by_max_buffer_length : int
    refusals_by_resources, refusals_by_fork, refusals_by_budget, refusals_by_reservation : int
    refusals_by_queue, refusals_by_pool, refusals_by_test : int
        The same by what refused, as in `MemoryLimitError.blocked_by`.
    wires, wire_failures : int
        Resources that became resident, and that could not although the limit allows it; one counts
        again when it is tried again.
    registrations, registration_failures : int
        Of the resources that were to become resident while CUDA was attached, those that were
        registered with it, and that could not be.
    commits : int
        Commits of residency sets.
    reserved : int
        Bytes of the memory limit that are kept for those who hold reservations; and while Python's
        memory is governed, for what follows a refusal.
    mlx_active, mlx_cache, mlx_peak : int
        Bytes that MLX has in use, keeps for reuse, and had in use at most, as it said last; 0
        without `memlimits.adapters.mlx`. They are of no other counter.
    mlx_tickets : int
        Bytes that its open tickets admit.
    trims, trimmed : int
        How often `trim` returned memory to reach its target, and the bytes.
    pressure_trims, pressure_trimmed : int
        How often idle memory was returned because the system ran short, and the bytes.
    decays, decayed : int
        How many idle resources became purgeable or were returned after the idle timeout, and their
        bytes.
    waiting : int
        Requests that wait now, under the policy ``"wait"``.
    waits : int
        Requests that did so.
    waited_seconds : float
        Seconds that they waited, all of them together.
    process_resident : int
        Bytes that this process has in RAM, whoever allocated them (``VmRSS``), read right before
        the others; on macOS its physical footprint, which has what is compressed or swapped out and
        no pages of files. Where the system does not tell, the peak.
    process_files : int
        Bytes of them that are pages of files, such as programs, libraries and mapped data, which
        the system can drop.
    process_swap : int
        Bytes of this process that are swapped out.
    process_peak_resident : int
        Bytes: the highest resident since the process began to run its program, Python; no reset
        changes it. In a forked child, since the fork.

    See Also
    --------
    memlimits.stats : make one.
    Snapshot : with every block.
    """

    memory_limit: int
    cache_limit: int
    wired_limit: int
    policy: str
    memory_count: str
    idle_timeout: float | None
    footprint: int
    pending: int
    active: int
    cache: int
    slack: int
    peak: int
    wired: int
    registered: int
    wired_requested: int
    unwired_requested: int
    unwired_by_limit: int
    unwired_by_capacity: int
    purgeable: int
    largest_idle: int
    resources: int
    slabs: int
    heaps: int
    hits: int
    misses: int
    steals: int
    evictions: int
    evicted: int
    overruns: int
    refusals: int
    refusals_by_limit: int
    refusals_by_system: int
    refusals_by_device: int
    refusals_by_max_buffer_length: int
    refusals_by_resources: int
    refusals_by_fork: int
    refusals_by_budget: int
    refusals_by_reservation: int
    refusals_by_queue: int
    refusals_by_pool: int
    refusals_by_test: int
    wires: int
    wire_failures: int
    registrations: int
    registration_failures: int
    commits: int
    reserved: int
    mlx_active: int
    mlx_cache: int
    mlx_peak: int
    mlx_tickets: int
    trims: int
    trimmed: int
    pressure_trims: int
    pressure_trimmed: int
    decays: int
    decayed: int
    waiting: int
    waits: int
    waited_seconds: float
    process_resident: int
    process_files: int
    process_swap: int
    process_peak_resident: int

    def __init__(self, values: "Mapping[str, Any]") -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a snapshot cannot be changed: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a snapshot cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, Stats) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.items()))

    def __reduce__(self) -> "tuple[Any, ...]":
        return Stats, (self._asdict(),)

    def _asdict(self) -> "dict[str, Any]":
        """Return a new dictionary of them, in the order of the attributes."""
        return dict(self.__dict__)

    def _repr_html_(self) -> str:
        """Show a table, in Jupyter: those that matter most, and the others folded away."""
        return at_the_limit(_html, self.__dict__)

    def __repr__(self) -> str:
        """Show one a line, with its unit where that is bytes or seconds."""
        return at_the_limit(_lines, self.__dict__)


def _lines(values: "Mapping[str, Any]") -> str:
    lines = [f"  {name:<{_WIDTH}}  {_shown(name, value)}" for name, value in values.items()]
    return "\n".join(["Stats", *lines])


# What is asked for first; of the rest a table is folded away.
MAIN = (
    "memory_limit", "policy", "footprint", "active", "cache", "peak", "refusals", "waits",
    "process_resident",
)  # fmt: skip


def _html(values: "Mapping[str, Any]") -> str:
    rows = [(name, _readable(name, value)) for name, value in values.items()]
    return (
        f"{table_html([row for row in rows if row[0] in MAIN])}<details><summary>All</summary>"
        f"{table_html([row for row in rows if row[0] not in MAIN])}</details>"
    )


def _readable(name: str, value: object) -> str:
    if isinstance(value, int) and name in SIZES and value < NO_LIMIT:
        return format_size(value)
    return _shown(name, value)


def printable(text: str) -> str:
    """Return a text with a space for whatever would move a terminal's cursor, or end the line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def format_size(size: int) -> str:
    """Show bytes in the binary unit that leaves at least 1 and less than 1024 of it."""
    power = 0
    while power < 6 and round(size / 1024**power, 2) >= 1024:
        power += 1
    value = f"{size / 1024**power:.2f}".rstrip("0").rstrip(".")
    return f"{value} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[power]}"


def _escaped(text: object) -> str:
    """Return a text as HTML shows it, between tags and in a quoted attribute."""
    shown = str(text).encode("utf-8", "backslashreplace").decode()
    for character, entity in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "#39")):
        shown = shown.replace(character, f"&{entity};")
    return shown


def table_html(rows: "Iterable[Iterable[object]]", head: "tuple[object, ...]" = ()) -> str:
    """Return a table whose cells show texts as they are, in the colours of where it stands."""
    edge = "border-bottom:1px solid rgba(128,128,128,.4);color:inherit;background:none"
    style = f"{edge};padding:2px 10px;text-align:left"

    def line(cells: "Iterable[object]", tag: str) -> str:
        inside = (f'<{tag} style="{style}">{_escaped(cell)}</{tag}>' for cell in cells)
        return f'<tr style="background:none">{"".join(inside)}</tr>'

    lines = [line(head, "th")] if head else []
    lines += [line(row, "td") for row in rows]
    return f'<table style="border-collapse:collapse">{"".join(lines)}</table>'


def holders_html(holders: "Iterable[Holder]") -> str:
    """Return a table of who holds memory, as HTML that escapes what the program named."""
    rows = [
        (one.function, f"{one.file}:{one.line}" * bool(one.file), format_size(one.nbytes),
         f"{one.blocks:,}")
        for one in holders
    ]  # fmt: skip
    return table_html(rows, ("held by", "line", "bytes", "blocks"))


_WIDTH = max(map(len, Stats.__annotations__))


def _shown(name: str, value: object) -> str:
    if isinstance(value, int):
        if name in SIZES:
            return f"{value:,} bytes" if value < NO_LIMIT else "none"
        return f"{value:,}"
    return f"{value} s" if isinstance(value, float) else str(value)
