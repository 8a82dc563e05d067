"""Processes in one pool, that do what a test tells them, line by line."""

import os
import select
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import memlimits

MIB = 1 << 20
LIMIT = 64 * MIB

_PROGRAM = """
    import os, sys, time
    import memlimits
    from memlimits import memory

    MIB = 1 << 20
    blocks = []
    PLAIN = int, float, str, list, dict, type(None)

    def take(n):
        try:
            blocks.append(memlimits.allocate(n))
        except memlimits.MemoryLimitError as error:
            return error.blocked_by
        return "ok"

    for line in sys.stdin:
        try:
            answer = eval(line)
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        print(repr(answer if isinstance(answer, PLAIN) else repr(answer)), flush=True)
"""


def facts(pid=None):
    """What the pool "p" says of itself, or of one of its members."""
    found = memlimits.pools.get("p")
    return found if pid is None else next(m for m in found["members"] if m["pid"] == pid)


class Member:
    """A process with `blocks`, a list, and `take(n)`, which returns "ok" or what refused.

    `before`: words that start it.
    """

    def __init__(self, folder, *before):
        environ = {**os.environ, "MEMLIMITS_POOLS": str(folder)}
        words = [*before, sys.executable, "-c", textwrap.dedent(_PROGRAM)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, text=True, env=environ, **pipes)
        self.pid = self.process.pid

    def tell(self, expression):
        """Have an expression evaluated, without waiting for it."""
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def hear(self):
        """What came of the first that was not heard of."""
        return eval(self.process.stdout.readline())

    def ask(self, expression):
        self.tell(expression)
        return self.hear()

    def join(self, *, policy="strict", timeout=None, **options):
        """Join the pool "p"."""
        words = ", ".join(f"{name}={value!r}" for name, value in options.items())
        timeout = "" if timeout is None else f", {timeout}"
        self.ask(f"memlimits.set_memory_policy({policy!r}{timeout})")
        answer = self.ask(f"memlimits.join('p', {words})")
        assert "Membership" in str(answer), answer

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def first_to_answer(processes):
    """The first of several members, which were told something, to have an answer."""
    by_pipe = {member.process.stdout: member for member in processes}
    ready, _, _ = select.select(list(by_pipe), [], [], 100)
    return by_pipe[ready[0]]


@contextmanager
def members(folder, count):
    """So many of them, which are no more afterwards."""
    made = [Member(folder) for _ in range(count)]
    try:
        yield made
    finally:
        for member in made:
            member.end()
