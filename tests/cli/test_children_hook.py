"""The hook that a Python runs as it starts: what it leaves, what it says, and what it costs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from memlimits.adapters import children
from support.children import environment
from support.commands import without_addresses, write
from support.places import ROOT

pytestmark = pytest.mark.host


# ---- what a child finds ----

SHOW = """
    import sys
    names = sorted(sys.modules.keys() - sys.builtin_module_names)
    warnings = sys.modules.get("warnings")
    hooks = [sys.meta_path, sys.path_hooks, sys.excepthook, sys.displayhook, sys.gettrace()]
    print(names)
    print([sys.path, sys.argv, sys.orig_argv, sys.flags, hooks, sys.warnoptions, sorted(globals()),
           warnings and warnings.filters])
    """


def test_a_child_finds_what_it_finds_without(tmp_path):
    def shown(**variables):
        words = [sys.executable, "-c", textwrap.dedent(SHOW)]
        environ = environment(tmp_path, **variables)
        done = subprocess.run(words, env=environ, capture_output=True, check=True)
        assert done.stderr == b""
        names, rest = without_addresses(done.stdout).splitlines()
        return set(ast.literal_eval(names.decode())), rest

    names, rest = shown()
    with_ours, same = shown(MEMLIMITS_CHILDREN="memory_limit=1073741824;level=python")
    assert same == rest
    assert not names - with_ours
    ours = with_ours - names
    assert "memlimits" in ours
    assert {name for name in ours if not name.startswith(("memlimits", "_cython_", "cython_"))} == (
        set()
    )
    assert not {name for name in ours if name.startswith(("memlimits.cli", "_memlimits"))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "nonsense",
            "invalid pair 'nonsense': write key=value pairs with ; between them, such as ",
        ),
        ("memory_limit=1GiB", "invalid memory_limit '1GiB': write bytes, from 0 to 2**64 - 1, or "),
        ("memory_limit=-1", "invalid memory_limit '-1': write bytes, from 0 to 2**64 - 1, or "),
        ("policy=hard", "invalid policy 'hard': write one of guideline, strict, wait, or unset it"),
        ("policy=wait;timeout=x", "invalid timeout 'x': write seconds, from 0 to 1000000000, or "),
        ("level=most", "invalid level 'most': write one of numpy, python, all, or unset it"),
    ],
)
def test_a_variable_that_is_malformed(tmp_path, text, said):
    done = subprocess.run(
        [sys.executable, "-c", "print(1)"],
        env=environment(tmp_path, MEMLIMITS_CHILDREN=text),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.startswith(f"memlimits: variable MEMLIMITS_CHILDREN: {said}")
    assert done.stderr.endswith("; this process is not governed\n")
    assert done.stderr.count("\n") == 1


def test_a_limit_below_what_the_interpreter_holds_is_a_childs_all_the_same(tmp_path):
    """What it had before is not given by memlimits; and what it is refused raises."""
    code = "try:\n    bytearray(1 << 30)\nexcept MemoryError as error:\n    print(error.__notes__)"
    # Python's own start takes arenas of 1 MiB.
    settings = "memory_limit=4194304;policy=strict;count=given;level=python"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, MEMLIMITS_CHILDREN=settings),
        capture_output=True,
        text=True,
    )
    if "t" not in sys.abiflags:
        assert "memory limit 4 MiB (strict)" in done.stdout + done.stderr
    assert "not governed" not in done.stderr


def test_what_fails_is_one_line_and_the_child_goes_on(tmp_path):
    """Of an importable package that is broken, too."""
    package = tmp_path / "memlimits"
    write(package / "__init__.py", "raise ZeroDivisionError('two\\nlines')")
    environ = environment(tmp_path)
    paths = [str(tmp_path), *filter(None, [environ.get("PYTHONPATH")])]
    environ |= {"MEMLIMITS_CHILDREN": "level=numpy", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", "print(1)"], env=environ, capture_output=True)
    assert done.stdout == b"1\n"
    line = b"memlimits: this process is not governed: ZeroDivisionError: two lines\n"
    assert done.stderr in (line, 2 * line)  # Python 3.11 reads the hook's file twice.


def test_a_subinterpreter_starts_as_it_does(tmp_path):
    code = """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        import os
        other = interpreters.create()
        interpreters.run_string(other, "import os; os.write(1, b'inside')")
        interpreters.destroy(other)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(tmp_path, MEMLIMITS_CHILDREN="level=python"),
        capture_output=True,
    )
    assert (done.stdout, done.stderr) == (b"inside", b"")


# ---- what it costs others ----


def test_the_hook_imports_nothing_where_nothing_is_asked(tmp_path):
    code = "import sys; print('memlimits' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


VALGRIND = shutil.which("valgrind")


def instructions(folder):
    """What Python executes that reads the hooks of a folder as it reads those of site-packages."""
    code = f"import site; site.addsitedir({str(folder)!r})"
    environ = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop(children.VARIABLE, None)
    done = subprocess.run(
        [
            VALGRIND,
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            sys.executable,
            "-c",
            code,
        ],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


@pytest.mark.skipif(not (ROOT / "hook").exists(), reason="not in a source tree")
@pytest.mark.skipif(VALGRIND is None, reason="apt-get install valgrind")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="what is preloaded may not bear valgrind")
def test_the_hook_costs_a_hundredth_of_a_start_where_nothing_is_asked(tmp_path):
    """Counted, since no clock tells it from none."""
    without = instructions(tmp_path)
    assert instructions(ROOT / "hook") - without < without / 100
