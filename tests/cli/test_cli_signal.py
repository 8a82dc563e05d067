"""SIGUSR1 to a program under `memlimits run`: real processes that sleep, wait, fork and compute."""

import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from support.commands import RUN

pytestmark = pytest.mark.usefixtures("buffered_streams")

PRELUDE = """
import os, signal, sys, threading, time
import numpy
held = numpy.ones(5 << 20, numpy.uint8)
print("ready", flush=True)
"""


@pytest.fixture
def started(tmp_path):
    """Start a program, and wait until it is ready."""
    processes = []

    def start(source, *words, **options):
        path = tmp_path / "program.py"
        path.write_text(PRELUDE + textwrap.dedent(source))
        # What Python's objects take is no round number.
        process = subprocess.Popen(
            [sys.executable, *RUN, "--govern=numpy", *words, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def statistics(process):
    """Of which process the statistics are that come next, as they come, and what they say."""
    head = process.stderr.readline()
    pid = int(re.fullmatch(r"memlimits: statistics of process (\d+)\n", head)[1])
    values = {}
    while "process_peak_resident" not in values:  # the last one
        name, value = process.stderr.readline().removeprefix("memlimits:   ").split(None, 1)
        values[name] = value.strip()
    return pid, values


def told(process):
    pid, values = statistics(process)
    assert values["active"] == "5 MiB (5,242,880 bytes)"
    assert int(values["misses"]) >= 1
    return pid


# Programs that wait until a line comes, whatever the machine's speed.
WAITS = {
    "sleep": """
        signal.signal(signal.SIGUSR2, signal.default_int_handler)
        try:
            in_thread(lambda: os.kill(os.getpid(), signal.SIGUSR2))
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
        """,
    "stdin": "read()",
    "event": "event = threading.Event(); in_thread(event.set); event.wait()",
    "join": "in_thread(int).join()",
    "loop": "in_thread(int)\nwhile not lines: pass",
}
READ = """
lines = []

def read():
    lines.append(sys.stdin.readline())

def in_thread(then):
    thread = threading.Thread(target=lambda: (read(), then()))
    thread.start()
    return thread
"""


@pytest.mark.parametrize("waits", WAITS)
def test_a_program_that_waits_tells_at_once_and_goes_on(started, waits):
    process = started(f"{READ}{textwrap.dedent(WAITS[waits])}\nprint('over', lines, flush=True)\n")
    for _ in range(3):
        time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        assert told(process) == process.pid
    assert process.poll() is None
    out, err = process.communicate("line\n", timeout=20)
    assert out == "over ['line\\n']\n"
    assert err.startswith("memlimits: peak: governed 5 MiB of ")
    assert process.returncode == 0


def test_a_program_that_waits_for_memory_tells_that_it_does(started):
    process = started(
        """
        import memlimits

        def let_go():
            global held
            sys.stdin.readline()
            held = None

        threading.Thread(target=let_go).start()
        memlimits.allocate(4 << 20)
        """,
        *("--policy=wait", "--timeout=20", "--memory-limit=8MiB"),
    )
    for _ in range(200):
        process.send_signal(signal.SIGUSR1)
        if statistics(process)[1]["waiting"] == "1":
            break
        time.sleep(0.01)
    else:
        raise AssertionError
    err = process.communicate("\n", timeout=20)[1]
    assert process.returncode == 0
    assert "limit 8 MiB (wait)" in err
    assert "memlimits: allocations that waited: 1, " in err


def test_the_streams_buffers_stay_as_they_are(started):
    process = started("""
        sys.stdout.write("held back")
        os.write(1, b"written\\n")
        sys.stdin.readline()
    """)
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGUSR1)
    told(process)
    assert not select.select([process.stdout], [], [], 0)[0]
    assert process.communicate("\n", timeout=20)[0] == "held back"


def test_a_handler_of_the_programs_own_wins(started):
    process = started("""
        signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"mine\\n"))
        print("set", flush=True)
        sys.stdin.readline()
    """)
    assert process.stdout.readline() == "set\n"
    # One that comes right before the program sleeps, it sees when it wakes up.
    while not select.select([process.stdout], [], [], 0.5)[0]:
        process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "mine\n"
    assert process.communicate("\n", timeout=20)[1].startswith("memlimits: peak")


def test_where_it_was_ignored_it_stays_so(started):
    process = started(
        "sys.stdin.readline()", preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGUSR1)
    assert process.communicate("\n", timeout=20)[1].startswith("memlimits: peak")
    assert process.returncode == 0


def test_a_forked_child_tells_of_itself_and_another_program_does_not(started):
    process = started("""
        import select, subprocess
        child = os.fork()
        if child == 0:
            # Not before: while a fork is under way Python forgets signals.
            print(os.getpid(), flush=True)
            # One that comes just before a read would have to wait for its end.
            while not select.select([sys.stdin], [], [], 0.1)[0]:
                pass
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        other = subprocess.Popen([sys.executable, "-c",
            "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"])
        assert other.wait() == -signal.SIGUSR1
    """)
    child = int(process.stdout.readline())
    os.kill(child, signal.SIGUSR1)
    assert told(process) == child
    process.send_signal(signal.SIGUSR1)
    assert told(process) == process.pid
    assert process.communicate("\n", timeout=20)[1].startswith("memlimits: peak")
    assert process.returncode == 0


@pytest.mark.parametrize("close", ["os.close(2)", "os.close(r)"])
def test_standard_error_that_is_broken_does_no_harm(started, close):
    process = started(f"""
        r, w = os.pipe()
        os.dup2(w, 2)
        os.close(w)
        {close}
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGUSR1)
        print("on", flush=True)
        os._exit(0)
    """)
    assert process.stdout.read() == "on\n"
    assert process.wait(20) == 0


@pytest.mark.parametrize("death", ["SIG_IGN", "SIG_DFL"])
def test_what_a_broken_pipe_does_to_the_program_stays(started, death):
    process = started(f"""
        signal.signal(signal.SIGPIPE, signal.{death})
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGPIPE) is signal.{death}
    """)
    told(process)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_program_without_what_the_statistics_need_goes_on(started):
    process = started("""
        sys.stdin.readline()
        del sys.__stderr__
        os.kill(os.getpid(), signal.SIGUSR1)
        sys.__stderr__ = sys.stderr
        print("on", flush=True)
    """)
    out, err = process.communicate("\n", timeout=20)
    assert (out, process.returncode) == ("on\n", 0)
    assert err.startswith("memlimits: peak")
