"""What a program under `memlimits run` says of what it was refused, wherever its error is shown."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import memlimits
from support.commands import RUN, execute, write

pytest.importorskip("numpy")

NOTE = (
    b"memlimits: refused 50 MiB (52,428,800 bytes) to NumPy: memory limit 64 MiB (strict), in use "
)
PRELUDE = """
import numpy

def more(n=50 << 20):
    return numpy.empty(n, numpy.uint8)

held = numpy.ones(40 << 20, numpy.uint8)
"""
# What an interpreter and pytest take themselves differs.
LIBRARY = Path(memlimits.__file__).parent / "lib" / "libinterpose.so"
LIMITED = (*RUN, "--govern=numpy", "--memory-limit=64MiB")


def said(tmp_path, source, *words, code=1):
    """What a program writes to stderr, without the report, and to stdout."""
    write(tmp_path / "program.py", PRELUDE + textwrap.dedent(source))
    done = execute(*LIMITED, *(words or ["program.py"]), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    return done.stderr.partition(b"memlimits: peak")[0], done.stdout


@pytest.mark.parametrize(
    "words",
    [["program.py"], ["-m", "program"], ["-c", "import program"], ["-X", "dev", "program.py"]],
    ids=" ".join,
)
def test_a_traceback_ends_with_it(tmp_path, words):
    stderr, _ = said(tmp_path, "more()", *words)
    error, note = stderr.splitlines()[-2:]
    assert error.startswith(b"numpy._core._exceptions._ArrayMemoryError: Unable to allocate 50")
    assert note.startswith(NOTE)
    assert stderr.count(b"memlimits: refused") == 1


def test_an_error_that_the_program_made_itself_has_none(tmp_path):
    stderr, _ = said(tmp_path, "raise MemoryError('of its own')")
    assert stderr.splitlines()[-1] == b"MemoryError: of its own"


OF_PYTHONS = {
    "bytes": ("bytes(100 << 20)", b"100 MiB (104,857,633 bytes)"),
    "list": ("[0] * (8 << 20)", b"64 MiB (67,108,864 bytes)"),
    "items that were appended": ("list(map(str, range(1 << 22)))", b""),
    "entries of a dict": ("{i: str(i) for i in range(1 << 22)}", b""),
    "file": ("open('/dev/zero', 'rb').read(100 << 20)", b"100 MiB (104,857,633 bytes)"),
}


@pytest.mark.host
@pytest.mark.skipif(
    "t" in sys.abiflags, reason="mimalloc allocates Python's objects, and is not governed"
)
@pytest.mark.parametrize(("source", "size"), OF_PYTHONS.values(), ids=OF_PYTHONS)
def test_errors_of_pythons_own_objects_have_it(tmp_path, source, size):
    """Also where all that the program holds lives as long as its error."""
    write(tmp_path / "objects.py", f"held = {source}\n")
    done = execute(*RUN, "--govern=python", "--memory-limit=64MiB", "objects.py", cwd=tmp_path)
    program, _, report = done.stderr.partition(b"memlimits: peak")
    error, note = program.splitlines()[-2:]
    assert error == b"MemoryError"
    assert note.startswith(b"memlimits: refused " + size)
    assert b" to Python: memory limit 64 MiB (strict), in use " in note
    assert report


IN_POOLS = """
import concurrent.futures, multiprocessing, traceback

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    {}
"""
FUTURES = """
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(more).result()
"""
POOL = """
    with context.Pool(1) as pool:
        pool.apply(more)
"""


@pytest.mark.host
@pytest.mark.parametrize("pool", [FUTURES, POOL], ids=["concurrent.futures", "multiprocessing"])
def test_an_error_from_a_pool_of_processes_has_it(tmp_path, pool):
    """In what the worker showed of it, and on the error that the parent raises."""
    stderr, _ = said(tmp_path, IN_POOLS.format(pool))
    worker, _, parent = stderr.partition(b"The above exception was the direct cause")
    # The limit is that of both processes together.
    note = b"memlimits: refused 50 MiB (52,428,800 bytes) to NumPy: the limit for all processes"
    assert worker.count(note) == 1
    assert parent.splitlines()[-1].startswith(note)


TESTS = """
def test_more():
    more()

def test_nothing():
    raise MemoryError
"""


def test_pytest_shows_it(tmp_path):
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "program.py"]
    _, stdout = said(tmp_path, TESTS, *words)
    of_more, of_nothing = stdout.split(b"_ test_nothing _")
    assert b"E       memlimits: refused 50 MiB (52,428,800 bytes) to NumPy" in of_more
    assert b"memlimits: refused" not in of_nothing


UNITTEST = """
import unittest

