"""Row 7: importing memlimits, over starting Python."""

import compileall
import statistics
import subprocess
import sys
import time
from pathlib import Path

from session import Session
from timing import Timed

import memlimits

TITLE = "import memlimits, in processes of their own"
NUMPY = "import sys, memlimits; print(sum(name.split('.')[0] == 'numpy' for name in sys.modules))"


def run(session: Session) -> None:
    # As an installer does. A source tree from which nothing is written would be compiled each time.
    compileall.compile_dir(Path(memlimits.__file__).parent, quiet=2)
    sides = {"python": _program("pass"), "memlimits": _program("import memlimits")}
    found = session.compare("python -c", sides, base="python", most=1)
    pairs = zip(found.samples["memlimits"], found.samples["python"], strict=True)
    over = statistics.median(ours - bare for ours, bare in pairs)
    session.judge("import", "wall time of a process", over / 1e6)
    done = subprocess.run([sys.executable, "-c", NUMPY], capture_output=True, text=True, check=True)
    session.judge("import NumPy", "sys.modules", int(done.stdout))


def _program(source: str) -> Timed:
    """Return a side that runs Python from its start to its end."""

    def timed(number: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(number):
            subprocess.run([sys.executable, "-c", source], check=True)
        return float(time.perf_counter_ns() - start)

    return timed
