"""Run every benchmark, print a table each, and write the samples as JSON.

python benchmarks [--quick] [NAME ...]
"""

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
from timing import Comparison

import memlimits

HERE = Path(__file__).parent
NAMES = [path.stem.removeprefix("bench_") for path in sorted(HERE.glob("bench_*.py"))]


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
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "transparent_huge_pages": huge_pages,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "backend": memlimits.device_info()["backend"],
    }


def print_table(bench: ModuleType, results: dict[str, Comparison]) -> None:
    """Print ns, spread, and the two ratios to the baseline, a line for each side."""
    base = bench.BASELINE
    width = max(map(len, results))
    print(f"\n{bench.TITLE} ({base} takes so many times longer)")
    head = f"{'ns':>14} {'spread':>7} {'of medians':>11} {'of rounds':>10}"
    print(f"{'':{width}}  {'side':10} {head}")
    for label, result in results.items():
        for side in result.samples:
            print(
                f"{label:{width}}  {side:10} {result.median(side):14,.1f}"
                f" {result.spread(side):7.1%}"
                f" {result.ratio_of_medians(side, base):10.2f}x"
                f" {result.median_of_ratios(side, base):9.2f}x"
            )
            label = ""


def as_json(bench: ModuleType, results: dict[str, Comparison]) -> dict[str, Any]:
    return {
        label: {
            side: {
                "median_ns": result.median(side),
                "spread": result.spread(side),
                "ratio_of_medians": result.ratio_of_medians(side, bench.BASELINE),
                "median_of_ratios": result.median_of_ratios(side, bench.BASELINE),
                "samples_ns": samples,
            }
            for side, samples in result.samples.items()
        }
        for label, result in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds: under a minute")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rounds, seconds = (7, 0.005) if args.quick else (41, 0.02)

    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    report: dict[str, Any] = {"machine": facts, "rounds": rounds, "benchmarks": {}}
    for name in args.names or NAMES:
        bench = importlib.import_module(f"bench_{name}")
        results = bench.run(rounds=rounds, seconds=seconds)
        print_table(bench, results)
        report["benchmarks"][name] = as_json(bench, results)

    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
