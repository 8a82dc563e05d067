"""Programs that fail under `memlimits run` and under the interpreter alone."""

import pytest

from support.commands import assert_same, write

pytestmark = pytest.mark.usefixtures("buffered_streams")

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
