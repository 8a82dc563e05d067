"""The closing report of `memlimits run`, in text and in JSON."""

import array
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import textwrap
import time

import pytest

import memlimits
from memlimits.cli.report import describe
from support.children import needs_installed
from support.commands import runner
from support.units import MIB

pytestmark = pytest.mark.usefixtures("buffered_streams")


KEYS = {"program", "budgets", "last_refusal", "ungoverned", "ungoverned_children", "processes"}
KEYS |= {"untouched", "passed_by"}
KEYS |= {"ungoverned_objects", "governed", "ungoverned_peak", *memlimits.stats()._asdict()}

NOTHING = "peak: governed 0 B of 0 B resident, limit 200 MiB"

ARRAYS = """
import numpy
for _ in range(10):
    numpy.ones(20 * 2**20, dtype=numpy.uint8)
"""


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


def values(**changes):
    return {
        **dict.fromkeys(KEYS, 0),
        "memory_limit": 200 * MIB,
        "policy": "strict",
        "memory_count": "given",
        "budgets": [],
        "last_refusal": None,
        "ungoverned": None,
        "ungoverned_children": None,
        "processes": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            f"{NOTHING} (strict)\ncache hits 0.0% of 0 allocations, refusals 0",
        ),
        (
            {
                "peak": 3 * MIB // 2,
                "process_peak_resident": 40 * MIB,
                "hits": 2000,
                "misses": 1000,
            },
            "peak: governed 1.5 MiB of 40 MiB resident, limit 200 MiB (strict)\n"
            "cache hits 66.7% of 3,000 allocations, refusals 0",
        ),
        (
            {"ungoverned": "NumPy is not governed"},
            f"{NOTHING} (strict)\ncache hits 0.0% of 0 allocations, refusals 0\n"
            "NumPy is not governed",
        ),
        (
            {"policy": "guideline", "overruns": 1234, "wire_failures": 1},
            f"{NOTHING} (guideline)\ncache hits 0.0% of 0 allocations, refusals 0\n"
            "allocations over the limit: 1,234\n"
            "failures to wire memory: 1",
        ),
        (
            {"process_swap": 3 * MIB},
            f"{NOTHING} (strict)\ncache hits 0.0% of 0 allocations, refusals 0\n"
            "swapped out at the end: 3 MiB",
        ),
        (
            {"wired_requested": 3 * MIB, "unwired_requested": MIB},
            f"{NOTHING} (strict)\ncache hits 0.0% of 0 allocations, refusals 0\n"
            "asked to be wired and not wired: 1 MiB of 3 MiB",
        ),
        (
            {
                "policy": "wait",
                "waits": 1200,
                "waited_seconds": 1.5,
                "budgets": [
                    {"name": "a", "limit": None, "active": 0, "peak": MIB},
                    {"name": "a/b", "limit": 2 * MIB, "active": 512, "peak": MIB},
                ],
            },
            f"{NOTHING} (wait)\ncache hits 0.0% of 0 allocations, refusals 0\n"
            "allocations that waited: 1,200, 1.5 s in all\n"
            "budget a: peak 1 MiB, active 0 B, limit none\n"
            "budget a/b: peak 1 MiB, active 512 B, limit 2 MiB",
        ),
        (
            {
                "refusals": 2,
                "last_refusal": {
                    "requested": 1024 * MIB,
                    "limit": 200 * MIB,
                    "footprint": 8 * MIB,
                    "active": 4 * MIB,
                    "cache": 3 * MIB,
                    "slack": 512,
                    "blocked_by": "limit",
                    "counted": "process",
                    "process": 196 * MIB,
                    "untouched": MIB,
                    "kept_back": 2 * MIB,
                    "mlx": 5 * MIB,
                    "holders": [
                        {"file": "/a/b.py", "line": 3, "function": "read", "nbytes": MIB}
                        | {"blocks": 1200, "stack": [["/a/b.py", 3, "read"]]},
                        {"file": "", "line": 0, "function": "code without Python", "nbytes": 512}
                        | {"blocks": 1, "stack": []},
                    ],
                },
            },
            f"{NOTHING} (strict)\ncache hits 0.0% of 0 allocations, refusals 2\n"
            "last refusal: asked for 1 GiB (1,073,741,824 bytes), blocked by: limit\n"
            "  limit 200 MiB (209,715,200 bytes)\n"
            "  in use 7 MiB (7,340,544 bytes): active 4 MiB, cache 3 MiB, slack 512 B\n"
            "  the process held 196 MiB (205,520,896 bytes)\n"
            "  given and not touched yet 1 MiB (1,048,576 bytes)\n"
            "  kept back for errors 2 MiB (2,097,152 bytes)\n"
            "  for MLX 5 MiB (5,242,880 bytes)\n"
            "  held by read (/a/b.py:3): 1 MiB, blocks: 1,200\n"
            "  held by code without Python: 512 B, blocks: 1",
        ),
    ],
)
def test_text(changes, text):
    assert describe(values(**changes)) == text


