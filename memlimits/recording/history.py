"""A recording in memory: what pictures and tables of holders are made of."""

from bisect import bisect_right
from operator import attrgetter, itemgetter

from memlimits.recording.stacking import totals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from memlimits.recording.reader import Reader
else:
    from memlimits.system import NamedTuple

__all__ = ["Held", "History", "Process", "Refusal", "Sample", "Together", "clean"]

_AT_ONCE = 1.0  # seconds between what several processes said of one instant


class Sample(NamedTuple):
    """What a process held, in bytes, and counts since it began. Made by `memlimits.recording.load`.

    What a sample does not have is 0.

    See Also
    --------
    Process : has those of one process.
    """

    at: float
    footprint: int
    active: int
    cache: int
    slack: int
    wired: int
    peak: int
    resident: int
    swap: int
    waiting: int
    refusals: int
    waits: int
    overruns: int
    trims: int
    evictions: int


class Together(NamedTuple):
    """What all processes held together, in bytes. Made by `memlimits.recording.load`.

    See Also
    --------
    History : has all of them.
    """

    at: float
    used: int
    limit: "int | None"


class Refusal(NamedTuple):
    """A refusal: whose, and its numbers as the file has them. Made by `memlimits.recording.load`.

    And who held most then.

    See Also
    --------
    History : has all of them.
    """

    at: float
    process: "Process"
    numbers: "dict[str, Any]"

    @property
    def requested(self) -> int:
        """Bytes that were refused."""
        size: int = self.numbers["requested"]
        return size


class Held(NamedTuple):
    """Where in the file it stands who held memory. Made by `memlimits.recording.load`.

    Or where a snapshot stands; ``size`` is in bytes.

    See Also
    --------
    History : has all of them.
    """

    at: float
    process: "Process"
    size: int
    offset: int


class Process:
    """A process of a recording. Made by `memlimits.recording.load`.

    Attributes
    ----------
    pid : int
        Its id.
    parent : int or None
        The id of its parent, where that is known.
    command : str
        The words of its command line.
    first, last : float
        When it was seen first and last, in seconds since 1970.
    ending : str or None
        How it ended; None if that is not in the recording.
    limits : list of tuple
        Since when its memory limit was what, in bytes or None for none.
    facts : dict
        What the file says of it.
    samples : list of Sample
        What it held, in the order of time.

    See Also
    --------
    History : has all of them.
    """

    def __init__(self, pid: int, at: float) -> None:
        self.pid = pid
        self.parent: int | None = None
        self.command = ""
        self.first = self.last = at
        self.ending: str | None = None
        self.limits: list[tuple[float, int | None]] = []
        self.facts: dict[str, Any] = {}
        self.samples: list[Sample] = []

    @property
    def peak(self) -> int:
        """The largest footprint of its samples."""
        return max((sample.footprint for sample in self.samples), default=0)

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.pid} {self.command}".rstrip()

    def sample_at(self, at: float) -> "Sample | None":
        """Return what it held at a time.

        Parameters
        ----------
        at : float
            Seconds since 1970.

        Returns
        -------
        Sample or None
            None before it was seen and once it ended.
        """
        if self.ending is not None and at >= self.last:
            return None
        place = bisect_right(self.samples, at, key=attrgetter("at"))
        return self.samples[place - 1] if place else None

    def limit_at(self, at: float) -> "int | None":
        """Return its memory limit at a time.

        Parameters
        ----------
        at : float
            Seconds since 1970.

        Returns
        -------
        int or None
            Bytes; None for none.
        """
        place = bisect_right(self.limits, at, key=lambda change: change[0])
        return self.limits[max(0, place - 1)][1] if self.limits else None


def _better(process: Process, at: float, before: "Held | None", after: "Held | None") -> Held:
    if before is None or after is None:
        held = before or after
        assert held is not None
        return held
    sample = process.sample_at(at)
    if sample is None or sample.active == 0:
        return min(before, after, key=lambda held: abs(held.at - at))
    active = sample.active
    return min(before, after, key=lambda held: abs(held.size - active))


