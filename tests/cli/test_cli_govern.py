"""What ``--govern`` has count."""

import json
import os
import re
import subprocess
import sys
import sysconfig

import pytest

import memlimits
from support.commands import RUN, execute, write

pytestmark = pytest.mark.usefixtures("buffered_streams")

MIB = 1 << 20
# Each holds 100 MiB of one kind.
OBJECTS = "held = bytearray(b'x') * (100 << 20)"
MALLOC = """
import ctypes
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
held = malloc(100 << 20)
if held:
    ctypes.memset(held, 1, 100 << 20)
"""
# Where Python has no GIL mimalloc serves them, and nothing governs that.
OBJECTS_COUNT = not sysconfig.get_config_var("Py_GIL_DISABLED")
ARRAYS = "import numpy; held = numpy.ones(100 << 20, numpy.uint8)"


def run(tmp_path, source, *options, code=0, **environment):
    write(tmp_path / "program.py", source)
    words = [sys.executable, *RUN, *options, "program.py"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == code, done.stderr
    return done


def peak(tmp_path, source, *options, **environment):
    run(tmp_path, source, "--report=report.json", *options, **environment)
    return json.loads((tmp_path / "report.json").read_text())["peak"]


@pytest.mark.host
@pytest.mark.parametrize(
    ("level", "counted"),
    [("numpy", [ARRAYS]), ("python", [ARRAYS, OBJECTS]), ("all", [ARRAYS, OBJECTS, MALLOC])],
)
def test_a_level_counts_its_own_and_no_other(tmp_path, level, counted):
    for source in (ARRAYS, OBJECTS, MALLOC):
        if source == ARRAYS:
            pytest.importorskip("numpy")
        held = peak(tmp_path, source, f"--govern={level}")
        expected = source in counted and (OBJECTS_COUNT or source != OBJECTS)
        assert (held >= 100 * MIB) == expected, (source, held)
        # Nothing is counted by two of them.
        assert held < 150 * MIB


@pytest.mark.host
def test_python_is_the_level_unless_another_is_asked_for(tmp_path):
    assert (peak(tmp_path, OBJECTS) >= 100 * MIB) == OBJECTS_COUNT
    assert peak(tmp_path, MALLOC) < 100 * MIB
    assert peak(tmp_path, MALLOC, MEMLIMITS_GOVERN="all") >= 100 * MIB
    assert peak(tmp_path, OBJECTS, "--govern=numpy", MEMLIMITS_GOVERN="all") < MIB


@pytest.mark.host
def test_what_malloc_is_refused_is_null_and_said_at_once(tmp_path):
    done = run(tmp_path, MALLOC + "print(held)", "--govern=all", "--memory-limit=64MiB")
    assert done.stdout == "None\n"
    said = done.stderr.splitlines()[0]
    assert said.startswith(
        "memlimits: refused 100 MiB (104,857,600 bytes) to malloc: memory limit "
    )


@pytest.mark.host
def test_the_program_finds_its_environment_and_words_as_they_were(tmp_path):
    show = """
        import os, sys
        ours = {name: value for name, value in os.environ.items() if "MEMLIMITS" in name}
        level = ours.pop("MEMLIMITS_CHILDREN").rpartition("level=")[2]
        preloaded = os.environ.get("LD_PRELOAD", "None").rpartition("/")[2]
        print(ours, level, preloaded)
        print(sys.argv, sys.flags.optimize, __name__, __debug__)
        print(os.environ.get("ARROW_DEFAULT_MEMORY_POOL"))
        """
    environment = {name: value for name, value in os.environ.items() if "MEMLIMITS" not in name}
    write(tmp_path / "program.py", show)
    outputs = [
        execute(*RUN, "-O", f"--govern={level}", "program.py", "--govern", "x", "",
                cwd=tmp_path, env=environment).stdout.decode().splitlines()
        for level in ("python", "all")
    ]  # fmt: skip
    assert [lines[0] for lines in outputs] == ["{} python None", "{} all libinterpose.so"]
    assert outputs[0][1] == outputs[1][1] == "['program.py', '--govern', 'x', ''] 1 __main__ False"
    assert [lines[2] for lines in outputs] == ["None", "system"]


@pytest.mark.host
def test_what_a_user_preloads_stays_for_what_the_program_starts(tmp_path):
    show = "import os; print(os.environ['LD_PRELOAD'], os.environ['ARROW_DEFAULT_MEMORY_POOL'])"
    libm = "libm.so.6"
    done = run(
        tmp_path, show, "--govern=all", LD_PRELOAD=libm, ARROW_DEFAULT_MEMORY_POOL="mimalloc"
    )
    preloaded, pool = done.stdout.split()
    assert preloaded.startswith(f"{libm}:/")
    assert preloaded.endswith("/memlimits/lib/libinterpose.so")
    assert pool == "mimalloc"


@pytest.mark.host
def test_where_malloc_cannot_be_governed_that_is_said_and_the_rest_is(tmp_path):
    # As where the loader looks at no LD_PRELOAD: it was asked for, and is not there.
    done = run(
        tmp_path,
        OBJECTS + "; print('went on')",
        "--govern=all",
        "--report=report.json",
        _MEMLIMITS_STARTED_ANEW="1",
    )
    assert done.stdout == "went on\n"
    assert done.stderr.startswith(
        "memlimits: malloc is not governed: the library that stands in for malloc was not loaded "
        "when the process started; as with --govern python\n"
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["governed"], report["memory_count"]) == ("python", "given")
    assert (report["peak"] >= 100 * MIB) == OBJECTS_COUNT


@pytest.mark.parametrize("level", ["", "NumPy", "malloc", "1"])
def test_what_is_no_level_is_refused(tmp_path, level):
    done = run(tmp_path, "", f"--govern={level}", code=2)
    assert f"argument --govern: invalid level {level!r}: write one of numpy, python, all" in (
        done.stderr
    )


@pytest.mark.host
@pytest.mark.parametrize("options", [(), ("--govern=all",), ("--policy=wait",)], ids=str)
def test_a_limit_below_what_the_interpreter_holds(tmp_path, options):
    done = run(tmp_path, "print(1)", "--memory-limit=1MiB", *options, code=2)
    assert done.stdout == ""
    assert re.fullmatch(
        r"memlimits: a memory limit of 1 MiB \(1,048,576 bytes\) is below what the interpreter "
        r"holds before the program, [\d.]+ MiB \([\d,]+ bytes\): give more, or --govern numpy, "
        r"under which only arrays count\n",
        done.stderr,
    ), done.stderr


@pytest.mark.host
def test_such_a_limit_where_it_refuses_nothing_or_counts_arrays_alone(tmp_path):
    for option in ("--govern=numpy", "--policy=guideline"):
        assert run(tmp_path, "print(1)", "--memory-limit=1MiB", option).stdout == "1\n"


@pytest.mark.skipif(memlimits.device_info()["backend"] != "metal", reason="of Metal's buffers")
def test_on_metal_pythons_objects_stay_where_they_are(tmp_path):
    assert peak(tmp_path, OBJECTS) == 0
    done = run(tmp_path, OBJECTS, "--govern=python", "--report=report.json")
    assert done.stderr.startswith(
        "memlimits: Python's objects are not governed: a forked child would lose its objects"
    )
    assert json.loads((tmp_path / "report.json").read_text())["governed"] == "numpy"
    fork = "import os\nif not os.fork(): os._exit(len(str(list(range(10**5)))) % 100)\n"
    fork += "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    assert run(tmp_path, fork).stdout == "90\n"


@pytest.mark.host
def test_a_path_that_the_loader_takes_for_several_is_named(tmp_path):
    folder = tmp_path / "with a space"
    folder.mkdir()
    (folder / "memlimits").symlink_to(os.path.dirname(memlimits.__file__))
    done = run(tmp_path, "print('went on')", "--govern=all", PYTHONPATH=str(folder))
    assert done.stdout == "went on\n"
    assert done.stderr.startswith(
        "memlimits: malloc is not governed: the loader takes the path of "
        f"'{folder}/memlimits/lib/libinterpose.so' for several, for its spaces or colons: "
        "install memlimits in another folder; as with --govern python\n"
    )


THREADS = """
import threading
import memlimits
held, more, done = [], threading.Semaphore(0), threading.Event()

def hold():
    try:
        held.append(bytearray(b"x") * 3000)
    finally:
        more.release()
    done.wait()

threading.stack_size(128 << 10)
threads = [threading.Thread(target=hold) for _ in range(300)]
try:
    for thread in threads:
        thread.start()
        assert more.acquire(timeout=60)
    assert [block.count(b"x") for block in held] == [3000] * 300
    stats = memlimits.stats()
    assert stats.refusals == 0, stats
    assert 300 * 3000 < stats.footprint
finally:
    done.set()
"""


@pytest.mark.host
@pytest.mark.parametrize("level", ["python", "all"])
@pytest.mark.skipif(not OBJECTS_COUNT, reason="mimalloc serves objects, and nothing governs that")
def test_threads_that_hold_little_live_within_a_small_limit(tmp_path, level):
    options = [f"--govern={level}", "--count=given", "--memory-limit=32MiB"]
    assert run(tmp_path, THREADS, *options).stdout == ""