def test_json_of_a_program_that_succeeds(run, tmp_path):
    run(ARRAYS, "--memory-limit=100MiB", "--report=report.json", args=["-x", "1"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == KEYS
    assert report["program"] == ["program.py", "-x", "1"]
    assert report["memory_limit"] == report["cache_limit"] == 100 * MIB
    assert (report["wired_limit"], report["policy"]) == (0, "strict")
    assert 20 * MIB <= report["peak"] < 40 * MIB
    assert report["hits"] >= 9
    assert report["misses"] >= 1
    assert report["refusals"] == report["overruns"] == 0
    assert report["last_refusal"] is None
    assert sorted(os.listdir(tmp_path)) == ["program.py", "report.json"]


def test_what_was_not_wired_of_a_program_that_asked_for_it(run):
    source = "import memlimits; held = memlimits.allocate(1 << 20, wired=True)"
    line = b"memlimits: asked to be wired and not wired: 1 MiB of 1 MiB\n"
    assert line in run(source).stderr


def test_budgets_of_a_program(run, tmp_path):
    """Those that are open at the end, and those that were left."""
    source = """
import memlimits, numpy
with memlimits.budget("left", limit=20 * 2**20):
    numpy.empty(2 * 2**20)
budget = memlimits.budget("open")
budget.__enter__()
held = numpy.empty(2**20)
"""
    done = run(source, "--report=report.json")
    budgets = json.loads((tmp_path / "report.json").read_text())["budgets"]
    found = {budget.pop("name"): budget for budget in budgets}
    assert found == {
        "left": {"limit": 20 * MIB, "active": 0, "peak": 16 * MIB},
        "open": {"limit": None, "active": 8 * MIB, "peak": 8 * MIB},
    }
    assert b"memlimits: budget left: peak 16 MiB, active 0 B, limit 20 MiB\n" in done.stderr
    assert b"memlimits: budget open: peak 8 MiB, active 8 MiB, limit none\n" in done.stderr


def test_json_of_a_program_that_fails(run, tmp_path):
    run(
        "import numpy; held = numpy.ones(10 * 2**20, numpy.uint8); numpy.ones(2**28)",
        "--memory-limit=100MiB",
        "--report=report.json",
        code=1,
    )
    report = json.loads((tmp_path / "report.json").read_text())
    refusal = report["last_refusal"]
    assert report["refusals"] == 1
    assert refusal["requested"] == 2**31
    assert (refusal["limit"], refusal["blocked_by"]) == (100 * MIB, "limit")
    assert 10 * MIB <= refusal["active"] < 20 * MIB
    assert refusal["footprint"] == refusal["active"] + refusal["cache"] + refusal["slack"]


def test_json_appears_at_the_end_where_it_was_named(run, tmp_path):
    """A change of directory does not move it, and the old file is empty until the end."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "report.json").symlink_to("old.json")
    done = run(
        "import os; print(open('report.json').read(), os.listdir()); os.chdir('/')",
        "--report=report.json",
    )
    assert done.stdout.startswith(b" [")
    assert b".memlimits" not in done.stdout
    assert json.loads((tmp_path / "old.json").read_text())["program"] == ["program.py"]
    assert (tmp_path / "report.json").is_symlink()
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "old.json").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", [".", "missing/report.json", "program.py/report.json"])
def test_unwritable_file_is_an_error_before_the_program(run, tmp_path, name):
    done = run("print('never')", f"--report={name}", code=2)
    assert done.stdout == b""
    message = f"memlimits: cannot write the report to {name!r}: ".encode()
    assert re.fullmatch(
        re.escape(message) + rb"[\w ]+; name another file by --report\n", done.stderr
    )
    assert os.listdir(tmp_path) == ["program.py"]


@pytest.mark.parametrize("name", ["kept.json", "closed/report.json"])
def test_protected_file_is_an_error_before_the_program(run, tmp_path, name):
    (tmp_path / "kept.json").touch(0o444)
    (tmp_path / "closed").mkdir(0o555)
    if os.access(tmp_path / "kept.json", os.W_OK):
        pytest.skip("this user may write anywhere")
    assert b"Permission denied" in run("print('never')", f"--report={name}", code=2).stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import shutil; shutil.rmtree('there')", "No such file or directory"),
        ("import os; os.mkdir('there/report.json')", "Is a directory"),
        ("import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (0, 0))", "File too large"),
    ],
)
def test_file_that_cannot_be_written_in_the_end(run, tmp_path, source, reason):
    (tmp_path / "there").mkdir()
    done = run(f"{source}\nraise SystemExit(3)", "--report=there/report.json", code=3)
    assert done.stderr.startswith(b"memlimits: peak: ")
    path = tmp_path / "there" / "report.json"
    message = f"memlimits: cannot write the report to {path}: {reason}\n"
    assert done.stderr.endswith(message.encode())
    assert [n for _, _, names in os.walk(tmp_path) for n in names] == ["program.py"]


def test_a_name_that_is_no_text(run, tmp_path):
    """It can be told all the same, escaped."""
    (tmp_path / "\udcff").mkdir()
    done = run("import os; os.rmdir(b'\\xff')", "--report=\udcff/report.json")
    assert b"cannot write the report to " in done.stderr
    assert b"\\udcff/report.json: No such file or directory\n" in done.stderr


# These two name no device: under root, a wrong implementation could replace it.
def test_json_to_standard_output(run, tmp_path):
    """It follows the program's output, and does not replace the file that this goes to."""
    source = "print('output', end=' ')"
    piped = run(source, "--report=/dev/fd/1").stdout
    with open(tmp_path / "log", "wb") as log:
        run(source, "--report=/dev/fd/1", stdout=log)
    for output in (piped, (tmp_path / "log").read_bytes()):
        program, _, report = output.partition(b" ")
        assert program == b"output"
        assert set(json.loads(report)) == KEYS


def test_json_to_a_pipe_with_a_name(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        run("", "--report=pipe")
        assert set(json.loads(os.read(reader, 65536))) == KEYS
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_that_nobody_reads_holds_nothing_up(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = run("print('ran')", "--report=pipe")
    assert done.stdout == b"ran\n"
    path = tmp_path / "pipe"
    assert done.stderr.endswith(
        f"memlimits: cannot write the report to {path}: nothing reads from it\n".encode()
    )


def test_a_pipe_whose_reader_stopped_reading_holds_nothing_up(run, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        done = run("", "--report=pipe")
    finally:
        os.close(reader)
        os.close(writer)
    assert done.stderr.endswith(b"pipe: what reads from it does not go on\n")


def test_a_pipe_that_takes_the_place_of_the_file(run, tmp_path):
    (tmp_path / "report.json").touch()
    done = run(
        "import os; os.unlink('report.json'); os.mkfifo('report.json')", "--report=report.json"
    )
    assert done.stderr.endswith(b"report.json: nothing reads from it\n")


def test_a_file_that_is_there_stays_the_file_it_is(run, tmp_path):
    """Its mode, its owner and its names."""
    path = tmp_path / "report.json"
    path.write_text("old" * 10_000)
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 12345, 23456)
    os.link(path, tmp_path / "other name")
    (tmp_path / "link").symlink_to("report.json")
    before = path.stat()
    run("import os; os.umask(0o777)", "--report=link")
    after = path.stat()
    for name in ("st_ino", "st_dev", "st_mode", "st_uid", "st_gid", "st_nlink"):
        assert getattr(after, name) == getattr(before, name)
    assert set(json.loads((tmp_path / "other name").read_text())) == KEYS
    assert (tmp_path / "link").is_symlink()


def test_a_new_file_has_the_mode_of_the_mask_at_the_start(run, tmp_path):
    (tmp_path / "link").symlink_to("made.json")
    run("import os; os.umask(0o777)", "--report=link", preexec_fn=lambda: os.umask(0o026))
    assert (tmp_path / "made.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link").is_symlink()


def test_devices(run, tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "full").symlink_to("/dev/full")
    lines = run("", "--report=null").stderr.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 100
    done = run("", "--report=full", code=0)
    assert done.stderr.endswith(b"full: No space left on device\n")


ANEW = (
    b"worker processes were started anew (spawn, forkserver, loky), not governed: memlimits is not "
    b"installed where Python looks for it when it starts\n"
)
RAN = b"child processes ran: any Python among them without memlimits was not governed\n"
# As a memlimits that is imported from a folder has it.
NOT_INSTALLED = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
POOL = """
import multiprocessing
def work(n):
    return sum(range(n))
if __name__ == "__main__":
    with multiprocessing.get_context({how!r}).Pool(1) as pool:
        assert pool.map(work, [10]) == [45]
"""
CHILD = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
"""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        pytest.param(POOL.format(how="spawn"), None, marks=needs_installed),
        (NOT_INSTALLED + POOL.format(how="spawn"), ANEW),
        (NOT_INSTALLED + POOL.format(how="forkserver"), ANEW),
        (POOL.format(how="fork"), None),
        (CHILD, RAN),
        ("import subprocess; subprocess.__name__", None),
        ("import os\nif os.fork() == 0:\n    sum(range(10**6))\nelse:\n    os.wait()", None),
    ],
    ids=["governed", "spawn", "forkserver", "fork", "child", "none", "bare fork"],
)
def test_children_that_were_not_governed_are_told_of(run, tmp_path, source, line):
    done = run(source, "--report=report.json")
    said = [told for told in (ANEW, RAN) if b"memlimits: " + told in done.stderr]
    assert said == ([line] if line else [])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ungoverned_children"] == (line and line.decode().strip())


def test_quiet(run, tmp_path):
    done = run("import numpy; numpy.ones(5)", "--quiet", "--report=report.json")
    assert (done.stdout, done.stderr) == (b"", b"")
    assert set(json.loads((tmp_path / "report.json").read_text())) == KEYS
    source = "import shutil; shutil.rmtree('there')"
    (tmp_path / "there").mkdir()
    done = run(source, "--quiet", "--report=there/report.json")
    assert done.stderr.startswith(b"memlimits: cannot write the report to ")


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "1 / 0"])
def test_forked_children_give_no_report(run, tmp_path, end):
    source = f"""
import os, sys
child = os.fork()
if child == 0:
    {end}
else:
    os.waitpid(child, 0)
    print("old" if os.path.exists("report.json") else "none")
"""
    done = run(source, "--report=report.json")
    assert done.stdout == b"none\n"
    assert done.stderr.count(b"memlimits: peak: ") == 1
    assert (tmp_path / "report.json").exists()


def test_report_is_last(run):
    source = """
import atexit, sys, threading
def say(what):
    threading.main_thread().join()
    print(what)
atexit.register(print, "callback")
threading.Thread(target=say, args=["thread"]).start()
print("script")
"""
    done = run(source, stderr=subprocess.STDOUT)
    assert re.fullmatch(
        rb"script\nthread\ncallback\nmemlimits: peak: .*\nmemlimits: cache hits .*\n", done.stdout
    )


def test_an_older_report_does_not_pass_for_that_of_a_program_that_was_killed(run, tmp_path):
    file = tmp_path / "report.json"
    file.write_text("{}")
    command = [sys.executable, "-m", "memlimits", "run", f"--report={file}"]
    done = subprocess.run([*command, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert (done.returncode, file.read_text()) == (-9, "")
    file.write_text("{}")
    assert subprocess.run([*command, tmp_path / "nonesuch.py"]).returncode == 2
    assert file.read_text() == "{}"


def test_an_interrupt_while_the_report_is_written_shows_nothing_of_it():
    """The report is longer than what its reader's pipe holds, and so waits in the midst."""
    source = """
        import memlimits
        held = [memlimits.budget(f"{n:0120}") for n in range(40)]
        for budget in held:
            budget.__enter__()
        """
    command = [sys.executable, "-m", "memlimits", "run", "-c", textwrap.dedent(source)]
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    program = subprocess.Popen(command, stderr=writing, preexec_fn=restore_interrupts)
    os.close(writing)
    held = array.array("i", [0])
    while held[0] < size - PAGE:  # A page may stay filled in part.
        assert program.poll() is None
        fcntl.ioctl(reading, termios.FIONREAD, held)
        time.sleep(0.001)
    program.send_signal(signal.SIGINT)
    # There is no room for anything else that it might write, so it would not end.
    try:
        status = program.wait(20)
    finally:
        program.kill()
    with open(reading, "rb") as file:
        said = file.read()
    assert status == 0
    assert said.startswith(b"memlimits: peak: ")
    assert b"Traceback" not in said
    assert b"report.py" not in said


PAGE = os.sysconf("SC_PAGE_SIZE")


def restore_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)
