"""A program under `memlimits run` against the same program under the interpreter alone."""

import os
import py_compile
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

RUN = ("-m", "memlimits", "run")


def execute(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        timeout=60,
        **{"input": b"some input\n", **options},
    )


def without_report(stderr):
    """Cut the report off, which has to be there and to be the last thing."""
    program, mark, report = stderr.partition(b"memlimits: peak ")
    assert mark
    assert all(line.startswith(b"memlimits: ") for line in report.splitlines()[1:])
    return program


def without_addresses(output):
    return re.sub(rb"0x[0-9a-f]+", b"0x", output)


def assert_same(cwd, *words, command=RUN, **options):
    """Compare everything that a caller can see, and return what the interpreter gave."""
    plain = execute(*words, cwd=cwd, **options)
    ours = execute(*command, *words, cwd=cwd, **options)
    assert without_addresses(without_report(ours.stderr)) == without_addresses(plain.stderr)
    assert without_addresses(ours.stdout) == without_addresses(plain.stdout)
    assert ours.returncode == plain.returncode
    return plain


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


@pytest.fixture(autouse=True)
def buffered_streams(monkeypatch):
    """With this set, the order in which buffers are flushed would not show."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["a", "b c", ""],
        ["-x", "--memory-limit", "1GiB", "--help", "-m", "json"],
        ["--"],
        ["--", "-x", "--", "y"],
        ["-", "-h", "--report=x", "--version"],
    ],
)
@pytest.mark.parametrize("how", [["./show.py"], ["-m", "show"], ["-mshow"]], ids="_".join)
def test_arguments_are_passed_on(tmp_path, how, args):
    write(tmp_path / "show.py", "import sys; print(sys.argv)")
    plain = assert_same(tmp_path, *how, *args)
    assert repr(args)[1:].encode() in plain.stdout


# A shell may start the tests with interrupts ignored.
TAKES_INTERRUPTS = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
INTERRUPTED = TAKES_INTERRUPTS + "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(None)", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(-1)", 255),
        ("import sys; sys.exit(256 + 7)", 7),
        ("import sys; sys.exit(True)", 1),
        ("import sys; sys.exit('so long')", 1),
        ("import sys; sys.exit((1, 'two'))", 1),
        ("raise SystemExit", 0),
        ("exit(4)", 4),
        ("class Quit(SystemExit): pass\nraise Quit(9)", 9),
        ("def f():\n  try: 1 / 0\n  finally: raise SystemExit(5)\nf()", 5),
        ("raise ValueError('no')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        (INTERRUPTED, -signal.SIGINT),
        ("class Stop(KeyboardInterrupt): pass\nraise Stop", 1),
        ("raise GeneratorExit", 1),
        ("import sys; sys.stdout.close()", 0),
        ("import sys; sys.stderr.close()", 0),
        ("import sys; sys.stdout = sys.stderr = None", 0),
        ("import atexit; atexit.register(lambda: 1 / 0)", 0),
    ],
)
def test_exit_status(tmp_path, source, status):
    write(tmp_path / "program.py", source)
    assert assert_same(tmp_path, "program.py").returncode == status


@pytest.mark.parametrize(
    ("end", "status"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 15)", -15), ("os.abort()", -6)]
)
def test_a_program_that_ends_at_once_does_so(tmp_path, end, status):
    write(tmp_path / "program.py", f"import os; {end}")
    ours = execute(*RUN, "program.py", cwd=tmp_path)
    assert (ours.returncode, ours.stderr) == (status, b"")


FAILURES = {
    "nested": """
        def inner(n):
            return n / 0 if n == 0 else inner(n - 1)

        def outer():
            inner(3)

        outer()
        """,
    "cause": """
        def f():
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("a", "b") from error
        f()
        """,
    "context": """
        try:
            int("x")
        finally:
            [].pop()
        """,
    "suppressed": """
        try:
            int("x")
        except ValueError:
            raise TypeError from None
        """,
    "group": """
        def f(x):
            raise ValueError(x)

        errors = []
        for x in range(3):
            try:
                f(x)
            except ValueError as error:
                error.add_note(f"note {x}")
                errors.append(error)
        raise ExceptionGroup("three", [*errors[:1], ExceptionGroup("two", errors[1:])])
        """,
    "raised again": """
        def f():
            raise ValueError

        try:
            f()
        except ValueError as error:
            kept = error
        raise kept
        """,
    "from a library": """
        import json
        json.loads("{")
        """,
    "no text": """
        class Bad(Exception):
            def __str__(self):
                raise ValueError
        raise Bad
        """,
    "generator": """
        def g():
            yield 1
            raise StopIteration
        list(g())
        """,
    "name hint": """
        value = 1
        print(valeu)
        """,
    "from text": "exec('1 / 0')",
    "syntax of an import": "import broken",
    "thread": """
        import threading
        def f():
            1 / 0
        thread = threading.Thread(target=f)
        thread.start()
        thread.join()
        """,
    "unraisable": """
        class C:
            def __del__(self):
                1 / 0
        C()
        """,
    "hook": """
        import sys, traceback

        def hook(kind, error, tb):
            print("hook", kind, error, error.__traceback__ is tb, sys.excepthook is hook)
            traceback.print_tb(tb, file=sys.stdout)
            print(sys.last_type, sys.last_value is error, sys.last_traceback is tb)
            print(sys.exc_info())

        sys.excepthook = hook
        1 / 0
        """,
    "hook that fails": """
        import sys

        def fail(*_):
            raise RuntimeError("in the hook")

        def hook(kind, error, tb):
            fail()

        sys.excepthook = hook
        1 / 0
        """,
    "hook that exits": """
        import sys
        sys.excepthook = lambda *_: sys.exit(6)
        1 / 0
        """,
    "hook seen at exit": """
        import atexit, sys, traceback
        def show():
            print(sys.excepthook is sys.__excepthook__, sys.last_value)
            print("".join(traceback.format_exception(sys.last_value)))
            traceback.print_last(file=sys.stdout)
        atexit.register(show)
        1 / 0
        """,
    "warning": """
        import warnings
        def f():
            warnings.warn("old", DeprecationWarning)
            warnings.warn("caller", stacklevel=2)
        f()
        """,
    "warning as error": """
        import warnings
        warnings.simplefilter("error")
        warnings.warn("old")
        """,
    "indentation": "if 1:\nx = 1",
    "missing bracket": "print('never')\nx = (1,\ny = 2\n",
    "unterminated": "x = '''abc\n\n",
    "two lines": "f(1\n  2)\n",
    "not ascii": "caf\u00e9 = 'caf\u00e9' caf\u00e9\n",
    "late": "def f():\n    return\nreturn 1\n",
    "future": "x = 1\nfrom __future__ import annotations\n",
    "questionable": "assert (1, 'always true')\nx = '\\d' is 1\n",
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("how", ["script", "module"])
def test_tracebacks(tmp_path, name, how):
    write(tmp_path / "program.py", FAILURES[name])
    write(tmp_path / "broken.py", "def f(:\n")
    plain = assert_same(tmp_path, *(["program.py"] if how == "script" else ["-m", "program"]))
    assert plain.stderr or plain.stdout or "exits" in name


SHOW_MAIN = """
    import sys
    import __main__

    def show(value):
        if type(value).__name__.endswith("Loader") or type(value).__name__ == "zipimporter":
            return type(value), vars(value) if hasattr(value, "__dict__") else value
        return value

    for name, value in list(globals().items()):
        print(name, "=", show(value))
    print(__main__ is sys.modules["__main__"], vars(__main__) is globals())
    print(type(__main__), repr(__main__))
    print(sys.argv, sys.path)
    print(sys.exc_info(), sys.flags)
    try:
        import sibling
        print(sibling)
    except ImportError as error:
        print(error)
    """


@pytest.fixture
def forms(tmp_path):
    """A directory with one program in every form that the interpreter runs."""
    script = write(tmp_path / "there" / "script.py", SHOW_MAIN)
    write(tmp_path / "there" / "sibling.py", "")
    write(tmp_path / "sibling.py", "")
    write(tmp_path / "package" / "__init__.py", "import sys; print('package', sys.argv)")
    write(tmp_path / "package" / "__main__.py", SHOW_MAIN)
    write(tmp_path / "package" / "module.py", "from . import __name__ as n; print(n)\n")
    write(tmp_path / "package" / "deep.py", SHOW_MAIN)
    write(tmp_path / "plain" / "empty.txt", "")
    write(tmp_path / "failing" / "__init__.py", "1 / 0")
    write(tmp_path / "lacking" / "__init__.py", "import nonesuch")
    write(tmp_path / "raising" / "__main__.py", "def f():\n    1 / 0\nf()\n")
    write(tmp_path / "no_suffix", SHOW_MAIN)
    write(tmp_path / "sp\u00e4ce in name.py", SHOW_MAIN)
    (tmp_path / "link.py").symlink_to(script)
    (tmp_path / "linked").symlink_to("there")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfprint(ascii('\xc3\xa9'))\r\n")
    py_compile.compile(script, tmp_path / "compiled.pyc", doraise=True)
    (tmp_path / "compiled").write_bytes((tmp_path / "compiled.pyc").read_bytes())
    for name, source in {"program.zip": SHOW_MAIN, "raising.zip": "def f(): 1 / 0\nf()"}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("__main__.py", textwrap.dedent(source))
            archive.writestr("sibling.py", "")
    (tmp_path / "app").write_bytes(b"#!python\n" + (tmp_path / "program.zip").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["there/script.py"],
        ["./there/../there//script.py", "-x"],
        ["link.py"],
        ["linked/script.py"],
        ["no_suffix"],
        ["sp\u00e4ce in name.py"],
        ["latin.py"],
        ["bom.py"],
        ["compiled.pyc"],
        ["compiled"],
        ["package", "a"],
        ["package/"],
        ["program.zip", "-x"],
        ["app"],
        ["raising"],
        ["raising.zip"],
        ["plain"],
        ["-m", "package", "-x"],
        ["-m", "package.module"],
        ["-m", "package.deep", "a"],
        ["-m", "nonesuch"],
        ["-m", "package.nonesuch"],
        ["-m", "plain"],
        ["-m", "failing"],
        ["-m", "failing.module"],
        ["-m", "lacking"],
        ["-m", "package.module.more"],
        ["-m", "package.deep.py"],
        ["-m", "./package"],
        ["-m", ""],
        ["-m", "json.tool", "-h"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("safe_path", ["", "1"])
def test_every_form_of_program(forms, words, safe_path):
    env = {**os.environ, "PYTHONSAFEPATH": safe_path, "PYTHONIOENCODING": "utf-8"}
    assert_same(forms, *words, env=env)


def test_absolute_script_from_elsewhere(forms, tmp_path_factory):
    plain = assert_same(tmp_path_factory.mktemp("elsewhere"), forms / "there" / "script.py")
    assert b"sibling.py" in plain.stdout


def test_script_of_a_pipe():
    plain = assert_same("/", "/dev/stdin", input=b"import sys; print(sys.argv, __file__); 1 / 0\n")
    assert plain.stdout == b"['/dev/stdin'] /dev/stdin\n"


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_installed_command_leaves_no_trace_in_the_path(forms, safe_path):
    """What a package installer puts into ``bin`` is a script of these lines."""
    command = write(
        forms / "bin" / "memlimits", "import sys\nfrom memlimits.cli import main\nsys.exit(main())"
    )
    env = {**os.environ, "PYTHONSAFEPATH": safe_path}
    for words in (["there/script.py", "-x"], ["-m", "package"], ["program.zip"], ["raising"]):
        assert_same(forms, *words, command=(command, "run"), env=env)


@pytest.mark.parametrize("name", ["nonesuch.py", "no/such.py", "there/script.py/x", "-"])
def test_script_that_does_not_exist(forms, name):
    plain = execute(name if name != "-" else "./-", cwd=forms)
    ours = execute(*RUN, "--", name, cwd=forms)
    assert ours.returncode == plain.returncode == 2
    message = plain.stderr.partition(b": ")[2].replace(b"/./", b"/")
    assert ours.stderr == b"memlimits: " + message
    assert ours.stdout == b""


BEHAVIOUR = {
    "input": "print(input()); print(open(0).read())",
    "output without a newline": "print('x', end=''); print('y' * 100_000)",
    "output to both": """
        import sys
        for n in range(3):
            print(n)
            print(n, file=sys.stderr)
        """,
    "pickle": """
        import pickle
        class C:
            pass
        def f():
            return "f"
        print(type(pickle.loads(pickle.dumps(C()))) is C, pickle.loads(pickle.dumps(f))())
        """,
    "source": """
        import inspect
        def f():
            return 1
        print(inspect.getsource(f), inspect.getmodule(f))
        """,
    "threads outlive the script": """
        import threading, time
        def work():
            threading.main_thread().join()
            print("thread", __name__, threading.current_thread().name)
        threading.Thread(target=work).start()
        print("end of script")
        """,
    "threads outlive an exception": """
        import threading
        def work():
            threading.main_thread().join()
            print("thread")
        threading.Thread(target=work).start()
        1 / 0
        """,
    "exit": """
        import atexit, sys
        atexit.register(print, "registered first")
        atexit.register(lambda: print("registered last", __name__, file=sys.stderr))
        class C:
            def __del__(self):
                print("deleted")
        kept = C()
        print("end of script")
        """,
    "hook seen after sys.exit": """
        import atexit, sys
        atexit.register(lambda: print(sys.excepthook is sys.__excepthook__))
        sys.exit(3)
        """,
    "executor": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        future = pool.submit(lambda: sum(range(10)))
        future.add_done_callback(lambda f: print(f.result()))
        """,
    "fork": """
        import os, sys, atexit
        atexit.register(lambda: print("exit of", "parent" if child else "child", flush=True))
        child = os.fork()
        if child == 0:
            sys.exit(3)
        print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """,
    "fork that fails": """
        import os
        child = os.fork()
        if child == 0:
            1 / 0
        os.waitpid(child, 0)
        """,
    "asyncio": """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            raise ValueError
        asyncio.run(main())
        """,
    "run again": """
        import runpy, sys
        if len(sys.argv) == 1:
            sys.argv.append("again")
            print(runpy.run_path(__file__, run_name="__main__")["__name__"])
        print(sys.argv[1:], __name__)
        """,
    "subprocess": """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import sys; print(sys.path[0], sys.argv)"])
        """,
}


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_behaviour(tmp_path, name):
    write(tmp_path / "program.py", BEHAVIOUR[name])
    plain = assert_same(tmp_path, "program.py")
    assert plain.stdout or plain.stderr


