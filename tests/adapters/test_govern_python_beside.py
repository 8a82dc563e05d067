"""`govern_python()` beside others that stand in the place of Python's allocators: in any order."""

import importlib.util
import itertools
import shutil
import subprocess
import sys

import pytest

import memlimits
from support.interposed import LIBRARY
from support.process import run

pytestmark = [pytest.mark.host, pytest.mark.inside]

WORK = """
    import gc, io, json, sys
    from memlimits import govern_python

    def work(kept=[]):
        '''Blocks of all kinds, of whoever allocates now; half of those of before are to end.'''
        last = [kept.pop() for _ in range(len(kept) // 2)]
        for block in kept:
            if isinstance(block, bytearray):
                block += bytes(len(block))
                del block[100:]
        kept += [bytearray(bytes(n)) for n in (10, 600, 5000, 70_000, 1_000_000)]
        kept.append(json.loads(json.dumps({str(i): [i, "x" * i] for i in range(500)})))
        kept.append(io.BytesIO(bytes(3000)))
        kept.append([[] for _ in range(20_000)])
        gc.collect()
"""

TRACEMALLOC = """
    import tracemalloc
    def start():
        tracemalloc.start()
    def end():
        block = bytearray(3 * MIB)
        assert 3 * MIB <= tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_object_traceback(block) is not None
        tracemalloc.stop()
"""

MEMRAY = """
    import memray, os, tempfile
    def start():
        global tracker, file
        file = os.path.join(tempfile.mkdtemp(), "memray.bin")
        tracker = memray.Tracker(file, trace_python_allocators=True)
        tracker.__enter__()
    def end():
        block = bytearray(3 * MIB)
        tracker.__exit__(None, None, None)
        with memray.FileReader(file) as reader:
            assert max(record.size for record in reader.get_high_watermark_allocation_records(
                merge_threads=True)) >= 3 * MIB
"""


# Two spans, each open from its first letter to its second, cross in every way.
ORDERS = sorted({"".join(order) for order in itertools.permutations("ggtt")})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "malloc",
    [
        "",
        pytest.param(
            "memlimits.govern_malloc()",
            marks=pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is not interposed"),
        ),
    ],
    ids=["", "malloc"],
)
@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(TRACEMALLOC, id="tracemalloc"),
        pytest.param(
            MEMRAY,
            id="memray",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("memray") is None, reason="not installed: memray"
            ),
        ),
    ],
)
def test_a_tool_that_starts_and_ends_in_any_order(tool, malloc, order):
    """Where malloc is governed, too, it is for good."""
    steps = {
        "g": [f"governing = govern_python(); {malloc}", "governing.close()"],
        "t": ["start()", "end()"],
    }
    lines = []
    for step in order * 2:
        lines += [steps[step][0], "work()"]
        steps[step].reverse()
    script = "\n".join(["import textwrap", f"exec(textwrap.dedent({WORK + tool!r}))", *lines])
    run(script, words=("env", f"LD_PRELOAD={LIBRARY}") if malloc else ())


MODES = ["default", "debug", "malloc", "malloc_debug", "pymalloc", "pymalloc_debug"]
if sys.version_info >= (3, 13):
    MODES += ["mimalloc", "mimalloc_debug"]
if "t" in sys.abiflags:
    MODES = ["default", "debug", "mimalloc", "mimalloc_debug"]


@pytest.mark.parametrize("mode", MODES)
def test_every_allocator_that_python_has(mode):
    is_hooked = "mimalloc" not in mode and "t" not in sys.abiflags
    run(
        f"""
import textwrap
exec(textwrap.dedent({WORK!r}))
work()
governing = govern_python()
work()
large, small = bytes(5000), [[] for _ in range(200_000)]
assert bool(memlimits.get_array_buffer_size(large)) == {is_hooked}
assert (memlimits.get_active_memory() > 10 * MIB) == {is_hooked}
assert (governing.ungoverned is None) == {is_hooked}, governing.ungoverned
assert {is_hooked} or "mimalloc" in governing.ungoverned
memlimits.set_memory_policy("strict")
memlimits.set_memory_limit(memlimits.stats().footprint + 10 * MIB)
try:
    held = bytes(20 * MIB)
except MemoryError:
    assert {is_hooked}
else:
    assert not {is_hooked}
memlimits.set_memory_policy("guideline")
del large, small
governing.close()
work()
assert not memlimits.get_array_buffer_size(bytes(5000))
""",
        words=("env", f"PYTHONMALLOC={mode}"),
    )


@pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's")
def test_the_debug_hooks_go_on_to_see_a_block_that_was_overrun():
    done = run(
        """
from memlimits import govern_python
malloc, free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
malloc.restype, malloc.argtypes, free.argtypes = (
    ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p])
governing = govern_python()
block = malloc(5000)
ctypes.memset(block, 1, 5001)
free(block)
""",
        words=("env", "PYTHONMALLOC=debug"),
        code=-6,
    )
    assert "bad trailing pad byte" in done.stderr


OTHER = r"""
#include <Python.h>

static PyMemAllocatorEx found;

static void *take(void *ctx, size_t n) { return found.malloc(found.ctx, n); }
static void *take_zeros(void *ctx, size_t count, size_t n)
{
    return found.calloc(found.ctx, count, n);
}
static void *change(void *ctx, void *start, size_t n) { return found.realloc(found.ctx, start, n); }
static void give(void *ctx, void *start) { found.free(found.ctx, start); }

static PyObject *start(PyObject *self, PyObject *none)
{
    PyMemAllocatorEx ours = {NULL, take, take_zeros, change, give};
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &found);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &ours);
    Py_RETURN_NONE;
}

static PyObject *end(PyObject *self, PyObject *none)
{
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &found);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"start", start, METH_NOARGS, NULL}, {"end", end, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "other", NULL, -1, methods};

PyMODINIT_FUNC PyInit_other(void) { return PyModule_Create(&module); }
"""

OTHERS_SETUP = """
from setuptools import Extension, setup
setup(name="other", ext_modules=[Extension("other", ["other.c"])])
"""


def test_a_tool_of_no_known_kind(tmp_path):
    """One that is there before may end first, and blocks of ours would reach who knows none."""
    (tmp_path / "other.c").write_text(OTHER)
    (tmp_path / "setup.py").write_text(OTHERS_SETUP)
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run(f"""
import textwrap
exec(textwrap.dedent({WORK!r}))
sys.path.insert(0, {str(tmp_path)!r})
import other
other.start()
work()
try:
    govern_python()
except RuntimeError as error:
    assert f"another library, {{other.__file__}}" in str(error), error
else:
    raise AssertionError
assert not memlimits.get_array_buffer_size(bytes(5000))
other.end()
with govern_python():
    work()
    other.start()
    work()
work()
other.end()
work()
""")


def test_a_second_copy_of_memlimits(tmp_path):
    shutil.copytree(
        memlimits.__path__[0], tmp_path / "memlimits", ignore=shutil.ignore_patterns("*.c")
    )
    run(f"""
first = memlimits.govern_python()
for name in [name for name in sys.modules if name.startswith("memlimits")]:
    del sys.modules[name]
sys.path.insert(0, {str(tmp_path)!r})
import memlimits as second
assert second.__file__ != memlimits.__file__
try:
    second.govern_python()
except RuntimeError as error:
    assert "another copy of memlimits, " + memlimits.__path__[0] in str(error), error
else:
    raise AssertionError
assert bool(memlimits.get_array_buffer_size(bytes(5000))) == ("t" not in sys.abiflags)
""")
