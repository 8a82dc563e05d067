"""Python's objects under govern_python(), against those of Python alone."""

from process import Worker, workers
from session import Session
from timing import Timed

MIB = 1 << 20
TITLE = "Python's objects, in a process governed and in one that is not"
DOCUMENT = """
import json
document = {str(i): {"name": "x" * (i % 50), "at": [i, i / 3, None]} for i in range(2_000)}
text = json.dumps(document)
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
def append_all(made, n):
    for i in range(n):
        made.append(None)
def extend_all(made, n):
    for i in range(n):
        made += bytes(1_000)
"""
WORK = {
    "json.loads, 150 kB": "json.loads(text)",
    "json.dumps, 150 kB": "json.dumps(document)",
    "list.append, 100,000 times": "append_all([], 100_000)",
    "dict of 20,000": "{i: None for i in range(20_000)}",
    "str of 100 to 5,000, joined": "''.join(['x' * n for n in range(100, 5_000, 7)])",
    "bytes of 1 to 100 kB": "[bytes(n) for n in range(1_000, 100_000, 1_000)]",
    "50,000 tuples": "[(i, i) for i in range(50_000)]",
    "20,000 instances": "[Point(i, i) for i in range(20_000)]",
    "bytearray, 1,000 steps of 1 kB": "extend_all(bytearray(), 1_000)",
}
LARGE = {
    "1,500,000 tuples and strs": "[(i, str(i)) for i in range(1_500_000)]",
    "list.append, 3,000,000 times": "append_all([], 3_000_000)",
    "40,000 dicts of 30": "[{j: j for j in range(30)} for _ in range(40_000)]",
    "json, 6 MB": (
        "json.loads(json.dumps([{f'k{i}': 'x' * (i % 90), 'l': list(range(i % 7))} "
        "for i in range(60_000)]))"
    ),
}
QUICK = ["json.loads, 150 kB", "list.append, 100,000 times", "50,000 tuples"]


def run(session: Session) -> None:
    with workers({"plain": {}}, governs="python") as found:
        for label in QUICK if session.quick else WORK:
            sides = {name: _side(worker, label) for name, worker in found.items()}
            results = session.compare(label, sides, base="plain")
            session.judge_ratio("objects", label, results, "governed", "plain")
    for label in list(LARGE)[:1] if session.quick else LARGE:
        with workers({"plain": {}}, governs="python") as found:
            _resident(session, label, found)


def _resident(session: Session, label: str, found: dict[str, Worker]) -> None:
    peaks = {}
    for name, worker in found.items():
        # Again and again: what is idle then is to serve, and not to add up.
        worker.side(LARGE[label], DOCUMENT)(4)
        peaks[name] = worker.peak_resident()
        print(f"    peak resident, {name}: {peaks[name] / MIB:,.0f} MiB", flush=True)
    session.judge("resident objects", f"{label}, 4 times", peaks["governed"] / peaks["plain"])


def _side(worker: Worker, label: str) -> Timed:
    return worker.side(WORK[label], DOCUMENT)
