"""A process whose malloc is ours beside others' tools, allocators and settings."""

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import memlimits
from support.family import compiled
from support.interposed import LIBRARY
from support.process import execute, run

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
]

# Takes part, or says why not; has blocks of all kinds, of before and after, come and go.
PROGRAM = """
import ctypes, json, threading
from memlimits.adapters import _process
import memlimits

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def work(kept=[]):
    del kept[: len(kept) // 2]
    kept += [bytearray(n) for n in (10, 600, 5000, 70_000, 1_000_000)]
    kept.append(json.loads(json.dumps({str(i): [i, "x" * i] for i in range(300)})))
    thread = threading.Thread(target=lambda: kept.append(bytes(100_000)))
    thread.start()
    thread.join()

work()
before = memlimits.get_active_memory()
block = libc.malloc(5 << 20)
why_not = _process.take_part()
work()
libc.free(block)
block = libc.malloc(5 << 20)
ctypes.memset(block, 1, 5 << 20)
assert (memlimits.get_active_memory() - before >= 5 << 20) == (why_not is None)
libc.free(block)
work()
print(why_not)
"""


def started(*words, program=PROGRAM, preload=LIBRARY, **environment):
    """A program, started by these words."""
    words = [*words, sys.executable, "-c", program]
    environment = {**os.environ, **environment, "LD_PRELOAD": str(preload)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done


# ---- other allocators ----


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", ["jemalloc", "mimalloc", "tcmalloc_minimal"])
def test_another_allocator_that_is_in_use(name, order):
    other = ctypes.util.find_library(name)
    if other is None:
        pytest.skip(f"not installed: lib{name}")
    both = [other, str(LIBRARY)] if order == "before" else [str(LIBRARY), other]
    done = started(preload=":".join(both))
    assert done.stdout.startswith("malloc is that of '/")
    assert f"/{other}'" in done.stdout


@pytest.mark.parametrize("order", ["first second", "second first"])
def test_a_second_copy_of_memlimits(tmp_path, order):
    """Who takes part first governs; what the other would do goes to the first."""
    package = Path(memlimits.__path__[0])
    shutil.copytree(package, tmp_path / "memlimits", ignore=shutil.ignore_patterns("*.c", "lib"))
    script = f"""
        from memlimits.adapters import _process as first
        names = [name for name in sys.modules if name.startswith("memlimits")]
        first_memlimits = {{name: sys.modules.pop(name) for name in names}}
        sys.path.insert(0, {str(tmp_path)!r})
        import memlimits as second_memlimits
        from memlimits.adapters import _process as second
        assert second.__file__ != first.__file__
        one, other = {", ".join(order.split())}
        assert one.take_part() is None
        assert other.take_part() == "another memlimits governs malloc in this process"
        assert (one.governs(), other.governs()) == (True, False)
        malloc = ctypes.CDLL(None).malloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        held = malloc(10 * MIB)
        actives = [memlimits.get_active_memory(), second_memlimits.get_active_memory()]
        assert [active >= 10 * MIB for active in actives] == [one is first, one is second]
        def allocate():
            return second_memlimits.allocate(MIB), memlimits.allocate(MIB)
        blocks = allocate()
        child = os.fork()
        if child == 0:
            signal.alarm(60)    # what hangs is ended
            blocks = allocate()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        blocks = allocate()
        del blocks
    """
    run(script, words=("env", f"LD_PRELOAD={LIBRARY}"))


# ---- tools that look ----

TOOLS = {
    "gdb": ["gdb", "-batch", "-q", "-nx", "-return-child-result", "-ex", "run", "--args"],
    "strace": ["strace", "-f", "-o", "/dev/null"],
    "perf stat": ["perf", "stat", "-e", "task-clock", "-o", "/dev/null"],
    "perf record": ["perf", "record", "-e", "task-clock", "-q", "-o", "/dev/null"],
    "valgrind": ["valgrind", "-q", "--tool=none"],
}


def starts(words):
    """Whether the tool is there, and may do here what it does."""
    if shutil.which(words[0]) is None:
        return False
    done = subprocess.run([*words, "/bin/true"], capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_looks_on(name):
    if not starts(TOOLS[name]):
        pytest.skip(f"not to be had: {name}")
    # What the tool prints itself may follow at once.
    assert re.search("^None", started(*TOOLS[name]).stdout, re.M)


def test_a_tool_that_stands_in_for_malloc_itself():
    words = ["valgrind", "-q"]
    if not starts(words):
        pytest.skip("not to be had: valgrind")
    # It takes fifty times as long.
    short = "from memlimits.adapters import _process; print(_process.take_part())"
    done = started(*words, program=short)
    assert done.stdout == (
        "calls of malloc do not reach the library that stands in for it: a tool takes them, as "
        "valgrind's memcheck and massif do\n"
    )


# ---- settings ----

SETTINGS = [
    {"PYTHONMALLOC": "malloc"},
    {"PYTHONMALLOC": "malloc_debug"},
    {"PYTHONMALLOC": "pymalloc_debug"},
    {"PYTHONMALLOC": "mimalloc"},
    {"PYTHONMALLOC": "mimalloc_debug"},
    {"PYTHONDEVMODE": "1"},
    {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"},
    {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=4096"},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(setting.values()))
def test_what_the_user_set(setting):
    mode = setting.get("PYTHONMALLOC", "")
    if execute("", env={**os.environ, **setting}).returncode:
        pytest.skip(f"this Python has no allocator {mode!r}")
    assert started(**setting).stdout == "None\n"


def test_a_limit_of_the_processs_own():
    """RLIMIT_AS, set by the program: what malloc is refused for it is a refusal like any other."""
    run(
        """
        memlimits.govern_malloc()
        most = proc("VmSize") + 300 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        malloc = ctypes.CDLL(None).malloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        held = 0
        while block := malloc(MIB):
            ctypes.memset(block, 1, MIB)
            held += MIB
        assert memlimits.get_active_memory() >= held > 0
        assert memlimits.last_refusal().blocked_by == "device"
        """,
        words=("env", f"LD_PRELOAD={LIBRARY}"),
    )


def test_a_program_that_the_loader_preloads_nothing_for():
    """One that has the rights of its file's owner."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        python = Path(folder, "bin", "python")
        python.parent.mkdir()
        shutil.copy(os.path.realpath(sys.executable), python)
        Path(folder, "pyvenv.cfg").write_text(f"home = {Path(sys._base_executable).parent}\n")
        os.chmod(python, 0o4755)
        words = ["setpriv", "--reuid=65534", "--clear-groups", str(python)]
        places = [str(Path(memlimits.__path__[0]).parent), *filter(None, sys.path)]
        environment = {**os.environ, "PYTHONPATH": ":".join(places)}
        ids = "import os; print(os.getuid(), os.geteuid())"
        try:
            done = subprocess.run([*words, "-c", ids], env=environment, capture_output=True)
        except FileNotFoundError:
            pytest.skip("not installed: setpriv")
        if done.stdout != b"65534 0\n":
            pytest.skip("no program can get the rights of another user here")
        words += ["-m", "memlimits", "run", "--govern=all", "-c", "print('went on')"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd="/")
    assert done.stdout == "went on\n"
    assert done.stderr.startswith(
        "memlimits: malloc is not governed: the library that stands in for malloc was not loaded "
        "when the process started; as with --govern python\n"
    )


def test_a_package_without_the_library(tmp_path):
    package = Path(memlimits.__path__[0])
    shutil.copytree(package, tmp_path / "memlimits", ignore=shutil.ignore_patterns("*.c", "lib"))
    words = [sys.executable, "-m", "memlimits", "run", "--govern=all", "-c", "print('went on')"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "went on\n"
    assert done.stderr.startswith("memlimits: malloc is not governed: the library that stands in")


def test_a_library_with_variables_of_threads_own_is_loaded_late(tmp_path):
    """Threads make room for those when they first use them, by malloc."""
    library = compiled(
        tmp_path,
        "tls",
        """
        #include <pthread.h>
        #include <stdlib.h>
        #include <string.h>
        static __thread char large[60000];
        static __thread void *held;
        static void *work(void *argument)
        {
            memset(large, 2, sizeof large);
            held = calloc(10, 100000);
            free(held);
            return argument;
        }
        int go(void)
        {
            pthread_t threads[8];
            memset(large, 1, sizeof large);
            for (int i = 0; i < 8; i++)
                pthread_create(&threads[i], NULL, work, NULL);
            for (int i = 0; i < 8; i++)
                pthread_join(threads[i], NULL);
            return large[59999];
        }
    """,
    )
    run(
        f"""
        import _ctypes
        memlimits.govern_malloc()
        for _ in range(5):
            library = ctypes.CDLL({str(library)!r})
            threads = [threading.Thread(target=library.go) for _ in range(3)]
            for thread in threads: thread.start()
            assert library.go() == 1
            for thread in threads: thread.join()
            _ctypes.dlclose(library._handle)
        """,
        words=("env", f"LD_PRELOAD={LIBRARY}"),
    )


# ---- libraries that are opened ----


def test_a_library_that_is_bound_to_its_own_symbols_first(tmp_path):
    """Its free would be the C library's, which gets what is ours from getline."""
    library = compiled(
        tmp_path,
        "bound",
        """
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <stdlib.h>
        long go(void)
        {
            char *line = NULL;
            size_t n = 0;
            FILE *file = fopen("/proc/self/status", "r");
            long length = getline(&line, &n, file);
            fclose(file);
            free(line);
            return length;
        }
    """,
    )
    run(
        f"""
        memlimits.govern_malloc()
        for _ in range(100):
            library = ctypes.CDLL({str(library)!r}, mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
            assert library.go() > 0
        """,
        words=("env", f"LD_PRELOAD={LIBRARY}"),
    )


def test_a_library_opens_what_lies_beside_it(tmp_path):
    """By its own path to search, which no other library has."""
    compiled(tmp_path / "beside", "plugin", "int answer(void) { return 42; }")
    host = compiled(
        tmp_path,
        "host",
        """
        #include <dlfcn.h>
        int go(void)
        {
            void *plugin = dlopen("libplugin.so", RTLD_NOW);
            int (*answer)(void) = plugin ? (int (*)(void))dlsym(plugin, "answer") : 0;
            return answer ? answer() : 0;
        }
        """,
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/beside",
    )
    run(
        f"""
        memlimits.govern_malloc()
        assert ctypes.CDLL({str(host)!r}).go() == 42
        """,
        words=("env", f"LD_PRELOAD={LIBRARY}"),
    )
