"""``memlimits plot``: a picture of a recording, for papers and slides."""

import os
from importlib import import_module

from memlimits.cli import outputs
from memlimits.cli.convert import read, tell
from memlimits.cli.errors import CommandError
from memlimits.cli.streams import say
from memlimits.recording.stacking import stack
from memlimits.sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from memlimits.recording import History, Process

_ENDINGS = ("png", "svg", "pdf")
# Colours that people who do not see all of them can tell (Okabe and Ito), and dashes.
_SERIES = {
    "footprint": ("#0072B2", "-", 1.8),
    "active": ("#E69F00", (0, (5, 2)), 1.3),
    "cache": ("#009E73", (0, (1, 1.5)), 1.3),
    "resident": ("#CC79A7", (0, (6, 2, 1, 2)), 1.3),
}
_AREAS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "\\\\", "xx", "")
_LIMIT = "#D55E00"
_WAIT = "#6A4FB3"
_MOST_INSTANTS = 2000
_SMALLEST, _LARGEST = 1.0, 40.0  # inches
_MOST_DOTS = 12_000


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits plot`` to its parser."""
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="ends in .png, .svg or .pdf"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--title", help="above the picture; none unless given")
    parser.add_argument("--width", metavar="INCHES", default="7", help="7 unless given")
    parser.add_argument(
        "--height", metavar="INCHES", help="half of the width and a little more unless given"
    )
    parser.add_argument("--dpi", metavar="N", default="200", help="of a .png; 200 unless given")
    parser.add_argument(
        "--process",
        metavar="PID",
        help="of one process alone; all of several, one above the other, unless given",
    )


def plot(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits plot`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    name = wanted.output
    form = os.path.splitext(name)[1][1:].lower()
    if form not in _ENDINGS:
        raise CommandError(f"{name}: a picture's name ends in .png, .svg or .pdf, as -o a.png")
    width = _number("--width", wanted.width, _SMALLEST, _LARGEST)
    height = 0.56 * width
    if wanted.height is not None:
        height = _number("--height", wanted.height, _SMALLEST, _LARGEST)
    dpi = _number("--dpi", wanted.dpi, 20, 1200)
    if max(width, height) * dpi > _MOST_DOTS:
        raise CommandError(
            f"a picture of {width:g} by {height:g} inches with --dpi {dpi:g} has more than "
            f"{_MOST_DOTS:,} dots a side: give less of either"
        )
    outputs.check(name, force=wanted.force, made_of=wanted.file)
    matplotlib = _matplotlib()
    history = read(wanted.file)
    process = _chosen(history, wanted.process)
    with matplotlib.rc_context(_STYLE), outputs.output(name) as file:
        figure = import_module("matplotlib.figure").Figure((width, height), layout="constrained")
        axes = figure.add_subplot()
        if process is None:
            _draw_together(axes, history)
        else:
            _draw_process(axes, history, process)
        _finish(figure, axes, history, wanted.title)
        # No date: the same recording makes the same file.
        metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
        figure.savefig(file, format=form, dpi=dpi, metadata=metadata)
    tell(history)
    say(f"made {name} ({os.path.getsize(name):,} bytes)")


# Letters stay letters in a .pdf, and become curves in a .svg, which no font is then missing for.
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "memlimits",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    # A command is no formula.
    "text.parse_math": False,
}


def _matplotlib() -> "Any":
    try:
        return import_module("matplotlib")
    except ImportError:
        raise CommandError("this needs matplotlib: pip install matplotlib") from None


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise CommandError(
            f"argument {name}: invalid number {text!r}: write one from {least:g} to {most:g}"
        )
    return value


def _chosen(history: "History", pid: "str | None") -> "Process | None":
    """Return the process to be drawn alone; None for all of them."""
    processes = [process for process in history.processes if process.samples]
    if not processes:
        raise CommandError(
            f"{history.reader.path}: there is no sample in it to be drawn: record the program "
            "anew, until it has ended (memlimits run --record)"
        )
    if pid is None:
        return processes[0] if len(processes) == 1 else None
    found = [process for process in processes if str(process.pid) == pid]
    if not found:
        largest = sorted(processes, key=lambda process: -process.peak)[:10]
        pids = ", ".join(str(process.pid) for process in largest)
        raise CommandError(
            f"argument --process: {history.reader.path} has no process {pid} with samples; it has "
            f"{pids}"
        )
    return max(found, key=lambda process: process.peak)


def _draw_process(axes: "Any", history: "History", process: "Process") -> None:
    samples = process.samples
    end = process.last
    times = [sample.at - history.first for sample in samples] + [end - history.first]
    for name, (colour, dashes, width) in _SERIES.items():
        values = [getattr(sample, name) for sample in samples]
        if any(values):
            style = {"color": colour, "linestyle": dashes, "linewidth": width, "label": name}
            axes.step(times, [*values, values[-1]], where="post", **style)
    top = max(max(sample.footprint, sample.resident) for sample in samples)
    _draw_limits(axes, process.limits, end, top, history.first)
    refused = [one.at for one in history.refusals if one.process is process]
    _draw_marks(axes, history, refused, [process])


def _draw_together(axes: "Any", history: "History") -> None:
    """The largest processes one above the other, and what the others have on top."""
    largest = sorted(history.processes, key=lambda process: -process.peak)
    groups = [[process] for process in largest[: len(_AREAS) - 1]]
    if len(largest) > len(_AREAS):
        groups.append(largest[len(_AREAS) - 1 :])
    elif len(largest) == len(_AREAS):
        groups.append(largest[-1:])
    times, heights = stack(groups, _MOST_INSTANTS)
    times.append(history.last)
    heights = [[*row, row[-1]] for row in heights]
    labels = [_label(group[0]) if len(group) == 1 else f"{len(group)} others" for group in groups]
    areas = axes.stackplot(
        [at - history.first for at in times],
        heights,
        step="post",
        labels=labels,
        colors=_AREAS[: len(groups)],
        edgecolor="white",
        linewidth=0.4,
    )
    for area, hatch in zip(areas, _HATCHES, strict=False):
        area.set_hatch(hatch)
    top = max(map(sum, zip(*heights, strict=True)))
    limits: list[tuple[float, int | None]] = []
    for one in history.pool:
        if not limits or limits[-1][1] != one.limit:
            limits.append((one.at, one.limit))
    _draw_limits(axes, limits, history.last, top, history.first)
    _draw_marks(axes, history, [one.at for one in history.refusals], largest)


def _label(process: "Process") -> str:
    name = process.name
    return name if len(name) <= 40 else f"{name[:39]}…"


def _draw_limits(
    axes: "Any", limits: "list[tuple[float, int | None]]", end: float, top: int, first: float
) -> None:
    """Draw a limit as a line, unless all that was held is flat beside it; it is named then."""
    label = "limit"
    for place, (at, limit) in enumerate(limits):
        until = limits[place + 1][0] if place + 1 < len(limits) else end
        if limit is None or limit > 4 * max(top, 1):
            continue
        axes.hlines(limit, at - first, until - first, _LIMIT, linewidth=1.3, label=label)
        label = "_"
    far = [limit for _, limit in limits if limit is not None and limit > 4 * max(top, 1)]
    if far:
        axes.plot([], [], " ", label=f"limit {format_size(far[-1])}")


def _draw_marks(
    axes: "Any", history: "History", refused: "list[float]", processes: "list[Process]"
) -> None:
    """Mark refusals and waits above the lines."""
    across = axes.get_xaxis_transform()
    marks = {"marker": "v", "markersize": 6, "clip_on": False, "linestyle": "none"}
    if refused:
        times = [at - history.first for at in refused]
        axes.plot(
            times, [1.02] * len(times), color=_LIMIT, label="refusal", transform=across, **marks
        )
    waits = [
        after.at - history.first
        for process in processes
        for before, after in zip(process.samples, process.samples[1:], strict=False)
        if after.waits > before.waits
    ]
    if waits:
        marks |= {"marker": "s", "markersize": 4}
        axes.plot(waits, [1.02] * len(waits), color=_WAIT, label="wait", transform=across, **marks)


def _finish(figure: "Any", axes: "Any", history: "History", title: "str | None") -> None:
    """Give the axes their units, and the legend its place below them."""
    ticker = import_module("matplotlib.ticker")
    top = axes.get_ylim()[1]
    step = 1
    while top / step > 6:
        step *= 2
    axes.yaxis.set_major_locator(ticker.MultipleLocator(step))
    axes.yaxis.set_major_formatter(lambda value, _: format_size(int(value)))
    length = max(history.last - history.first, 0.001)
    unit, name = next(
        (unit, name)
        for unit, name in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if length >= 2 * unit or unit == 1
    )
    steps = ticker.MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(0, length / unit)
    axes.set_xticks([unit * one for one in steps if one * unit <= length], labels=None)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    axes.set_xlabel(name)
    axes.set_xlim(0, length)
    axes.set_ylim(0, top)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
