"""`memlimits run` whose standard streams are closed, full or replaced."""

import json
import os
import signal
import subprocess
import sys

import pytest

from support.commands import runner

pytestmark = pytest.mark.usefixtures("buffered_streams")

COMMAND = [sys.executable, "-m", "memlimits", "run"]


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


BROKEN = {
    "closed": "exec 2>&-;",
    "full": "exec 2>/dev/full;",
    "read-only": "exec 2</dev/null;",
}


@pytest.mark.parametrize("how", [*BROKEN, "pipe"])
@pytest.mark.parametrize("source", ["", "import sys; sys.exit(3)", "PIPE"])
def test_broken_standard_error_changes_nothing(tmp_path, how, source):
    if source == "PIPE":
        source = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    (tmp_path / "program.py").write_text(f"{source}\n")
    reader, writer = os.pipe()
    os.close(reader)
    outcomes = []
    for words in ([], ["-m", "memlimits", "run", "--report", "report.json"]):
        command = ["sh", "-c", f'{BROKEN.get(how, "")} exec "$@"', "sh", sys.executable]
        done = subprocess.run(
            [*command, *words, "program.py"], cwd=tmp_path, stderr=writer, timeout=60
        )
        outcomes.append(done.returncode)
    os.close(writer)
    assert outcomes[0] == outcomes[1]
    assert json.loads((tmp_path / "report.json").read_text())["program"] == ["program.py"]


@pytest.mark.parametrize("death", ["SIG_IGN", "SIG_DFL"])
def test_broken_standard_output_ends_as_without_us(tmp_path, death):
    (tmp_path / "program.py").write_text(
        f"import signal; signal.signal(signal.SIGPIPE, signal.{death}); print('lost')\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    outcomes = [
        subprocess.run(
            [sys.executable, *words, "program.py"],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        ).returncode
        for words in ([], ["-m", "memlimits", "run"])
    ]
    os.close(writer)
    assert outcomes[0] == outcomes[1] in (120, -signal.SIGPIPE)


def test_nothing_is_written_into_a_file_that_took_the_place_of_standard_error(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os; fd = os.open('data', os.O_CREAT | os.O_WRONLY); print(fd)\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout == b"2\n"
    assert (tmp_path / "data").read_bytes() == b""


# Everything that is said while a program runs and after it: a refusal, the statistics, the report.
SAYING = """
import ctypes, os, signal
from memlimits import _malloc

get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
table = (ctypes.c_void_p * 4).from_address(get(_malloc.functions, b"memlimits.functions"))
malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(table[0])

def say():
    assert malloc(64 << 20) is None
    os.kill(os.getpid(), signal.SIGUSR1)

def opened(flags=0):
    return os.open("file", os.O_RDWR | os.O_CREAT | flags)

def has_its_number(descriptor):
    assert descriptor == 2
    return descriptor

say()
os.close(2)
"""
SAID = [b"refused 64 MiB (67,108,864 bytes) to C code", b"statistics of process", b"peak: "]


def said(text):
    return [words in text for words in SAID]


def saying(run, tmp_path, source):
    """What was written to standard error, and into the file that the program has there then."""
    done = run(SAYING + source, "--memory-limit=32MiB", "--policy=strict")
    assert said(done.stderr)[:2] == [True, True]
    return said(done.stdout), said((tmp_path / "file").read_bytes())


@pytest.mark.host
@pytest.mark.parametrize("took", ["file", "socket"])
def test_nothing_is_written_into_what_only_has_the_number_of_standard_error(run, tmp_path, took):
    source = {
        "file": "file = has_its_number(opened())\nos.write(2, b'data')\nsay()",
        "socket": """
import socket
opened(os.O_TRUNC)
os.close(2)
one, other = socket.socketpair()
has_its_number(one.fileno())
other.setblocking(False)
say()
one.send(b"data")
assert other.recv(100) == b"data"
""",
    }[took]
    assert saying(run, tmp_path, source) == ([False] * 3, [False] * 3)
    if took == "file":
        assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.host
@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("log = has_its_number(opened(os.O_APPEND))\nsay()", 1),
        ("opened()\nos.dup2(1, 2)\nsay()", 0),
        ("kept = opened()\nos.dup2(kept, 1)\nos.dup2(kept, 2)\nsay()", 1),
    ],
    ids=["a log", "standard output", "a file with standard output"],
)
def test_lines_go_where_the_program_has_its_own(run, tmp_path, source, where):
    assert saying(run, tmp_path, source)[where] == [True] * 3


def test_a_program_may_replace_or_close_its_streams(run):
    done = run("import sys, io; sys.stderr = io.StringIO(); sys.stdout = None")
    assert done.stderr.startswith(b"memlimits: peak: ")
    done = run("import sys; sys.stderr.close(); sys.stdout.close()")
    assert done.stderr.startswith(b"memlimits: peak: ")
