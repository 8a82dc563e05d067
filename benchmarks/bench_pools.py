"""Growth in a process that shares a pool with others, against one that does not."""

import os
import statistics
import tempfile

from process import Worker
from session import Session

STEPS, LENGTH = 1_000, 64 << 10
TITLE = "growth in a pool of processes, and without one"
SETUP = f"""
import memlimits
memlimits.set_memory_limit(1 << 50)
if {{joins}}:
    memlimits.join("benchmark", limit=1 << 50)
def grow():
    blocks = [memlimits.allocate({LENGTH}) for _ in range({STEPS})]
    blocks.clear()
    memlimits.clear_cache()
"""


def run(session: Session) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MEMLIMITS_POOLS": folder}
        found = {name: Worker(environment=environment) for name in ("in a pool", "alone")}
        try:
            sides = {
                name: worker.side("grow()", SETUP.format(joins=name == "in a pool"))
                for name, worker in found.items()
            }
            label = f"{STEPS} x 64 KiB"
            times = session.compare(label, sides, base="alone")
            pairs = zip(times.samples["in a pool"], times.samples["alone"], strict=True)
            more = statistics.median(shared - alone for shared, alone in pairs)
            session.judge("pool growth", "64 KiB", more / STEPS)
        finally:
            for worker in found.values():
                worker.close()
