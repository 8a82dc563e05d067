"""Pythons that are started below a governed program."""

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import memlimits
from memlimits.adapters import children
from support.children import environment, needs_installed
from support.commands import RUN, without_addresses, write
from support.places import ROOT
from support.units import MIB

pytestmark = [pytest.mark.host, pytest.mark.inside]

# What a process is governed by, in a line; and how it is refused more.
TELL = """
import os, sys

def tell():
    import memlimits
    from memlimits import _modules
    stats = memlimits.stats()
    governed = [_modules.for_python().governs(), _modules.for_process().governs()]
    try:
        import numpy
        numpy.empty(1 << 50, "u1")
    except MemoryError as error:
        notes = getattr(error, "__notes__", [])
    return [stats.memory_limit >> 20, str(stats.policy), stats.memory_count, *governed,
            [note.partition(" (")[0] for note in notes]]

if __name__ == "__main__":
    print(tell())
"""
REFUSED = ["memlimits: refused 1 PiB"]

LIMITS = ("--memory-limit=300MiB", "--policy=strict")
GOVERNED = [300, "strict", "given", True, False, REFUSED]


@pytest.fixture
def run(tmp_path):
    """Run a source under `memlimits run`, and return what its last line of output shows."""

    def run(source, *options, words=(), expected=True, **variables):
        write(tmp_path / "telling.py", TELL)
        write(tmp_path / "program.py", source)
        done = subprocess.run(
            [sys.executable, *words, *RUN, *(options or LIMITS), "program.py"],
            cwd=tmp_path,
            env=environment(tmp_path, **variables),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return ast.literal_eval(done.stdout.splitlines()[-1]) if expected else done

    return run


POOL = """
    import multiprocessing, telling
    if __name__ == "__main__":
        with multiprocessing.get_context({how!r}).Pool(1) as pool:
            print(pool.apply(telling.tell))
    """
EXECUTOR = """
    import concurrent.futures, telling
    if __name__ == "__main__":
        with concurrent.futures.ProcessPoolExecutor(1) as executor:
            print(executor.submit(telling.tell).result())
    """
LOKY = """
    import loky, telling
    if __name__ == "__main__":
        executor = loky.get_reusable_executor(max_workers=1)
        print(executor.submit(telling.tell).result())
        executor.shutdown()
    """
CODE = "import sys; sys.path.insert(0, '.'); import telling; print(telling.tell())"
CHILD = f"""
    import subprocess, sys
    subprocess.run([sys.executable, *{{words}}, "-c", {CODE!r}], check=True)
    """
WAYS = {
    "spawn": POOL.format(how="spawn"),
    "forkserver": POOL.format(how="forkserver"),
    "fork": POOL.format(how="fork"),
    "executor": EXECUTOR,
    "subprocess": CHILD.format(words=[]),
    "shell": "import os, sys; os.system(f'\"{sys.executable}\" -m telling')",
    "exec": f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {CODE!r}])",
    "grandchild": f"""
        import subprocess, sys
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
        subprocess.run([sys.executable, "-c", code, {CODE!r}], check=True)
        """,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_python_below_has_the_limits(run, way):
    assert run(WAYS[way]) == GOVERNED


def test_lokys_workers_have_the_limits(run):
    pytest.importorskip("loky")
    assert run(LOKY) == GOVERNED


@needs_installed
@pytest.mark.parametrize("option", ["-I", "-E", "-s"])
def test_a_python_that_is_apart_has_the_limits(run, option):
    assert run(CHILD.format(words=[option])) == GOVERNED


def test_pytests_workers_have_the_limits(run, tmp_path):
    pytest.importorskip("xdist")
    write(tmp_path / "test_it.py", "import telling\ndef test(): assert not telling.tell()")
    done = subprocess.run(
        [sys.executable, *RUN, *LIMITS, "-m", "pytest", "-n1", "-p", "no:cacheprovider", "-q"],
        cwd=write(tmp_path / "telling.py", TELL).parent,
        env=environment(tmp_path, PYTHONPATH=os.pathsep.join(
            [str(tmp_path), environment(tmp_path).get("PYTHONPATH", "")])),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert f"assert not {GOVERNED}" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--memory-limit=1GiB"], [1024, "strict", "given", True, False]),
        (["--memory-limit=1GiB", "--policy=guideline"], [1024, "guideline", "given", True, False]),
        (["--memory-limit=1GiB", "--count=process"], [1024, "strict", "process", True, False]),
        (["--memory-limit=1GiB", "--govern=numpy"], [1024, "strict", "given", False, False]),
        (["--memory-limit=1GiB", "--govern=all"], [1024, "strict", "resident", True, True]),
    ],
    ids=lambda value: str(value[-1]),
)
def test_what_is_inherited(run, options, expected):
    assert run(WAYS["subprocess"], *options)[:-1] == expected


