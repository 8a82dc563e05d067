"""Who holds the memory at a time, by the calls that led there."""

from datetime import UTC, datetime

from memlimits.cli.errors import CommandError
from memlimits.cli.formats.page import build
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from memlimits.recording import History

    Frames = tuple[tuple[str, int, str], ...]

_MOST_FRAMES = 256  # of a stack: the innermost
_MOST = 5000  # holders; the smallest of more are one
_OTHERS = (("", 0, "(others)"),)


def make(history: "History", at: float) -> bytes:
    """Return a page that shows the holders nearest to a time."""
    found = list(_stacks(history, at))
    root = _Node("all", "")
    for process, frames, size, blocks in found:
        root.add(process, frames, size, blocks)
    first, when = history.first, found[0][0][2]
    data = {
        "title": " ".join(history.reader.first.get("program", [])) or history.reader.path,
        "time": when - first,
        "clock": datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds"),
        "tree": root.plain(),
        "notes": history.notes(),
    }
    return build("flamegraph", f"Who holds the memory: {data['title']}", data)


def make_folded(history: "History", at: float) -> bytes:
    """Return lines of frames and bytes, the outermost frame first.

    A semicolon ends a frame, a space is before the number: neither they nor ends of lines stay in
    a name.
    """
    lines: dict[str, int] = {}
    for process, frames, size, _ in _stacks(history, at):
        words = [f"process {process[0]} {process[1]}", *(_label(frame) for frame in frames)]
        line = ";".join(" ".join(printable(word).replace(";", ":").split()) for word in words)
        lines[line] = lines.get(line, 0) + size
    return "".join(f"{line} {size}\n" for line, size in lines.items()).encode()


def _label(frame: "tuple[str, int, str]") -> str:
    file, line, function = frame
    return f"{function} ({file}:{line})" if file else function


def _stacks(
    history: "History", at: float
) -> "Iterator[tuple[tuple[int, str, float], Frames, int, int]]":
    """Yield the process, and when it was, with the frames, bytes and blocks of each of its holders.

    Raises
    ------
    CommandError
        The recording has no holders.
    """
    chosen = [held for held in history.nearest(history.held, at) if held.size]
    if not chosen:
        some = [held for held in history.held if held.size]
        if not some:
            raise CommandError(
                f"{history.reader.path}: it has not been noted in it who held memory: record with "
                "memlimits run --holders 1MiB, or set_holder_sampling(1 << 20)"
            )
        chosen = [min(some, key=lambda held: abs(held.at - at))]
    for held in sorted(chosen, key=lambda held: -held.size):
        process = (held.process.pid, held.process.command, held.at)
        holders = history.holders(held)
        for holder in holders[:_MOST]:
            if holder["nbytes"]:
                yield process, holder["frames"], holder["nbytes"], holder["blocks"]
        rest = sum(holder["nbytes"] for holder in holders[_MOST:])
        if rest:
            yield process, _OTHERS, rest, sum(holder["blocks"] for holder in holders[_MOST:])


class _Node:
    """A call, with those made by it."""

    def __init__(self, name: str, place: str) -> None:
        self.name, self.place = name, place
        self.size = self.blocks = 0
        self.below: dict[tuple[str, str], _Node] = {}

    def add(
        self, process: "tuple[int, str, float]", frames: "Frames", size: int, blocks: int
    ) -> None:
        path = [(f"process {process[0]}", process[1])]
        frames = frames[-_MOST_FRAMES:]
        path += [(function, f"{file}:{line}" if file else "") for file, line, function in frames]
        node = self
        node.size, node.blocks = node.size + size, node.blocks + blocks
        for key in path:
            node = node.below.setdefault(key, _Node(*key))
            node.size, node.blocks = node.size + size, node.blocks + blocks

    def plain(self) -> "dict[str, Any]":
        below = sorted(self.below.values(), key=lambda node: -node.size)
        return {
            "name": self.name,
            "place": self.place,
            "size": self.size,
            "blocks": self.blocks,
            "below": [node.plain() for node in below],
        }
