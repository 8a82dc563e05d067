"""A run as a picture: how far each figure is from its bound, and times by size and by threads."""

import re
from pathlib import Path

import matplotlib as mpl
from report import Report
from targets import TARGETS

mpl.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes


def plot(report: Report, path: Path) -> None:
    figure, axes = pyplot.subplots(1, 3, figsize=(22, 9), width_ratios=[2, 1, 1])
    _margins(axes[0], report)
    _times(axes[1], report, "heap", "hit, ", "a hit, one thread")
    _times(axes[2], report, "scaling", "replacement, 64 B to 64 KiB, ", "random replacement")
    facts = report.facts
    figure.suptitle(f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _margins(axes: Axes, report: Report) -> None:
    """Draw the worst figure of each target: right of 1 it is met."""
    worst: dict[str, float] = {}
    for figure in report.figures:
        margin = figure.target.margin(figure.value)
        worst[figure.key] = min(margin, worst.get(figure.key, margin))
    keys = [key for key in TARGETS if key in worst][::-1]
    shown = [min(max(worst[key], 0.01), 100) for key in keys]
    colours = ["tab:green" if worst[key] >= 1 else "tab:red" for key in keys]
    axes.barh(range(len(keys)), [value - 1 for value in shown], left=1, color=colours)
    axes.set_xscale("log")
    axes.set_xlim(0.008, 120)
    axes.axvline(1, color="black")
    labels = [
        f"{TARGETS[key].text} {TARGETS[key].shown_bound}   {TARGETS[key].row}" for key in keys
    ]
    axes.set_yticks(range(len(keys)), labels)
    axes.set_title("times better than the target, worst figure (right of 1: met)")


def _times(axes: Axes, report: Report, theme: str, prefix: str, title: str) -> None:
    """Draw the medians of a theme's comparisons, a line for each side."""
    chosen = {
        label.removeprefix(prefix): result
        for label, result in report.comparisons.get(theme, {}).items()
        if label.startswith(prefix)
    }
    sides = {side: None for result in chosen.values() for side in result.samples}
    for side in sides:
        axes.plot(
            list(chosen),
            [result.median(side) for result in chosen.values()],
            marker="o",
            linewidth=3 if re.match("memlimits", side) else 1.5,
            linestyle=":" if side == "loop alone" else "-",
            label=side,
        )
    axes.set_title(title + ", ns")
    if chosen:
        axes.set_yscale("log")
        axes.legend()
        axes.grid(axis="y", alpha=0.3)
