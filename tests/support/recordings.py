"""Recordings of real programs: what each held, was refused, and who held it."""

import os
import subprocess
import sys

# It records itself, and a child that tells what it holds.
PROGRAM = '''
import json, os, subprocess, sys, time
import memlimits
from memlimits import recording

MIB = 1 << 20
CHILD = """
import json, sys, time, memlimits
held = []
for size in (3, 9, 6):
    held.append(memlimits.allocate(size << 20))
    if len(held) == 3:
        del held[1]
    print(json.dumps(memlimits.stats()._asdict()), flush=True)
    sys.stdin.readline()
"""


def counters(stats):
    return {
        "active": stats["active"], "cache": stats["cache"], "slack": stats["slack"],
        "wired": stats["wired"], "peak": stats["peak"], "resident": stats["process_resident"],
        "swap": stats["process_swap"], "waiting": stats["waiting"],
        "refusals": stats["refusals"], "waits": stats["waits"], "overruns": stats["overruns"],
        "trims": stats["trims"], "evictions": stats["evictions"],
    }


def main(path):
    memlimits.set_holder_sampling(64 << 10)
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(64 * MIB)
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, text=True)
    me = os.getpid()
    with recording.Writer(path, program=sys.argv, interval=0.02,
                          machine=memlimits.device_info(),
                          versions={"memlimits": memlimits.__version__}) as writer:
        now = time.time()
        stats = memlimits.stats()
        writer.process(now, me, parent=os.getppid(), started=now, command=" ".join(sys.argv),
                       memory_limit=stats.memory_limit, cache_limit=stats.cache_limit,
                       wired_limit=stats.wired_limit, policy=stats.policy,
                       memory_count=stats.memory_count)
        writer.process(now, child.pid, parent=me, started=now, command="python -c CHILD",
                       memory_limit=None, policy="guideline")
        held = []

        def step():
            now = time.time()
            stats = memlimits.stats()._asdict()
            writer.sample(now, me, footprint=stats["footprint"], **counters(stats))
            others = 0
            if child.poll() is None:
                line = child.stdout.readline()
                if line:
                    theirs = json.loads(line)
                    others = theirs["footprint"]
                    writer.sample(now, child.pid, footprint=others, **counters(theirs))
                    child.stdin.write("\\n")
                    child.stdin.flush()
            writer.pool(now, used=stats["footprint"] + others, limit=100 * MIB,
                        refusals=stats["refusals"], waits=0, members=2)
            writer.holders(now, me, memlimits.holders(100))
            time.sleep(0.02)

        def load_rows(count):
            rows = []
            for _ in range(count):
                rows.append(memlimits.allocate(2 * MIB))
            return rows

        def index():
            held.append(memlimits.allocate(7 * MIB))

        step()
        held += load_rows(5)
        step()
        snapshot(writer, me, held)
        index()
        step()
        for size in (100, 60):
            try:
                held.append(memlimits.allocate(size * MIB))
            except memlimits.MemoryLimitError as error:
                writer.refusal(time.time(), me, requested=error.requested, limit=error.limit,
                               active=error.active, cache=error.cache, slack=error.slack,
                               blocked_by=error.blocked_by, holders=error.holders)
            step()
        child.stdin.close()
        child.wait()
        writer.end(time.time(), child.pid, "exited")
        held += load_rows(15)
        step()
        snapshot(writer, me, held)
        del held[:12]
        step()
        memlimits.clear_cache()
        step()
        snapshot(writer, me, held)
        writer.end(time.time(), me, "exited")


def snapshot(writer, me, held):
    holders = memlimits.holders(100)
    stacks = {holder.function: holder.stack for holder in holders}
    blocks = []
    for block in held:
        address = __import__("ctypes").addressof(
            __import__("ctypes").c_char.from_buffer(memoryview(block)))
        size = len(memoryview(block))
        name = "main.<locals>.index" if size == 7 * MIB else "main.<locals>.load_rows"
        stack = next((s for f, s in stacks.items() if f.startswith(name)), None)
        blocks.append((address, size, size, "block", stack))
    idle = memlimits.stats().cache
    top = max(row[0] + row[1] for row in blocks)
    if idle:
        blocks.append((top, idle, 0, "idle", None))
    writer.snapshot(time.time(), me, stats=memlimits.stats()._asdict(), holders=holders,
                    budgets=[], blocks=blocks)


main(sys.argv[1])
'''
HOSTILE = ("<script>alert(1)<", "script>\"'.py")


def record(folder, *, hostile=False):
    """Run the program, from a file whose path is HTML where that is asked for; the recording."""
    source = folder.joinpath(*HOSTILE) if hostile else folder / "program.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(PROGRAM)
    path = folder / "run.rec"
    subprocess.run([sys.executable, source, path], check=True, timeout=60, env=dict(os.environ))
    return path
