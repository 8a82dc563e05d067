"""Measure memlimits against its targets, and print a figure and a verdict for each.

python benchmarks [--quick] [--only THEME ...]

Everything that is found also goes to benchmarks/results/, as JSON and as a plot.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# In the order of the targets.
THEMES = [
    "python", "arrays", "heap", "threads", "passing", "scaling", "strict", "memory", "cached",
    "numpy", "resizing", "import", "getters", "limit", "objects", "holders", "pools",
]  # fmt: skip
# Before a process starts: jemalloc's thread-local storage has to be set aside, and tcmalloc is not
# to move the program's break while the C library does.
VARIABLES = {
    "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=16384",
    "TCMALLOC_SKIP_SBRK": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds: a minute or so")
    parser.add_argument("--only", nargs="+", metavar="THEME", help=f"of {', '.join(THEMES)}")
    args = parser.parse_args()
    if unknown := set(args.only or []) - set(THEMES):
        parser.error(f"no theme {', '.join(sorted(unknown))}; there are {', '.join(THEMES)}")
    if platform.libc_ver()[0] == "glibc" and not VARIABLES.keys() <= os.environ.keys():
        words = [sys.executable, str(HERE), *sys.argv[1:]]
        os.execve(sys.executable, words, {**VARIABLES, **os.environ})

    from session import Session

    session = Session(quick=args.quick)
    start = time.monotonic()
    print(", ".join(f"{name} {value}" for name, value in session.report.facts.items()))
    for name in args.only or THEMES:
        theme = importlib.import_module(f"bench_{name}")
        session.theme = name
        print(f"\n{name}: {theme.TITLE} (after {time.monotonic() - start:.0f} s)", flush=True)
        theme.run(session)
    session.report.facts["seconds"] = round(time.monotonic() - start)
    session.report.print_verdicts(everything=not args.only)
    _write(session)


def _write(session) -> None:
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(session.report.as_json(), indent=1) + "\n")
    print(f"\nwritten to {path}")
    try:
        from plot import plot
    except ImportError:
        print("no plot: matplotlib is not installed (pip install matplotlib)")
        return
    plot(session.report, path.with_suffix(".png"))
    print(f"plotted in {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
