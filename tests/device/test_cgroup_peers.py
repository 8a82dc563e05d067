"""Several processes in one control group: what one was promised, no other one is given."""

import fcntl
import os
import subprocess
import sys
import textwrap

import pytest

from support.cgroup import inside, needs_groups, nested, set_limit
from support.process import run
from support.units import MIB

pytestmark = [pytest.mark.host, needs_groups]

# Children that take turns with their parent, and end with 0.
CHILDREN = """
    memlimits.set_memory_limit(1 << 40)

    class Child:
        def __init__(self, steps):
            told, self.tells = os.pipe()
            self.told, tells = os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
                code = 1
                try:
                    for step in steps():
                        os.write(tells, b"x" if step else b"-")
                        assert os.read(told, 1)
                    code = 0
                finally:
                    os._exit(code)

        def go(self):
            os.write(self.tells, b"x")

        def wait(self):
            return os.read(self.told, 1) == b"x"

        def end(self):
            assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 0

    def touch(block):
        memoryview(block)[::4096] = bytes(len(memoryview(block)[::4096]))

    def given(n):
        try:
            return memlimits.allocate(n)
        except memlimits.MemoryLimitError as error:
            assert error.blocked_by == "system", error

    def group_has():
        bounds = memlimits.effective_limit().candidates
        return min(bound.nbytes for bound in bounds if bound.kind == "cgroup")
"""


def run_in(group, script):
    run(textwrap.dedent(CHILDREN) + textwrap.dedent(script), words=inside(group))


@pytest.fixture
def group():
    with nested() as (group,):
        set_limit(group, 256 * MIB)
        yield group


def test_what_another_process_has_not_touched_yet_is_spoken_for(group):
    run_in(
        group,
        """
        def steps():
            block = given(140 * MIB)
            yield block
            touch(block)
            yield True

        before = group_has()
        child = Child(steps)
        assert child.wait()
        assert abs(before - group_has() - 140 * MIB) < 8 * MIB
        assert not memlimits.would_fit(140 * MIB)
        assert given(140 * MIB) is None
        touch(given(80 * MIB))
        child.go(), child.wait()
        assert abs(before - group_has() - 140 * MIB) < 12 * MIB
        child.go(), child.end()
        touch(given(140 * MIB))
        """,
    )


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("made", ["allocate", "numpy", "resized"])
def test_what_all_ask_for_at_the_same_time_not_all_are_given(group, processes, made):
    run_in(
        group,
        f"""
        import numpy
        numbers = numpy.ones(MIB, numpy.uint8)

        def take():
            if {made!r} == "allocate":
                return given(140 * MIB)
            try:
                if {made!r} == "numpy":
                    return numpy.empty(140 * MIB, numpy.uint8)
                array = numbers.copy()
                array.resize(141 * MIB, refcheck=False)
                return array
            except MemoryError:
                pass

        def steps():
            with memlimits.govern_numpy():
                for _ in range(10):
                    yield True
                    block = take()
                    yield block is not None
                    if block is not None:
                        touch(block)
                    yield True
                    del block
                    memlimits.clear_cache()

        children = [Child(steps) for _ in range({processes})]
        for _ in range(10):
            for child in children: assert child.wait()
            for child in children: child.go()
            given = [child.wait() for child in children]
            assert sum(given) <= 1, given
            for child in children: child.go()
            for child in children: assert child.wait()
            for child in children: child.go()
        for child in children: child.end()
        """,
    )


def test_many_processes_at_random_are_refused_and_not_killed(group):
    run_in(
        group,
        """
        import random

        def steps():
            random.seed(os.getpid())
            held, refused = [], 0
            while refused < 15:
                block = given(random.choice([9000, 100000, MIB, 20 * MIB, 60 * MIB]))
                if block is not None:
                    held.append(block)
                    if random.random() < 0.5:
                        touch(block)
                    continue
                refused += 1
                for block in held:
                    touch(block)
                del held[: random.randrange(len(held) + 1)]
                block = None
                memlimits.clear_cache()
            yield True

        children = [Child(steps) for _ in range(4)]
        for child in children: assert child.wait()
        for child in children: child.go()
        for child in children: child.end()
        """,
    )