class Test(unittest.TestCase):
    def test_more(self):
        more()
"""


def test_unittest_shows_it(tmp_path):
    stderr, _ = said(tmp_path, UNITTEST, "-m", "unittest", "program")
    assert stderr.count(NOTE) == 1


@pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="not installed: IPython")
def test_ipython_shows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    _, stdout = said(
        tmp_path, "more()", "-m", "IPython", "--no-banner", "--colors=nocolor", "program.py"
    )
    assert stdout.count(NOTE) == 1


# ---- code that may not look at NULL ----

IN_C = """
import ctypes, os, sys, time
from memlimits import _malloc

get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
table = (ctypes.c_void_p * 4).from_address(get(_malloc.functions, b"memlimits.functions"))
# ctypes gives up the GIL around the first.
malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, use_errno=True)(table[0])
with_gil = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(table[0])
"""
SENTENCE = (
    b"memlimits: refused 64 MiB (67,108,864 bytes) to C code: memory limit 32 MiB (strict), "
    b"in use 0 B\n"
)


def said_in_c(tmp_path, source, *options, code=0, **keywords):
    write(tmp_path / "program.py", IN_C + textwrap.dedent(source))
    words = [sys.executable, *RUN, "--govern=numpy", "--memory-limit=32MiB", *options, "program.py"]
    done = subprocess.run(
        words,
        **{"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords},
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


CRASH = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ctypes.memset(malloc(64 << 20), 1, 64 << 20)
"""


def test_a_crash_of_code_that_does_not_look_at_null_ends_with_it(tmp_path):
    assert said_in_c(tmp_path, CRASH, code=-11).stderr == SENTENCE


CRASH_OF_MALLOC = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
ctypes.memset(libc.malloc(64 << 20), 1, 64 << 20)
"""


@pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only")
def test_a_crash_of_code_that_knows_nothing_of_memlimits_ends_with_it(tmp_path):
    stderr = said_in_c(tmp_path, CRASH_OF_MALLOC, "--govern=all", code=-11).stderr
    assert stderr.endswith(b"\n")
    assert stderr.splitlines()[-1].startswith(
        b"memlimits: refused 64 MiB (67,108,864 bytes) to malloc: memory limit 32 MiB (strict), "
    )


def test_it_is_not_said_where_nothing_is_to_be_said(tmp_path):
    assert said_in_c(tmp_path, CRASH, "--quiet", code=-11).stderr == b""


def test_it_is_not_said_to_who_has_an_exception_to_raise(tmp_path):
    stderr = said_in_c(tmp_path, "assert with_gil(64 << 20) is None").stderr
    assert b"memlimits: refused" not in stderr


def test_few_of_many_are_said_and_the_first_at_once(tmp_path):
    source = """
        begun = time.monotonic()
        for i in range(10_000):
            assert malloc((64 << 20) + i) is None
        print(time.monotonic() - begun)
        """
    done = said_in_c(tmp_path, source)
    lines = [line for line in done.stderr.splitlines(True) if b"refused" in line]
    assert lines[0] == SENTENCE
    assert 5 <= len(lines) <= 6 + float(done.stdout)


def test_a_broken_pipe_ends_nobody(tmp_path):
    source = """
        import signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(read)
        assert malloc(64 << 20) is None
        assert ctypes.get_errno() == 12
        assert signal.SIGPIPE not in signal.sigpending()
        print("here")
        """
    assert said_in_c(tmp_path, source).stdout == b"here\n"


def test_another_file_in_the_place_of_stderr_stays_as_it_is(tmp_path):
    source = """
        os.dup2(os.open("data", os.O_WRONLY | os.O_CREAT), 2)
        assert malloc(64 << 20) is None
        """
    write(tmp_path / "program.py", IN_C + textwrap.dedent(source))
    words = [sys.executable, *RUN, "--memory-limit=32MiB", "program.py"]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


@pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only")
def test_a_refusal_waits_for_nobody_who_reads(tmp_path):
    source = """
        import ctypes, fcntl, os
        read, wrote = os.pipe()
        size = fcntl.fcntl(wrote, fcntl.F_GETPIPE_SZ)
        os.write(wrote, bytes(size))
        os.dup2(wrote, 2)
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        assert libc.malloc(1 << 30) is None
        assert len(os.read(read, size)) == size
        assert libc.malloc(1 << 30) is None     # there is room: it is said
        assert b"memlimits: refused 1 GiB" in os.read(read, size)
        print("went on", flush=True)
        os._exit(0)
    """
    write(tmp_path / "program.py", textwrap.dedent(source))
    words = ("--govern=all", "--memory-limit=128MiB", "program.py")
    done = execute(*RUN, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"went on\n"), done.stderr
