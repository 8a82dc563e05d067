"""The hypothesis machines and the storms in a process whose malloc is memlimits'.

The tests there keep books (c_interface/books.c) of what all of malloc's callers hold, so that they
stay exact. `HYPOTHESIS_PROFILE=long` and `MEMLIMITS_TESTS_ROUNDS=50` have them take many minutes,
for which pytest needs `-o faulthandler_timeout=0`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import extensions, interposed
from support.places import OBJC, TESTS

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(
        not interposed.LIBRARY.exists(), reason="malloc is interposed on Linux's host only"
    ),
]

HERE = Path(__file__).parent


def compiled(folder, name):
    library = folder / f"{name}.so"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    # What calls calloc is to call it, and not memset.
    words += ["-fno-builtin", "-I", OBJC]
    subprocess.run([*words, extensions.SOURCES / f"{name}.c", "-o", library], check=True)
    return library


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interposed")
    return {
        **interposed.environment(compiled(folder, "books")),
        "MEMLIMITS_TESTS_CALLERS": str(compiled(folder, "callers")),
    }


@pytest.mark.parametrize(
    "path",
    [
        HERE / "interposed_machine.py",
        HERE / "interposed_storms.py",
        TESTS / "engine/test_state_machine.py",
        TESTS / "engine/test_storms_limits.py",
        TESTS / "bindings/test_storms_buffers.py",
    ],
    ids=lambda path: path.stem,
)
def test_in_a_process_whose_malloc_is_memlimits(path, environment, request):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += ["-o", f"faulthandler_timeout={request.config.getini('faulthandler_timeout')}", path]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert re.search(r"^\d+ passed in ", done.stdout, re.M), done.stdout
