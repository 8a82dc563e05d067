"""What a run found: comparisons and figures, printed as they come, and kept for the JSON."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets import TARGETS, Target
from timing import Comparison


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    try:
        huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip()
    except OSError:
        huge_pages = "unknown"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "transparent_huge_pages": huge_pages,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Figure:
    """One number that a target is about."""

    target: Target
    key: str
    label: str
    value: float

    @property
    def verdict(self) -> str:
        return "met" if self.target.met(self.value) else "MISSED"


@dataclass
class Report:
    """Facts, comparisons by theme and label, figures, and what could not be measured."""

    facts: dict[str, Any] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, theme: str, label: str, comparison: Comparison, base: str) -> None:
        """Keep a comparison and print it, a line for each side."""
        self.comparisons.setdefault(theme, {})[label] = comparison
        print(f"\n  {label:44} {'ns':>14} {'spread':>8} {'x ' + base:>14}")
        for side in comparison.samples:
            ratio = comparison.ratio(side, base)
            median, spread = comparison.median(side), comparison.spread(side)
            print(f"    {side:42} {median:14,.1f} {spread:8.1%} {ratio:14.3g}", flush=True)

    def judge(self, key: str, label: str, value: float) -> None:
        """Keep a figure for the target of that key."""
        self.figures.append(Figure(TARGETS[key], key, label, float(value)))

    def miss(self, name: str, remedy: str) -> None:
        """Say, once, what is not measured because it is not here."""
        if name not in self.missing:
            self.missing[name] = remedy
            print(f"  not measured: {name} ({remedy})", flush=True)

    def print_verdicts(self, *, everything: bool) -> None:
        """Print a line for each figure, and for each target without one if all was to be run."""
        print(f"\n{'target':6} {'what':60} {'bound':>13} {'figure':>10}  verdict")
        for key, target in TARGETS.items():
            figures = [figure for figure in self.figures if figure.key == key]
            if everything and not figures:
                print(f"{target.row:6} {target.text:60} {target.shown_bound:>13} not measured")
            for figure in figures:
                print(
                    f"{target.row:6} {target.text:60} {target.shown_bound:>13}"
                    f" {target.show(figure.value):>10}  {figure.verdict:6}  {figure.label}"
                )
        met = sum(figure.verdict == "met" for figure in self.figures)
        print(f"\n{met} of {len(self.figures)} figures meet their target")
        for name, remedy in self.missing.items():
            print(f"not measured: {name} ({remedy})")

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.facts,
            "versions": self.versions,
            "missing": self.missing,
            "figures": [
                {
                    "row": figure.target.row,
                    "target": figure.key,
                    "text": figure.target.text,
                    "bound": figure.target.shown_bound,
                    "label": figure.label,
                    "value": figure.value,
                    "verdict": figure.verdict,
                }
                for figure in self.figures
            ],
            "samples_ns": {
                theme: {label: result.samples for label, result in results.items()}
                for theme, results in self.comparisons.items()
            },
        }
