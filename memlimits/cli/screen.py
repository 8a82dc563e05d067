"""The live screen of ``memlimits top``, over Textual, which is an extra.

Every widget here is drawn line by line, and only those lines that are seen.
"""

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.events import Click, Key, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from memlimits.cli import columns
from memlimits.cli.source import Family, GoneError, Members
from memlimits.cli.top import KEYS, above, chosen_columns
from memlimits.cli.watch import Look, Watch, key_of
from memlimits.cli.width import fitted, width_of
from memlimits.figures import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memlimits.cli.columns import Line
    from memlimits.cli.source import Facts
    from memlimits.cli.watch import Key as KeyOf

_SHARE = 10  # looking takes one part in so many of a processor's time, at most

_LOOKS = {
    columns.PLAIN: Style(),
    columns.TITLE: Style(bold=True),
    columns.SORTED: Style(bold=True, underline=True),
    columns.GREW: Style(bold=True, color="green"),
    columns.NEAR: Style(bold=True, color="yellow"),
    columns.ALARM: Style(bold=True, color="red"),
    columns.FAINT: Style(dim=True),
}
_CHOSEN = Style(reverse=True)
_FOOT = "? keys  q quit  Enter look closer  < > sort  / find"


async def _in_thread(look: "Callable[[], Look]") -> Look:
    """Look meanwhile: to read the command of a process whose memory is locked may take for ever.

    No end of ours waits for such a thread, as it would for one of asyncio's own.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Look] = loop.create_future()

    def tell(result: "Look | Exception") -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def run() -> None:
        result: Look | Exception
        try:
            result = look()
        except Exception as error:
            result = error
        with suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, daemon=True).start()
    return await future


class Lines(Widget):
    """Lines of spans, each in one line of the terminal. Only those that change are drawn."""

    can_focus = False

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self.lines: list[tuple[Line, bool]] = []

    def put(self, lines: "list[Line]", chosen: "int | None" = None) -> None:
        """Show these from now on, one of them as chosen."""
        before = self.lines
        self.lines = [(line, place == chosen) for place, line in enumerate(lines)]
        for y, (old, new) in enumerate(zip_longest(before, self.lines)):
            if old != new:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """Return a line of the terminal."""
        line, chosen = self.lines[y] if y < len(self.lines) else ([], False)
        over = _CHOSEN if chosen else Style()
        width = self.size.width
        segments = []
        for text, look in line:
            taken = fitted(text, width) if width_of(text) > width else text
            width -= width_of(taken)
            segments.append(Segment(taken, _LOOKS[look] + over))
        segments.append(Segment(" " * width, over))
        return Strip(segments, self.size.width)


class Table(Lines):
    """Processes, of which one may be chosen. It has the first line for titles."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.rows: list[Facts] = []
        self.shown: list[columns.Column] = []
        self.sort = ""
        self.first = 0
        self.chosen: KeyOf | None = None

    def show(self, rows: "list[Facts]", shown: "list[columns.Column]", sort: str) -> None:
        """Show these rows; the one that was chosen stays it, wherever it is now."""
        self.rows, self.shown, self.sort = rows, shown, sort
        place = self.place
        if place is None:
            self.chosen = None
        self.first = max(min(self.first, len(rows) - self.page), 0)
        # The table may be about to get higher: as high as the terminal it never is.
        seen = rows[self.first : self.first + self.app.size.height]
        lines = [columns.titles(shown, sort), *(columns.cells(shown, row) for row in seen)]
        self.put(lines, None if place is None else place - self.first + 1)

    @property
    def place(self) -> "int | None":
        """Where the chosen one is."""
        if self.chosen is None:
            return None
        for place, row in enumerate(self.rows):
            if key_of(row) == self.chosen:
                return place
        return None

    @property
    def row(self) -> "Facts | None":
        """The chosen one, or the first."""
        place = self.place or 0
        return self.rows[place] if place < len(self.rows) else None

    @property
    def page(self) -> int:
        """How many rows are seen."""
        return max(self.size.height - 1, 1)

    def choose(self, place: int) -> None:
        """Choose the row at a place, or the nearest, and have it seen."""
        if self.rows:
            place = min(max(place, 0), len(self.rows) - 1)
            self.chosen = key_of(self.rows[place])
            self.first = min(max(self.first, place - self.page + 1), place)


