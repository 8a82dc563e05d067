"""What an error has that ends a cell: the numbers of its refusal, and what its frames hold."""

import contextlib
import gc
import re
import types

import memlimits
from memlimits import errors, memory
from memlimits.errors import MemoryLimitError
from memlimits.figures import Holder, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def _chain(error: "BaseException | None") -> "Iterator[BaseException]":
    """Yield an error, those that it came from, and those in it."""
    seen: dict[int, BaseException] = {}
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen[id(one)] = one
            inside: Any = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
            todo += [one.__context__, one.__cause__, *inside]
            yield one


def numbers_of(error: BaseException) -> "tuple[list[tuple[str, str]], list[Holder]]":
    """Return what is to be told of a refusal, and who held most."""
    refusal = _refusal(error)
    if refusal is None:
        return [("note", note) for note in _notes(error)], memlimits.holders(3)
    why = errors.WHY.get(refusal.blocked_by, refusal.blocked_by)
    rows = [("asked for", format_size(refusal.requested)), ("refused", why)]
    if refusal.budget is not None:
        limit, active = map(format_size, (refusal.budget_limit, refusal.budget_active))
        rows.append(("budget", f"{refusal.budget}: limit {limit}, active {active}"))
    if refusal.waited:
        rows.append(("waited", f"{refusal.waited:.3g} s"))
    sizes = {
        "limit": refusal.limit if refusal.limit < errors.NO_LIMIT else 0,
        "active": refusal.active,
        "cache": refusal.cache,
        "kept back": refusal.kept_back,
        "MLX": refusal.mlx,
        "others": refusal.others,
        "process": refusal.process,
    }
    rows += [(name, format_size(size)) for name, size in sizes.items() if size]
    return rows, list(refusal.holders)


def _refusal(error: BaseException) -> "MemoryLimitError | None":
    """Return the numbers of an error's refusal, if they can be told from others'."""
    for one in _chain(error):
        if isinstance(one, MemoryLimitError) and one.requested:
            return one
    said = " ".join(_notes(error))
    for latest in (memlimits.last_refusal(), memory.latest_refusal()):
        if latest and re.search(rf"\b{latest.requested:,} (bytes|B)\b", said):
            return latest
    return None


def _notes(error: BaseException) -> "list[str]":
    notes = [note for one in _chain(error) for note in getattr(one, "__notes__", ())]
    return [note for note in notes if str(note).startswith("memlimits: ")]


# ---- what its frames hold ----


def clear_frames(error: BaseException) -> None:
    """Clear the variables of the functions that an error came through, and that have ended.

    Clearing the frame of a generator that only waits would end it: such go on.
    """
    frames = list(_frames(error))
    waiting: set[int] = set()
    if any(frame.f_code.co_flags & _SUSPENDS for frame in frames):
        waiting = {id(frame) for frame in _waiting_frames()}
    for frame in frames:
        if id(frame) not in waiting:
            with contextlib.suppress(RuntimeError):  # it runs
                frame.clear()
                # Before Python 3.13 a dictionary that was made of them has them until it is read.
                _ = frame.f_locals


_SUSPENDS = 0x20 | 0x80 | 0x200  # a generator, a coroutine, an asynchronous generator


def _frames(error: BaseException) -> "Iterable[types.FrameType]":
    for one in _chain(error):
        traceback = one.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next


def _waiting_frames() -> "Iterable[types.FrameType]":
    kinds = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
    for one in gc.get_objects():
        if isinstance(one, kinds):
            prefix = {"generator": "gi", "coroutine": "cr"}.get(type(one).__name__, "ag")
            frame = getattr(one, f"{prefix}_frame")
            if frame is not None:
                yield frame
