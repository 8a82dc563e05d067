"""Draw refused.svg: the same program in the same container, killed, and refused memory.

Both are real: jobs.py runs twice in a control group that may have 400 MiB, once as it is and once
under `memlimits run`, and how much it has in RAM, files apart, is read from /proc 200 times a
second meanwhile. Nothing is kept for reuse (`--cache-limit 0`), so that each job is seen to end.

    python docs/pictures/refused.py [OUT.svg]

As root, where memory control groups of version 1 can be made.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from support.cgroup import inside, kills, nested, set_limit  # noqa: E402

MIB = 1 << 20
CONTAINER, LIMIT = 400, 300  # MiB
PROGRAM = str(HERE / "jobs.py")
GOVERNED = ["run", "--quiet", f"--memory-limit={LIMIT}MiB", "--cache-limit=0", PROGRAM]

STYLE = """
  .paper { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .small { font-size: 12px; fill: #57606a }
  .code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  .grid { stroke: #d0d7de }
  .bound { stroke: #57606a; stroke-dasharray: 5 4 }
  .killed { stroke: #b54708 } text.killed, path.fill-killed { stroke: none; fill: #b54708 }
  .lives { stroke: #0a66c2 } text.lives, path.fill-lives { stroke: none; fill: #0a66c2 }
  path.fill-killed, path.fill-lives { opacity: .12 }
  text.end { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #3d444d }
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d } .bound { stroke: #9198a1 }
    .killed { stroke: #ff9a57 } text.killed, path.fill-killed { fill: #ff9a57 }
    .lives { stroke: #58b0ff } text.lives, path.fill-lives { fill: #58b0ff }
    path.fill-killed, path.fill-lives { opacity: .2 }
  }
"""


class Run(NamedTuple):
    """What became of the program: its samples, its own lines, and how it ended."""

    samples: list[tuple[float, int]]  # seconds since it began, resident bytes
    lines: list[tuple[float, str, int]]  # seconds, what it said, of which job
    status: int
    was_killed: bool


def resident(pid: int) -> int:
    """Return the bytes that a process has in RAM, files apart; 0 where it is gone."""
    try:
        _, pages, of_files, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (pages - of_files) * os.sysconf("SC_PAGE_SIZE")


def watch(*words: str) -> Run:
    """Run Python with these words in a control group of its own, and look at it until it ends."""
    with nested("picture") as groups:
        set_limit(groups[-1], CONTAINER * MIB)
        began = time.monotonic()
        command = [*inside(groups[-1]), sys.executable, "-u", *words]
        lines: list[tuple[float, str, int]] = []
        samples: list[tuple[float, int]] = []

        def read() -> None:
            for line in process.stdout or ():
                said, number = line.split()
                lines.append((time.monotonic() - began, said, int(number)))

        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reader = threading.Thread(target=read)
            reader.start()
            while process.poll() is None:
                if nbytes := resident(process.pid):
                    samples.append((time.monotonic() - began, nbytes))
                time.sleep(0.005)
            reader.join()
        return Run(samples, lines, process.returncode, kills(groups[-1]) > 0)


def corners(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out those between two of the same height."""
    inner = zip(points, points[1:], points[2:], strict=False)
    turns = [here for before, here, after in inner if not before[1] == here[1] == after[1]]
    return [points[0], *turns, points[-1]]


class Panel:
    """A run as a diagram, with its left upper corner at x."""

    TOP, BOTTOM, WIDTH = 64, 226, 360

    def __init__(self, x: float, run: Run, seconds: float) -> None:
        self.x, self.run = x, run
        self.begin = run.lines[0][0] - 0.1
        self.scale = self.WIDTH / seconds
        self.parts: list[str] = []

    def at(self, seconds: float, mebibytes: float) -> tuple[float, float]:
        height = self.BOTTOM - self.TOP
        y = self.BOTTOM - height * mebibytes / (CONTAINER * 1.08)
        return round(self.x + max(0, seconds - self.begin) * self.scale, 1), round(y, 1)

    def text(self, x: float, y: float, kind: str, words: str, anchor: str = "start") -> None:
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} class="{kind}">{words}</text>')

    def bound(self, mebibytes: int, words: str, kind: str = "bound") -> None:
        y = self.at(self.begin, mebibytes)[1]
        ends = f'x1="{self.x}" x2="{self.x + self.WIDTH}" y1="{y}" y2="{y}"'
        self.parts.append(f'<line {ends} class="{kind}"/>')
        self.text(self.x + self.WIDTH, y - 5, "small", words, "end")

    def draw(self, kind: str, command: str, end: str) -> str:
        shown = [sample for sample in self.run.samples if sample[0] >= self.begin]
        points = corners([self.at(seconds, nbytes / MIB) for seconds, nbytes in shown])
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        first, last = points[0][0], points[-1][0]
        self.bound(0, "", "grid")
        self.bound(CONTAINER, f"container: {CONTAINER} MiB")
        area = f"M{first:g},{self.BOTTOM} L{path} L{last:g},{self.BOTTOM} Z"
        self.parts.append(f'<path d="{area}" class="fill-{kind}"/>')
        self.parts.append(f'<polyline points="{path}" class="line {kind}"/>')
        self.text(self.x, 28, "code", command)
        self.text(self.x, 46, f"{kind} end", end)
        self.name_jobs()
        return "\n".join(self.parts)

    def name_jobs(self) -> None:
        begun = {number: seconds for seconds, said, number in self.run.lines if said == "begins"}
        ended = {number: seconds for seconds, said, number in self.run.lines if said != "begins"}
        for number, seconds in begun.items():
            last = ended.get(number, self.run.samples[-1][0])
            x = self.at((seconds + last) / 2, 0)[0]
            self.text(x, self.BOTTOM + 18, "small", f"job {number}" if number == 1 else str(number))

    def cross(self, kind: str, mebibytes: float, seconds: float) -> None:
        x, y = self.at(seconds, mebibytes)
        arms = f"M{x - 6},{y - 6} l12,12 m0,-12 l-12,12"
        self.parts.append(f'<path d="{arms}" class="line {kind}"/>')


def drawn(killed: Run, refused: Run) -> str:
    """Return the picture of two runs, as SVG."""
    seconds = max(run.samples[-1][0] - run.lines[0][0] for run in (killed, refused)) + 0.15
    left, right = Panel(60, killed, seconds), Panel(464, refused, seconds)
    last, nbytes = killed.samples[-1]
    left.cross("killed", nbytes / MIB, last)
    [when] = [seconds for seconds, said, _ in refused.lines if said == "refused"]
    right.cross("lives", LIMIT, when)
    right.bound(LIMIT, f"memory limit: {LIMIT} MiB")
    for mebibytes, words in (0, "0"), (200, "200"), (400, "MiB 400"):
        left.text(54, left.at(left.begin, mebibytes)[1] + 4, "small", words, "end")
    left_end = "killed in job 4: exit status 137, no traceback"
    right_end = "job 4 gets a MemoryError, the others are done"
    panels = [
        left.draw("killed", "python jobs.py", left_end),
        right.draw("lives", f"memlimits run --memory-limit {LIMIT}MiB jobs.py", right_end),
    ]
    title = "Resident memory of a program that is killed, and of one that is refused and goes on"
    return "\n".join([
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 260" role="img"'
        ' aria-labelledby="title">',
        f'<title id="title">{title}</title>',
        f"<style>{STYLE}</style>",
        '<rect x=".5" y=".5" width="839" height="259" rx="8" class="paper"/>',
        *panels,
        "</svg>\n",
    ])  # fmt: skip


def main() -> None:
    out = Path(sys.argv[1]) if sys.argv[1:] else HERE / "refused.svg"
    killed, refused = watch(PROGRAM), watch("-m", "memlimits", *GOVERNED)
    assert (killed.status, killed.was_killed) == (-9, True), killed
    assert (refused.status, refused.was_killed) == (0, False), refused
    out.write_text(drawn(killed, refused))


if __name__ == "__main__":
    main()
