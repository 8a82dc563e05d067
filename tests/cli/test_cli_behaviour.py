"""What programs do under `memlimits run` and under the interpreter alone."""

import re
import signal
import subprocess
import sys

import pytest

from support.commands import RUN, assert_same, execute, without_report, write

pytestmark = pytest.mark.usefixtures("buffered_streams")

BEHAVIOUR = {
    "input": "print(input()); print(open(0).read())",
    "output without a newline": "print('x', end=''); print('y' * 100_000)",
    "output to both": """
        import sys
        for n in range(3):
            print(n)
            print(n, file=sys.stderr)
        """,
    "pickle": """
        import pickle
        class C:
            pass
        def f():
            return "f"
        print(type(pickle.loads(pickle.dumps(C()))) is C, pickle.loads(pickle.dumps(f))())
        """,
    "source": """
        import inspect
        def f():
            return 1
        print(inspect.getsource(f), inspect.getmodule(f))
        """,
    "threads outlive the script": """
        import threading, time
        def work():
            threading.main_thread().join()
            print("thread", __name__, threading.current_thread().name)
        threading.Thread(target=work).start()
        print("end of script")
        """,
    "threads outlive an exception": """
        import threading
        def work():
            threading.main_thread().join()
            print("thread")
        threading.Thread(target=work).start()
        1 / 0
        """,
    "exit": """
        import atexit, sys
        atexit.register(print, "registered first")
        atexit.register(lambda: print("registered last", __name__, file=sys.stderr))
        class C:
            def __del__(self):
                print("deleted")
        kept = C()
        print("end of script")
        """,
    "hook seen after sys.exit": """
        import atexit, sys
        atexit.register(lambda: print(sys.excepthook is sys.__excepthook__))
        sys.exit(3)
        """,
    "executor": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        future = pool.submit(lambda: sum(range(10)))
        future.add_done_callback(lambda f: print(f.result()))
        """,
    "fork": """
        import os, sys, atexit
        atexit.register(lambda: print("exit of", "parent" if child else "child", flush=True))
        child = os.fork()
        if child == 0:
            sys.exit(3)
        print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """,
    "fork that fails": """
        import os
        child = os.fork()
        if child == 0:
            1 / 0
        os.waitpid(child, 0)
        """,
    "asyncio": """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            raise ValueError
        asyncio.run(main())
        """,
    "run again": """
        import runpy, sys
        if len(sys.argv) == 1:
            sys.argv.append("again")
            print(runpy.run_path(__file__, run_name="__main__")["__name__"])
        print(sys.argv[1:], __name__)
        """,
    "subprocess": """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import sys; print(sys.path[0], sys.argv)"])
        """,
}


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_behaviour(tmp_path, name):
    write(tmp_path / "program.py", BEHAVIOUR[name])
    plain = assert_same(tmp_path, "program.py")
    assert plain.stdout or plain.stderr


MULTIPROCESSING = """
    import multiprocessing, sys

    class Point:
        def __init__(self, x):
            self.x = x
        def __eq__(self, other):
            return type(self) is type(other) and self.x == other.x

    def double(point):
        return Point(2 * point.x)

    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print(pool.map(double, [Point(1), Point(2)]) == [Point(2), Point(4)])
            print(pool.apply(double, [Point(5)]).x)
    """


@pytest.mark.parametrize(
    "words",
    [
        ["program.py", "spawn"],
        ["program.py", "fork"],
        ["program.py", "forkserver"],
        ["-m", "program", "spawn"],
        ["-m", "program", "fork"],
        ["-m", "program", "forkserver"],
        ["app", "fork"],  # Of a directory, multiprocessing finds __main__ again only in a fork.
    ],
    ids=" ".join,
)
def test_multiprocessing_of_what_the_program_defines(tmp_path, words):
    write(tmp_path / "program.py", MULTIPROCESSING)
    write(tmp_path / "app" / "__main__.py", MULTIPROCESSING)
    assert assert_same(tmp_path, *words).stdout == b"True\n10\n"


def test_interrupt_from_outside(tmp_path):
    source = """
        import time
        try:
            print("ready", flush=True) or time.sleep(60)
        finally:
            print("cleaned up")
        """
    write(tmp_path / "program.py", source)
    outcomes = []
    for words in ((), RUN):
        process = subprocess.Popen(
            [sys.executable, *words, "program.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        stderr = without_report(stderr) if words else stderr
        # It may have come a moment before the sleep.
        outcomes.append((process.returncode, stdout, re.sub(rb" +[~^]+\n", b"", stderr)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][:2] == (-signal.SIGINT, b"cleaned up\n")


@pytest.mark.host
def test_a_program_without_a_free_descriptor(tmp_path):
    """What the library needs was loaded before: nothing of it fails, nor does the report."""
    source = """
        import os, resource, memlimits
        print("numpy" in __import__("sys").modules)
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        try:
            while True:
                os.open("/dev/null", os.O_RDONLY)
        except OSError:
            pass
        for name in memlimits.__all__:
            if name not in ("empty", "govern_numpy", "zeros"):  # which import NumPy
                getattr(memlimits, name)
        print(memlimits.stats().active, memlimits.trim(), memlimits.get_pressure_trim() is None)
        print(memlimits.effective_limit().nbytes > 0, memlimits.would_fit(1).blocked_by)
        with memlimits.limits(memory=1 << 20), memlimits.budget("b"), memlimits.reserve(100):
            memlimits.allocate(100)
        try:
            memlimits.allocate(1 << 50)
        except MemoryError as error:
            print(type(error).__name__)
        os.kill(os.getpid(), 10)
        """
    write(tmp_path / "program.py", source)
    done = execute(*RUN, "--govern=numpy", "program.py", cwd=tmp_path)
    assert done.stdout == b"False\n0 0 False\nTrue None\nMemoryLimitError\n", done.stderr
    assert done.returncode == 0
    assert b"memlimits: statistics of process " in done.stderr
    assert b"memlimits: last refusal: asked for 1 PiB " in done.stderr
