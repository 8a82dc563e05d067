"""`memlimits run` and NumPy: governed from its first import on, and never imported before."""

import os
import re
import subprocess
import sys
import textwrap

import numpy
import pytest

from support.commands import RUN, assert_same, execute, without_report, write

pytestmark = pytest.mark.usefixtures("buffered_streams")

IS_GOVERNED = """
def is_governed(numpy):
    import memlimits
    before = memlimits.get_active_memory()
    array = numpy.empty(3 << 20, numpy.uint8)
    # Python's own objects count, too.
    return 0 <= memlimits.get_active_memory() - before - array.nbytes < 1 << 20
"""


def run(directory, source, *options, code=0, **keywords):
    (directory / "program.py").write_text(IS_GOVERNED + textwrap.dedent(source))
    done = execute(*RUN, *options, "program.py", cwd=directory, **keywords)
    assert done.returncode == code, done.stderr
    return done.stdout.decode()


def test_numpy_is_not_imported_before_the_program_does(tmp_path):
    write(tmp_path / "program.py", "import sys; print('numpy' in sys.modules)")
    assert assert_same(tmp_path, "program.py").stdout == b"False\n"


@pytest.mark.parametrize("threads", ["1", "3"])
def test_what_the_program_sets_in_the_environment_first_counts(tmp_path, threads):
    source = f"""
        import os
        os.environ["OPENBLAS_NUM_THREADS"] = {threads!r}
        import numpy
        print(len(os.listdir("/proc/self/task")))
        """
    write(tmp_path / "program.py", source)
    env = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    assert_same(tmp_path, "program.py", env=env)


def after_one_without(module):
    return f"""
        import sys
        sys.modules["{module}"] = None
        try:
            import numpy
        except ImportError:
            del sys.modules["{module}"]
        import numpy
        """