def test_the_rest_of_what_is_inherited(run):
    code = "import memlimits as m; print([m.get_cache_limit(), m.get_memory_policy().timeout])"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    options = ["--memory-limit=1GiB", "--cache-limit=5MiB", "--policy=wait", "--timeout=2.5"]
    assert run(source, *options) == [5 * MIB, 2.5]
    # The wired limit is a process's own.
    code = "import memlimits as m; print([m.get_wired_limit(), m.get_cache_limit()])"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    assert run(source, "--memory-limit=1GiB", "--wired-limit=64KiB") == [0, 1 << 30]


def test_what_the_loader_preloads_stays_for_children(run):
    show = "import os; print([os.environ['LD_PRELOAD'].split(':')[0]])"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {show!r}])"
    assert run(source, "--govern=all", LD_PRELOAD="libm.so.6") == ["libm.so.6"]


@pytest.mark.parametrize("quiet", [False, True])
def test_what_malloc_is_refused_in_a_child_is_said_unless_nothing_is_to_be(run, quiet):
    code = "import ctypes; ctypes.CDLL(None).malloc(ctypes.c_size_t(1 << 40))"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    done = run(source, "--govern=all", *LIMITS, *["--quiet"] * quiet, expected=False)
    assert (": refused 1 TiB (1,099,511,627,776 bytes) to malloc" in done.stderr) != quiet


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


def test_keys_of_another_version_and_an_empty_variable_say_nothing(tmp_path):
    write(tmp_path / "telling.py", TELL)
    for text, limit in (("pool=/there;new=;memory_limit=314572800", 300), ("", None)):
        done = subprocess.run(
            [sys.executable, "-c", "import telling; print(telling.tell())"],
            cwd=tmp_path,
            env=environment(tmp_path, MEMLIMITS_CHILDREN=text),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        told = ast.literal_eval(done.stdout)
        assert (told[0] == limit) == (limit is not None)
        assert told[-1] == (REFUSED if limit else [])


def test_a_limit_below_what_the_interpreter_holds_is_a_childs_all_the_same(tmp_path):
    """What it had before is not given by memlimits; and what it is refused raises."""
    code = "try:\n    bytearray(1 << 30)\nexcept MemoryError as error:\n    print(error.__notes__)"
    settings = "memory_limit=1048576;policy=strict;count=given;level=python"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, MEMLIMITS_CHILDREN=settings),
        capture_output=True,
        text=True,
    )
    if "t" not in sys.abiflags:
        assert "memory limit 1 MiB (strict)" in done.stdout + done.stderr
    assert "not governed" not in done.stderr


def test_what_fails_is_one_line_and_the_child_goes_on(tmp_path):
    """Of an importable package that is broken, too."""
    write(tmp_path / "memlimits" / "__init__.py", "raise ZeroDivisionError('two\\nlines')")
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


# ---- a run below a run ----


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [300, "strict", "given", True, False]),
        (["--memory-limit=200MiB"], [200, "strict", "given", True, False]),
        (["--memory-limit=2GiB"], [2048, "strict", "given", True, False]),
        (["--policy=guideline"], [300, "guideline", "given", True, False]),
        (["--count=resident"], [300, "strict", "resident", True, False]),
        (["--govern=numpy"], [300, "strict", "given", False, False]),
        (["--govern=all"], [300, "strict", "resident", True, True]),
    ],
    ids=str,
)
@pytest.mark.parametrize("outer", ["python", "all"])
def test_a_run_below_a_run(run, outer, options, expected):
    if outer == "all" and "--govern=numpy" not in options and "--count=resident" not in options:
        expected = [*expected[:2], "resident", True, True]
    elif outer == "all" and "--count=resident" in options:
        expected = [*expected[:3], True, True]
    source = f"""
        import subprocess, sys
        code = "import telling, subprocess, sys; print(telling.tell()); sys.stdout.flush(); " \\
            "subprocess.run([sys.executable, '-c', 'import telling; print(telling.tell())'])"
        words = [sys.executable, "-m", "memlimits", "run", *{options}, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        print([*map(eval, done.stdout.splitlines()), done.stderr.splitlines()])
        """
    inner, below, said = run(source, *LIMITS, f"--govern={outer}")
    assert inner == below == [*expected, REFUSED if expected[1] == "strict" else inner[-1]]
    assert said[0].startswith("memlimits: peak: governed ")


