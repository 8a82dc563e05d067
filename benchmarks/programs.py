"""Programs in C that allocate all the time, unchanged, with one allocator after another.

python programs.py "./larson.so 2 8 1000 5000 100 4141 2" "./alloc-test.so 1"

Each is a program that was linked with -shared -fPIC, as those of mimalloc-bench can be, and its
words. Its `main` runs in processes that take turns: with the C library's malloc, with mimalloc in
its place, and under `memlimits run --govern all`. Printed are medians: of pairs, processor time for
as much work, where the program says how much it did; and the most resident MiB that it added.
"""

import ctypes
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers import mimalloc_path
from session import MIB

TURNS = 7
# What larson and glibc's own benchmark print.
WORK = re.compile(r"(\d+) (iterations|operations per second)")
GOVERNED = ["-m", "memlimits", "run", "--govern", "all", "--memory-limit", "50%", "--quiet"]


def status(word: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{word}:")[2].split()[0]) << 10


def call(path: str, *words: str) -> None:
    """In a process of its own, which ends with it: what it took, on standard error."""
    library = ctypes.CDLL(path)
    line = [word.encode() for word in (path, *words)]
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before, start = status("VmRSS"), time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF)
    library.main(len(line), (ctypes.c_char_p * (len(line) + 1))(*line, None))
    now, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
    ctypes.CDLL(None).fflush(None)
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    took = {"processor": processor, "seconds": seconds, "peak": status("VmHWM") - before}
    os.write(2, json.dumps(took).encode())
    os._exit(0)


def turn(options: list[str], environment: dict[str, str], words: list[str]) -> tuple[float, int]:
    """Return processor time for a unit of work, and bytes."""
    command = [sys.executable, *options, __file__, "--call", *words]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    took = json.loads(done.stderr.splitlines()[-1])
    work = 1.0
    if found := WORK.search(done.stdout):
        work = int(found[1]) * (took["seconds"] if found[2] != "iterations" else 1)
    return took["processor"] / work, took["peak"]


def run(words: list[str]) -> None:
    sides: dict[str, tuple[list[str], dict[str, str]]] = {"glibc": ([], {})}
    if path := mimalloc_path():
        sides["mimalloc"] = [], {"LD_PRELOAD": path}
    sides["memlimits"] = GOVERNED, {}
    turns = [{name: turn(*side, words) for name, side in sides.items()} for _ in range(TURNS)]
    for name in sides:
        over = statistics.median(each["memlimits"][0] / each[name][0] for each in turns)
        peak = statistics.median(each[name][1] for each in turns) / MIB
        print(f"    {name:9}: memlimits takes {over:5.2f} x its time; {peak:6.1f} MiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--call":
        call(*sys.argv[2:])
    for program in sys.argv[1:]:
        print(program)
        run(program.split())
