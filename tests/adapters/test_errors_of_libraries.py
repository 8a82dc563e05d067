"""Errors of other libraries whose memory is malloc's: each of its own type, in its own words.

Where a library is not installed its test is skipped: `tox -e drills` has some of them.
"""

import importlib.util
from pathlib import Path

import pytest

import memlimits
from support.commands import RUN, execute, write

LIBRARY = Path(memlimits.__file__).parent / "lib" / "libinterpose.so"

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"
)

# What a library needs, what is prepared, what fails, and the error's type.
FAILS = {
    "pyarrow": (
        "a = pyarrow.array(range(1 << 17))",
        "pyarrow.concat_arrays([a] * 128)",
        "pyarrow.lib.ArrowMemoryError",
    ),
    "pandas": (
        "import io; text = b'a,b\\n' + b'1,2\\n' * (4 << 20)",
        "pandas.read_csv(io.BytesIO(text), low_memory=False)",
        "pandas.errors.ParserError",
    ),
    "lxml.etree": (
        "text = b'<a>' + b'<b>text</b>' * (1 << 20) + b'</a>'",
        "lxml.etree.fromstring(text)",
        "lxml.etree.XMLSyntaxError",
    ),
    "PIL.Image": ("", "PIL.Image.new('RGB', (9000, 9000))", "builtins.MemoryError"),
    "cv2": (
        "import numpy; a = numpy.zeros((99, 99), numpy.uint8)",
        "cv2.resize(a, (20000, 20000))",
        "cv2.error",
    ),
    "torch": ("", "torch.empty(64 << 20)", "builtins.RuntimeError"),
    "jax.numpy": (
        "jax.numpy.zeros(8).block_until_ready()",
        "jax.numpy.ones(64 << 20).block_until_ready()",
        "jax.errors.JaxRuntimeError",
    ),
    "numba": (
        "import numpy; f = numba.njit(lambda n: numpy.empty(n)); f(3)",
        "f(64 << 20)",
        "builtins.MemoryError",
    ),
    "sqlite3": (
        "db = sqlite3.connect(':memory:'); db.execute('create table t (x)')",
        "[db.execute('insert into t values (zeroblob(1 << 22))') for _ in range(99)]",
        "builtins.MemoryError",
    ),
}


def is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


PROGRAM = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import {module}
import memlimits
{prepare}
# What was prepared is held, besides.
memlimits.set_memory_limit(memlimits.stats().footprint + (48 << 20))
memlimits.set_memory_policy("strict")
caught = None
try:
    {fails}
except Exception as error:
    caught = error
memlimits.set_memory_limit(1 << 62)
kind = type(caught)
print(f"{{kind.__module__}}.{{kind.__qualname__}}")
print(memlimits.errors.is_refusal(caught))
print([note for note in caught.__notes__ if note.startswith("memlimits: refused ")])
"""


@pytest.mark.parametrize("module", FAILS)
def test_an_error_of_a_library(module, tmp_path):
    if not is_there(module):
        pytest.skip(f"not installed: {module}")
    prepare, fails, kind = FAILS[module]
    write(tmp_path / "program.py", PROGRAM.format(module=module, prepare=prepare, fails=fails))
    # Of what is not touched, too.
    words = (*RUN, "--govern=all", "--count=given", "program.py")
    done = execute(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, refused, notes = done.stdout.decode().splitlines()
    assert (found, refused) == (kind, "True"), done.stdout
    assert notes.count("memlimits: refused ") == 1