class Top(App[int]):
    """The screen, and what keys do there."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen, Lines, Table { background: ansi_default; color: ansi_default; }
    #above { height: auto; }
    #table { height: 1fr; }
    #below { height: 1; }
    """

    def __init__(self, watch: Watch, sort: str, interval: float) -> None:
        super().__init__(ansi_color=True)
        self.watches = [watch]
        self.sort = sort
        self.turned = False
        self.interval = interval
        self.look: Look | None = None
        self.find = ""
        self.typing = False
        self.helping = False
        self.note = ""
        self.above, self.below = Lines("above"), Lines("below")
        self.table = Table("table")
        self.soon = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Put the widgets one below the other."""
        yield self.above
        yield self.table
        yield self.below

    async def on_mount(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # By itself it would leave the terminal as the screen needs it.
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.run_worker(self._go_on())

    async def _go_on(self) -> None:
        while True:
            began = time.monotonic()
            watch = self.watches[-1]
            try:
                look = await _in_thread(watch.look)
            except (OSError, ValueError) as error:
                look = Look([], [], str(error), 0.0)
            if watch is self.watches[-1]:
                self.look = look
                self.draw()
            left = self.interval - (time.monotonic() - began)
            left = max(left, look.cost * (_SHARE - 1), 0.01)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.soon.wait(), left)
            self.soon.clear()

    # ---- what is shown ----

    def draw(self) -> None:
        """Show the last look, as the keys have it."""
        if self.look is None:
            return
        watch, look, size = self.watches[-1], self.look, self.size
        rows = columns.sorted_rows(filter(self._wanted, look.rows), self.sort, self.turned)
        most = max((size.height - 4) // 4, 1)
        lines = [[(line, columns.PLAIN)] for line in KEYS.splitlines()] if self.helping else []
        lines += above(watch, look, size.width, most_pools=most)
        lines = lines[: max(size.height - 4, 1)]
        self.above.styles.height = len(lines)
        self.above.put(lines)
        self.table.show(rows, chosen_columns(watch, look, size.width, self.sort), self.sort)
        self.below.put([self._foot(len(rows))])

    def _wanted(self, row: "Facts") -> bool:
        if not self.find:
            return True
        texts = (str(row["pid"]), columns.user_name(row["user"]), printable(row["command"]))
        return any(self.find.lower() in text.lower() for text in texts)

    def _foot(self, count: int) -> "Line":
        if self.typing:
            return [
                (f"find: {self.find}_", columns.TITLE),
                ("  Enter keeps it, Esc ends it", "faint"),
            ]
        order = "turned " if self.turned else ""
        found = f"  with {self.find!r}: {count}" if self.find else ""
        if self.note:
            return [(self.note, columns.ALARM)]
        return [
            (f"by {self.sort} {order}every {self.interval:g}s{found}  ", columns.PLAIN),
            (_FOOT, columns.FAINT),
        ]

    def on_resize(self, _: Resize) -> None:
        """Show as much as fits now."""
        self.draw()

    # ---- keys ----

    def on_key(self, event: Key) -> None:
        """Do what a key stands for."""
        event.prevent_default()
        self.note = ""
        if event.key == "ctrl+c":
            self.exit(0)
        elif self.typing:
            self._type(event)
        elif action := _KEYS.get(event.key):
            action(self)
        self.draw()

    def _type(self, event: Key) -> None:
        if event.key in ("enter", "escape"):
            self.typing = False
            self.find = self.find if event.key == "enter" else ""
        elif event.key == "backspace":
            self.find = self.find[:-1]
        elif event.is_printable and event.character:
            self.find += event.character

    def move(self, rows: int) -> None:
        """Choose the one so many rows below, or the first that is seen."""
        place = self.table.place
        self.table.choose(self.table.first if place is None else place + rows)

    def sort_by(self, name: str) -> None:
        """Sort by a column; by the same again, the other way round."""
        self.turned = name == self.sort and not self.turned
        self.sort = name

    def sort_beside(self, step: int) -> None:
        """Sort by a column that is seen beside the present one."""
        names = [column.name for column in self.table.shown]
        place = names.index(self.sort) if self.sort in names else 0
        self.sort, self.turned = names[(place + step) % len(names)], False

    def turn(self) -> None:
        """Turn the order round."""
        self.turned = not self.turned

    def closer(self) -> None:
        """Look at the chosen process and its descendants."""
        if row := self.table.row:
            try:
                self._look_at(Family(row["pid"]))
            except GoneError as error:
                self.note = str(error)

    def its_pool(self) -> None:
        """Look at the pool of the chosen process."""
        row = self.table.row
        for pool in self.look.pools if self.look and row else []:
            if row and pool["name"] == row["pool"]:
                try:
                    return self._look_at(Members(pool["path"]))
                except (GoneError, OSError, ValueError) as error:
                    self.note = str(error)
                    return None
        self.note = "it is in no pool that can be seen"
        return None

    def _look_at(self, source: "Family | Members") -> None:
        self.watches.append(Watch(source, self.watches[-1].seen))
        self._changed()

    def back(self) -> None:
        """Leave what was looked at closer; or the help, or what is to be found, first."""
        if self.helping or self.find:
            self.helping, self.find = False, ""
        elif len(self.watches) > 1:
            self.watches.pop()
            self._changed()

    def _changed(self) -> None:
        self.look, self.table.chosen, self.table.first = None, None, 0
        self.soon.set()

    def show_help(self) -> None:
        """Show the keys, or hide them again."""
        self.helping = not self.helping

    def begin_to_type(self) -> None:
        """Have the next keys say what to find."""
        self.typing, self.find = True, ""

    # ---- the mouse ----

    def on_mouse_scroll_down(self, _: MouseScrollDown) -> None:
        """Show rows below."""
        self._scroll(3)

    def on_mouse_scroll_up(self, _: MouseScrollUp) -> None:
        """Show rows above."""
        self._scroll(-3)

    def _scroll(self, rows: int) -> None:
        self.table.first += rows
        self.draw()

    def on_click(self, event: Click) -> None:
        """Choose a row, or sort by the column whose title it is."""
        if event.widget is not self.table:
            return None
        if event.y > 0:
            self.table.choose(self.table.first + event.y - 1)
            return self.draw()
        end = 0
        for column in self.table.shown:
            end += column.width + 1
            if event.x < end or column is self.table.shown[-1]:
                self.sort_by(column.name)
                break
        return self.draw()


_KEYS: "dict[str, Callable[[Top], object]]" = {
    "q": lambda top: top.exit(0),
    "f10": lambda top: top.exit(0),
    "question_mark": Top.show_help,
    "h": Top.show_help,
    "f1": Top.show_help,
    "down": lambda top: top.move(1),
    "j": lambda top: top.move(1),
    "up": lambda top: top.move(-1),
    "k": lambda top: top.move(-1),
    "pagedown": lambda top: top.move(top.table.page),
    "pageup": lambda top: top.move(-top.table.page),
    "home": lambda top: top.table.choose(0),
    "end": lambda top: top.table.choose(len(top.table.rows)),
    "enter": Top.closer,
    "escape": Top.back,
    "backspace": Top.back,
    "p": Top.its_pool,
    "less_than_sign": lambda top: top.sort_beside(-1),
    "greater_than_sign": lambda top: top.sort_beside(1),
    "F": lambda top: top.sort_by("footprint"),
    "M": lambda top: top.sort_by("resident"),
    "N": lambda top: top.sort_by("pid"),
    "P": lambda top: top.sort_by("of_limit"),
    "R": Top.turn,
    "I": Top.turn,
    "slash": Top.begin_to_type,
    "space": lambda top: top.soon.set(),
}


def run(watch: Watch, sort: str, interval: float) -> int:
    """Show a watch until the user has seen enough; return the exit status."""
    # Textual takes these for the terminal's size, for ever: Python's readline exports them.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    return Top(watch, sort, interval).run() or 0
