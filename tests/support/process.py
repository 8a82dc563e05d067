"""Processes beside the tests' own: programs that run memlimits, and one that watches."""

import ast
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager

TAKE_ALL_DESCRIPTORS = """
    def take_all_descriptors():
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return taken
"""

# What a program may use.
PRELUDE = """
    import contextlib, ctypes, gc, mmap, os, resource, signal, sys, threading, time, warnings
    import memlimits
    from memlimits import memory

    MIB = 1 << 20

    def thread_failed(error, tell=threading.excepthook):
        # Nobody looks at a thread's end: it is the program's.
        tell(error)
        sys.stderr.flush()
        os._exit(9)

    threading.excepthook = thread_failed

    def proc(key, file="/proc/self/status"):
        with open(file) as text:
            return int(text.read().split(key + ":")[1].split()[0]) * 1024

    def refused_by(n, **options):
        try:
            memlimits.allocate(n, **options)
        except memlimits.MemoryLimitError as error:
            return error.blocked_by

    def with_room():
        # As in support.blocks.
        memlimits.set_cache_limit(0)
        memlimits.allocate(200 * MIB).release()
        memlimits.set_cache_limit(None)

    def consistent(active=0):
        counters = memory.counters()
        parts = sum(counters[part] for part in ("active", "cache", "slack", "pending"))
        assert counters["footprint"] == parts and counters["active"] == active, counters
        assert all(0 <= value < 2**63 for value in counters.values()), counters
        assert counters["pending"] == 0, counters

    def as_nobody():
        # Root's rights make limits mean nothing.
        os.getuid() or os.setresuid(65534, 65534, 65534)

    def lock_elsewhere(n=900 << 10):
        # The program itself locks some of what it may: the library gets less than its capacity.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (MIB, MIB))
        as_nobody()
        assert memlimits.device_info()["wired_capacity"] == MIB
        other = ctypes.create_string_buffer(n)
        assert ctypes.CDLL(None).mlock(other, len(other)) == 0
        return other
"""


def does_something(script):
    """Where indents of two texts do not agree all of a script can lie in its last function."""
    definitions = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return any(not isinstance(step, definitions) for step in ast.parse(script).body)


def execute(program, *options, words=(), **keywords):
    """Run a program as it is, started by `words`; return what became of it."""
    return subprocess.run(
        [*words, sys.executable, *options, "-c", textwrap.dedent(program)],
        **{"capture_output": True, "text": True, "timeout": 100, **keywords},
    )


def run(script, *options, words=(), code=0, timeout=100):
    """Run a script after the prelude. It has to end with `code`, and if that is 0 at its end."""
    script = textwrap.dedent(script)
    assert does_something(script)
    source = (
        textwrap.dedent(PRELUDE + TAKE_ALL_DESCRIPTORS) + script + "\nprint('done', flush=True)\n"
    )
    done = execute(source, *options, words=words, timeout=timeout)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code == 0:
        assert done.stdout.endswith("done\n")
    return done


WATCH = """
    import select, sys
    highest = 0
    with open(f"/proc/{sys.argv[1]}/status") as file:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            file.seek(0)
            highest = max(highest, int(file.read().split(sys.argv[2] + ":")[1].split()[0]))
    print(highest * 1024)
"""


class Watcher:
    highest = None


@contextmanager
def watched(key):
    """Have another process follow a line of /proc/self/status; afterwards `highest` is known."""
    watcher = Watcher()
    words = [sys.executable, "-S", "-c", textwrap.dedent(WATCH), str(os.getpid()), key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield watcher
        watcher.highest = int(process.communicate(timeout=30)[0])
    assert process.returncode == 0
