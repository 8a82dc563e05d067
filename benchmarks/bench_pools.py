"""Growth in a process that shares a pool with others, against one that does not."""

import contextlib
import statistics
import tempfile

from process import Worker
from session import Session

STEPS, LENGTH = 1_000, 64 << 10
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
        sides = {}
        for name, setup in (("in a pool", SETUP + JOIN), ("alone", SETUP)):
            worker = Worker(environment={"MEMLIMITS_POOLS": folder})
            stack.callback(worker.close)
            sides[name] = worker.side("grow()", setup)
        times = session.compare(f"{STEPS} x 64 KiB", sides, base="alone")
        pairs = zip(times.samples["in a pool"], times.samples["alone"], strict=True)
        more = statistics.median(shared - alone for shared, alone in pairs)
        session.judge("pool growth", "64 KiB", more / STEPS)