def test_a_run_below_a_run_with_a_limit_that_is_too_low(run):
    source = """
        import subprocess, sys
        words = [sys.executable, "-m", "memlimits", "run", "--memory-limit=1MiB", "-c", "print(1)"]
        done = subprocess.run(words, capture_output=True, text=True)
        print([done.returncode, done.stdout, done.stderr])
        """
    code, out, said = run(source)
    assert (code, out) == (2, "")
    assert said.startswith("memlimits: a memory limit of 1 MiB (1,048,576 bytes) is below what the")


# ---- a program that asks for it ----

ASKS = """
    import os, subprocess, sys
    import memlimits
    memlimits.set_memory_limit(300 << 20)
    memlimits.set_memory_policy("strict")
    {govern}
    assert memlimits.govern_children() is None
    memlimits.set_memory_limit(400 << 20)  # comes too late
    code = "import telling; print(telling.tell())"
    subprocess.run([sys.executable, "-c", code], check=True)
    """


def asks(tmp_path, govern, **variables):
    write(tmp_path / "telling.py", TELL)
    write(tmp_path / "program.py", ASKS.format(govern=govern))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment(tmp_path, **variables),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return ast.literal_eval(done.stdout)


def test_a_program_has_its_children_governed(tmp_path):
    assert asks(tmp_path, "") == [300, "strict", "given", False, False, REFUSED]
    assert asks(tmp_path, "memlimits.govern_python()") == GOVERNED


@pytest.mark.skipif(not children.may_be_preloaded(), reason="nothing stands in for malloc here")
def test_a_program_has_its_childrens_malloc_governed(tmp_path):
    library = os.path.join(os.path.dirname(memlimits.__file__), "lib", "libinterpose.so")
    govern = "memlimits.govern_malloc(); memlimits.govern_python(); os.environ.pop('LD_PRELOAD')"
    told = asks(tmp_path, govern, LD_PRELOAD=library)
    assert told == [300, "strict", "given", True, True, REFUSED]


def test_where_no_python_looks_for_memlimits_that_is_an_error(tmp_path):
    place = os.path.dirname(os.path.dirname(memlimits.__file__))
    code = f"""
        import os, sys
        sys.path.append({place!r})
        import memlimits
        try:
            memlimits.govern_children()
        except RuntimeError as error:
            print(error, "MEMLIMITS_CHILDREN" in os.environ)
        """
    words = [sys.executable, "-S", "-c", textwrap.dedent(code)]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True)
    assert done.stdout.startswith("a Python that starts would not be governed: memlimits."), done
    assert done.stdout.endswith("and run without -S False\n")


# ---- those that are not governed ----


def test_pythons_without_memlimits_are_left_alone_and_counted(run):
    """While they live. One is below another, which has it."""
    source = """
        import subprocess, sys
        code = "import os, sys; print(*sys.modules); sys.stdout.flush(); sys.stdin.read()"
        words = [sys.executable, "-c", "import subprocess, sys\\n"
                 f"subprocess.run([sys.executable, '-S', '-c', {code!r}])"]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children = [subprocess.Popen([sys.executable, "-S", "-c", code], **options),
                    subprocess.Popen(words, **options)]
        for child in children:
            assert b"memlimits" not in child.stdout.readline()
        """
    done = run(source, expected=False)
    line = "2 Python processes below were not governed at the end: memlimits was not loaded there"
    assert f"memlimits: {line}\n" in done.stderr, done.stderr


def test_pythons_that_are_governed_are_not_counted(run):
    source = """
        import os, subprocess, sys
        code = "import sys; print(1); sys.stdout.flush(); sys.stdin.read()"
        child = subprocess.Popen([sys.executable, "-c", code],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        ends, goes_on = os.pipe()
        if os.fork() == 0:
            os.close(goes_on)
            os.read(ends, 1)
            os._exit(0)
        """
    assert "not governed" not in run(source, expected=False).stderr


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