IMPORTS = {
    "plain": "import numpy",
    "of a name": "from numpy import ones; import sys; numpy = sys.modules['numpy']",
    "of a part": "import numpy.linalg",
    "of a private part": "import numpy._core._multiarray_umath; import numpy",
    "by a function": "import importlib; numpy = importlib.import_module('numpy')",
    "by another": "numpy = __import__('numpy')",
    "in a function": "def f():\n    import numpy\n    return numpy\nnumpy = f()",
    "in text": "exec('import numpy')",
    "in a thread": """
        import threading
        def work():
            global numpy
            import numpy
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
    "by a loader of one's own": """
        import importlib.util, sys
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "numpy":
                    sys.meta_path.remove(Finder)
                    return importlib.util.find_spec("numpy")
        sys.meta_path.insert(0, Finder)
        import numpy
        """,
    "lazily by importlib": """
        import importlib.util, sys
        spec = importlib.util.find_spec("numpy")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        numpy = sys.modules["numpy"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(numpy)
        numpy.ones
        """,
    "after one that failed": after_one_without("numpy.version"),
    "after one that failed once all of its C code was there": after_one_without(
        "numpy.lib._npyio_impl"
    ),
    "after one that failed in its core": after_one_without("numpy._pytesttester"),
    "after two that a signal ended": """
        import sys
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "numpy.matrixlib":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Finder)
        for _ in range(2):
            try:
                import numpy
            except KeyboardInterrupt:
                pass
        sys.meta_path.remove(Finder)
        import numpy
        """,
    "by reload": "import importlib, numpy; importlib.reload(numpy)",
}
if sys.version_info >= (3, 15):
    IMPORTS["lazy"] = "lazy import numpy"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", IMPORTS)
def test_numpy_is_governed_from_its_import_on(tmp_path, how):
    if "failed" in how:
        write(tmp_path / "plain.py", IMPORTS[how])
        if execute("-W", "ignore", "plain.py", cwd=tmp_path).returncode:
            pytest.skip("this NumPy cannot be imported after that, without memlimits either")
    source = textwrap.dedent(IMPORTS[how]) + "\nprint(is_governed(numpy))"
    assert run(tmp_path, source, "-W", "ignore").splitlines()[-1] == "True"


def test_no_thread_gets_numpy_before_it_is_governed(tmp_path):
    source = """
        import threading
        barrier, seen = threading.Barrier(8), []
        def work():
            barrier.wait()
            import numpy
            from numpy._core.multiarray import get_handler_name
            array = numpy.empty(1 << 20, numpy.uint8)
            import memlimits
            seen.append(memlimits.get_active_memory() >= array.nbytes)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(seen == [True] * 8)
        """
    assert run(tmp_path, source) == "True\n"


LOOKS = """
    import sys
    print(sys.meta_path, sys.path_hooks)
    import importlib.util
    print(type(importlib.util.find_spec("numpy")), importlib.util.find_spec("numpy"))
    import _imp
    print(_imp.exec_dynamic, _imp.exec_dynamic.__name__, _imp.exec_dynamic.__doc__)
    import numpy
    print(type(numpy.__spec__), numpy.__spec__, numpy.__loader__, numpy.__file__)
    print(type(numpy.__spec__).__mro__, numpy.__spec__._initializing, vars(numpy.__spec__).keys())
    print(list(vars(numpy)) [:8], sys.meta_path)
    import pkgutil
    print(sorted(name for _, name, _ in pkgutil.iter_modules(numpy.__path__)))
    """


def test_nothing_that_a_program_can_look_at_shows_the_watch(tmp_path):
    write(tmp_path / "program.py", LOOKS)
    assert_same(tmp_path, "program.py")


def test_a_copy_of_numpy_that_the_program_brings(tmp_path):
    (tmp_path / "vendored").mkdir()
    (tmp_path / "vendored" / "numpy").symlink_to(os.path.dirname(numpy.__file__))
    source = """
        import sys
        sys.path.insert(0, "vendored")
        import numpy
        print(numpy.__path__[0].endswith("vendored/numpy"), is_governed(numpy))
        """
    assert run(tmp_path, source) == "True True\n"


# Modules of the standard library that the command itself, or the interpreter for it, may import.
# What installers wrote imports more than it needs.
COMMAND = "import re, sys, json, threading; from memlimits.cli import main; sys.exit(main())"
TAKEN = "argparse atexit_ collections contextlib difflib enum functools importlib_ json keyword "
TAKEN += "numbers operator queue random re reprlib secrets signal struct threading token types "
TAKEN += "typing warnings weakref"


@pytest.mark.parametrize("name", TAKEN.split())
@pytest.mark.parametrize("how", [["program.py"], ["-c", "import program"]], ids=["script", "code"])
def test_the_programs_own_module_of_a_name_of_the_standard_library(tmp_path, name, how):
    write(tmp_path / f"{name}.py", "print('mine')")
    write(tmp_path / "program.py", f"import sys; sys.stdout.flush(); import {name}")
    # With `python -m memlimits` the interpreter itself would find it first.
    command = write(tmp_path / "bin" / "memlimits", COMMAND)
    done = execute(command, "run", "--memory-limit=1GiB", *how, cwd=tmp_path)
    plain = execute(*how, cwd=tmp_path)
    # The interpreter compares with the directory of the script that it was started with.
    expected = re.sub(rb" \(consider renaming .*\)", b"", plain.stderr)
    assert (done.stdout, without_report(done.stderr)) == (plain.stdout, expected)


@pytest.mark.parametrize("options", [["-S"], ["-I", "-S"], ["-E", "-s", "-S"]], ids="".join)
def test_without_numpy_a_program_runs_as_it_would(tmp_path, options):
    source = """
        print("before")
        try:
            import numpy
        except ModuleNotFoundError as error:
            print(error)
        """
    write(tmp_path / "program.py", source)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    plain = execute(*options, "program.py", cwd=tmp_path, env=env)
    assert plain.stdout == b"before\nNo module named 'numpy'\n"
    ours = execute(*RUN, *options, "program.py", cwd=tmp_path)
    assert (ours.stdout, without_report(ours.stderr)) == (plain.stdout, plain.stderr)


@pytest.mark.parametrize("source", ["raise ModuleNotFoundError('gone', name='numpy')", "1 / 0", ""])
def test_another_module_called_numpy_is_the_programs(tmp_path, source):
    write(tmp_path / "numpy.py", source)
    write(tmp_path / "program.py", "import numpy; print(numpy.__file__)")
    assert_same(tmp_path, "program.py")


def test_where_governing_fails_the_program_goes_on_and_that_is_said(tmp_path):
    source = """
        import memlimits
        memlimits.govern_numpy = None
        import numpy
        print(numpy.ones(3).sum())
        """
    write(tmp_path / "program.py", source)
    done = subprocess.run(
        [sys.executable, *RUN, "program.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "3.0\n")
    assert done.stderr.startswith("memlimits: NumPy is not governed: TypeError: ")