def test_who_waits_is_served_when_another_process_is_done(group):
    run_in(
        group,
        """
        def steps():
            block = given(140 * MIB)
            yield block
            touch(block)
            block.release()
            memlimits.clear_cache()
            yield True

        child = Child(steps)
        assert child.wait()
        memlimits.set_memory_policy("wait", timeout=60)
        assert not memlimits.would_fit(140 * MIB)
        threading.Timer(0.1, child.go).start()
        touch(memlimits.allocate(140 * MIB))
        assert memlimits.stats().waits == 1
        child.wait(), child.go(), child.end()
        """,
    )


def test_a_process_in_a_group_within_counts():
    with nested("one", "two") as (top, one, two):
        set_limit(top, 256 * MIB)
        run_in(
            one,
            f"""
            def steps():
                with open({str(two / "cgroup.procs")!r}, "w") as file:
                    file.write(str(os.getpid()))
                block = given(140 * MIB)
                yield block
                touch(block)
                yield True

            child = Child(steps)
            assert child.wait()
            assert given(140 * MIB) is None
            touch(given(80 * MIB))
            child.go(), child.wait(), child.go(), child.end()
            """,
        )


def test_a_process_that_does_not_use_the_library_is_seen_by_what_it_takes(group):
    """It may map what it never touches, and NumPy alone would not know of it."""
    program = """
        import mmap, sys
        held = mmap.mmap(-1, 900 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        print("mapped", flush=True)
        sys.stdin.read()
    """
    words = [*inside(group), sys.executable, "-c", textwrap.dedent(program)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as other:
        assert other.stdout.readline() == b"mapped\n"
        run_in(
            group,
            """
            assert memlimits.would_fit(200 * MIB)
            touch(given(200 * MIB))
            """,
        )
        other.stdin.close()


def test_a_process_that_was_stopped_in_its_turn_stops_no_other(group):
    """Nobody may be able to keep a program waiting for good. And nothing stays open."""
    holder = os.open(group, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        run_in(
            group,
            """
            def steps():
                yield True
                yield True

            child = Child(steps)
            child.wait()
            before = os.listdir("/proc/self/fd")
            held = given(150 * MIB)
            touch(held)
            assert given(150 * MIB) is None
            assert os.listdir("/proc/self/fd") == before
            child.go(), child.wait(), child.go(), child.end()
            """,
        )
    finally:
        os.close(holder)


def test_memory_that_is_idle_at_a_fork_is_had_by_one_of_the_two(group):
    """Who took it from its own cache would copy it."""
    run_in(
        group,
        """
        def steps():
            yield given(10 * MIB)

        idle = given(150 * MIB)
        touch(idle)
        idle.release()
        child = Child(steps)
        assert child.wait()
        touch(given(150 * MIB))
        child.go(), child.end()
        """,
    )


@pytest.mark.parametrize("who", ["parent", "child"])
def test_what_one_process_may_still_take_two_may_not(group, who):
    """After a fork each looks at what there is before it takes more."""
    run_in(
        group,
        f"""
        def take_most():
            n = group_has() - 6 * MIB
            other = mmap.mmap(-1, n, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            other[::4096] = bytes(len(range(0, n, 4096)))
            return other

        def asks():
            yield True
            yield given(8 * MIB) is None

        def takes():
            yield take_most()

        touch(given(MIB))
        child = Child(asks if {who == "child"} else takes)
        assert child.wait()
        if {who == "child"}:
            other = take_most()
            child.go()
            assert child.wait()
        else:
            assert given(8 * MIB) is None
        child.go(), child.end()
        """,
    )


def test_a_fork_amid_growth_leaves_the_child_neither_the_turn_nor_a_file(group):
    run_in(
        group,
        """
        def steps():
            for _ in range(2):
                yield True

        other = Child(steps)
        other.wait()
        stop = threading.Event()
        def grow():
            while not stop.is_set():
                given(100 * MIB).release()
                memlimits.clear_cache()
        def open_files():
            found = set()
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):      # that of the list itself
                    found.add(os.readlink(f"/proc/self/fd/{fd}"))
            return found
        before = open_files()
        thread = threading.Thread(target=grow, daemon=True)
        thread.start()
        for i in range(200):
            time.sleep(i % 7 * 5e-5)
            pid = os.fork()
            if pid == 0:
                more = open_files() - before
                if more:
                    os.write(2, str(more).encode())
                os._exit(bool(more))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        thread.join()
        other.go(), other.wait(), other.go(), other.end()
        """,
    )
