"""Pythons that are started below a governed program."""

import ast
import os
import subprocess
import sys
import textwrap
import venv

import pytest

import memlimits
from memlimits.adapters import children
from support.children import environment, needs_installed
from support.commands import RUN, write
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


def test_keys_of_another_version_and_an_empty_variable_say_nothing(tmp_path):
    write(tmp_path / "telling.py", TELL)
    for text, limit in (("later=/there;new=;memory_limit=314572800", 300), ("", None)):
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


@needs_installed
def test_a_python_of_another_environment_is_left_alone_and_counted(run, tmp_path):
    """It has the variable, and no memlimits."""
    venv.create(tmp_path / "other", symlinks=True)
    source = """
        import subprocess
        code = "import os, sys\\n"
        code += "print('MEMLIMITS_CHILDREN' in os.environ, 'memlimits' in sys.modules)\\n"
        code += "sys.stdout.flush(); sys.stdin.read()"
        child = subprocess.Popen(["other/bin/python", "-c", code],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"True False\\n"
        """
    said = run(source, expected=False).stderr.splitlines()
    line = "1 Python process below was not governed at the end: memlimits was not loaded there"
    assert said[2:] == [f"memlimits: {line}"]


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
