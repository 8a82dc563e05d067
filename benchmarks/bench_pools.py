"""Growth in a process that shares a pool with others, against one that does not, or is alone."""

import contextlib
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor

from process import Worker
from session import Session
from timing import Timed

STEPS, LENGTH = 1_000, 64 << 10
PROCESSES = 8
TITLE = "growth in a pool of processes, and without one"
JOIN = 'memlimits.join("benchmark", limit=1 << 50)'
SETUP = f"""
import memlimits
memlimits.set_memory_limit(1 << 50)
def grow():
    blocks = [memlimits.allocate({LENGTH}) for _ in range({STEPS})]
    blocks.clear()
    memlimits.clear_cache()
"""


def run(session: Session) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())

        def worker(place: int = -1) -> Worker:
            made = Worker(environment={"MEMLIMITS_POOLS": folder}, place=place)
            stack.callback(made.close)
            return made

        against_none(session, worker().side("grow()", SETUP + JOIN), worker().side("grow()", SETUP))
        sides = [
            worker(place).side("grow()", SETUP + JOIN, clock="process_time_ns")
            for place in range(PROCESSES)
        ]
        at_once(session, sides, stack.enter_context(ThreadPoolExecutor(PROCESSES)))


def against_none(session: Session, shared: Timed, alone: Timed) -> None:
    times = session.compare(
        f"{STEPS} x 64 KiB", {"in a pool": shared, "alone": alone}, base="alone"
    )
    pairs = zip(times.samples["in a pool"], times.samples["alone"], strict=True)
    more = statistics.median(one - other for one, other in pairs)
    session.judge("pool growth", "64 KiB", more / STEPS)


def at_once(session: Session, sides: list[Timed], threads: ThreadPoolExecutor) -> None:
    def together(number: int) -> float:
        return statistics.mean(threads.map(lambda side: side(number), sides))

    sides[0](1)
    found = session.compare(
        f"processor time, {STEPS} x 64 KiB",
        {"8 at once": together, "one": sides[0]},
        base="one",
    )
    session.judge_ratio("pool together", "64 KiB", found, "8 at once", "one")