MULTIPROCESSING = """
    import multiprocessing, sys

    class Point:
        def __init__(self, x):
            self.x = x
        def __eq__(self, other):
            return type(self) is type(other) and self.x == other.x

    def double(point):
        return Point(2 * point.x)

    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print(pool.map(double, [Point(1), Point(2)]) == [Point(2), Point(4)])
            print(pool.apply(double, [Point(5)]).x)
    """


@pytest.mark.parametrize(
    "words",
    [
        ["program.py", "spawn"],
        ["program.py", "fork"],
        ["program.py", "forkserver"],
        ["-m", "program", "spawn"],
        ["-m", "program", "fork"],
        ["-m", "program", "forkserver"],
        ["app", "fork"],  # Of a directory, multiprocessing finds __main__ again only in a fork.
    ],
    ids=" ".join,
)
def test_multiprocessing_of_what_the_program_defines(tmp_path, words):
    write(tmp_path / "program.py", MULTIPROCESSING)
    write(tmp_path / "app" / "__main__.py", MULTIPROCESSING)
    assert assert_same(tmp_path, *words).stdout == b"True\n10\n"


def test_interrupt_from_outside(tmp_path):
    source = """
        import time
        try:
            print("ready", flush=True) or time.sleep(60)
        finally:
            print("cleaned up")
        """
    write(tmp_path / "program.py", TAKES_INTERRUPTS + textwrap.dedent(source))
    outcomes = []
    for words in ((), RUN):
        process = subprocess.Popen(
            [sys.executable, *words, "program.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        stderr = without_report(stderr) if words else stderr
        # It may have come a moment before the sleep.
        outcomes.append((process.returncode, stdout, re.sub(rb" +[~^]+\n", b"", stderr)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][:2] == (-signal.SIGINT, b"cleaned up\n")


def test_deleted_working_directory(tmp_path):
    script = write(tmp_path / "program.py", "import sys; print(sys.argv, sys.path[0])")
    vanish = "mkdir gone && cd gone && rmdir ../gone"
    outcomes = [
        subprocess.run(
            ["sh", "-c", f'{vanish} && exec "$@"', "sh", sys.executable, *words, script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONSAFEPATH": ""},
            capture_output=True,
            timeout=60,
        )
        for words in ((), RUN)
    ]
    assert outcomes[0].returncode == outcomes[1].returncode == 0
    assert outcomes[0].stdout == outcomes[1].stdout


def test_helpers_notice_a_missing_report():
    with pytest.raises(AssertionError):
        without_report(b"nothing of ours\n")
    with pytest.raises(AssertionError):
        without_report(b"memlimits: peak 0 B\nprinted after the report\n")
    assert Path(sys.executable).exists()