class History:
    """A recording in memory. Made by `memlimits.recording.load`.

    It is thinned where it has more than that is to take.

    Attributes
    ----------
    reader : Reader
        Of the file; its `first` says what was recorded.
    processes : list of Process
        In the order in which they were seen first.
    pool : list of Together
        What all processes held together.
    refusals : list of Refusal
        In the order of time.
    held, snapshots : list of Held
        Where notes of holders, and snapshots, stand in the file.
    stacks : dict
        The frames of each stack by its number, the outermost first.
    closed : bool
        Whether the recording ended in order.
    first, last : float
        Of which times there is something, in seconds since 1970.
    left_out : dict of str to int
        How many entries of what kind are not there: since the file was thinned, or since they would
        take too much memory.

    See Also
    --------
    load : make one.
    """

    def __init__(self, reader: "Reader") -> None:
        self.reader = reader
        self.processes: list[Process] = []
        self.pool: list[Together] = []
        self.refusals: list[Refusal] = []
        self.held: list[Held] = []
        self.snapshots: list[Held] = []
        self.stacks: dict[int, tuple[tuple[str, int, str], ...]] = {}
        self.closed = False
        self.lost = 0
        self.first = self.last = float(reader.first["at"])
        self.left_out: dict[str, int] = {}

    def peak_at(self) -> float:
        """Return when the processes held most, together."""
        if self.pool:
            return max(self.pool, key=lambda sample: sample.used).at
        sums = totals(self.processes)
        return max(sums, key=itemgetter(1))[0] if sums else self.first

    def held_at(self, at: float) -> int:
        """Return the footprint of all processes at a time.

        Parameters
        ----------
        at : float
            Seconds since 1970.

        Returns
        -------
        int
            Bytes.
        """
        samples = [process.sample_at(at) for process in self.processes]
        return sum(sample.footprint for sample in samples if sample is not None)

    def nearest(self, among: "list[Held]", at: float) -> "list[Held]":
        """Return of each process that of these which is nearest to a time within its life.

        Of the last before and the first after, the one that says most of what was active.

        Parameters
        ----------
        among : list of Held
            Such as ``held`` or ``snapshots``.
        at : float
            Seconds since 1970.

        Returns
        -------
        list of Held
            One for each process that has any.
        """
        before: dict[Process, Held] = {}
        after: dict[Process, Held] = {}
        for held in among:
            process = held.process
            if not process.first - _AT_ONCE <= at <= process.last + _AT_ONCE:
                continue
            if held.at <= at:
                before[process] = max(held, before.get(process, held), key=attrgetter("at"))
            else:
                after[process] = min(held, after.get(process, held), key=attrgetter("at"))
        return [
            _better(process, at, before.get(process), after.get(process))
            for process in {**before, **after}
        ]

    def holders(self, held: Held) -> "list[dict[str, Any]]":
        """Return what the file has of who held memory then.

        Parameters
        ----------
        held : Held
            Where that stands.

        Returns
        -------
        list of dict
            The largest first, each with its ``frames``.
        """
        return self.with_frames(self.reader.at_offset(held.offset).get("holders", []))

    def with_frames(self, holders: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
        """Return holders as the file has them with the frames of their stacks.

        Of one whose stack is not there it is the line alone.

        Parameters
        ----------
        holders : list of dict
            As an entry has them.

        Returns
        -------
        list of dict
            The largest first, each with its ``frames``.
        """
        found = []
        for holder in sorted(holders, key=lambda holder: -holder["nbytes"]):
            place = {name: clean(holder[name]) for name in ("file", "function")}
            alone = ((place["file"], holder["line"], place["function"]),)
            frames = self.stacks.get(holder.get("stack", -1), alone)
            found.append({"blocks": 0, **holder, **place, "frames": frames})
        return found

    def notes(self) -> "list[str]":
        """Return what a reader has to know of how far the recording is whole, in sentences."""
        lines = []
        if not self.closed:
            lines.append(
                "the recording did not end in order: what came after its last entry is missing"
            )
        if self.reader.damaged:
            lines.append(
                f"{self.reader.damaged:,} damaged lines were skipped, the first of them line "
                f"{self.reader.where:,}"
            )
        if self.lost:
            lines.append(
                f"{self.lost:,} refusals or notes of holders came faster than they could be taken"
            )
        if self.left_out:
            what = ", ".join(f"{number:,} {name}" for name, number in self.left_out.items())
            lines.append(f"left out, the highest of each span of time staying: {what}")
        return lines


def clean(text: str) -> str:
    """Return text that can be written anywhere: what is no character is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
