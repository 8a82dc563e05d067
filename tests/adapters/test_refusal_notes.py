"""Errors of what was refused: a note says what the limits were, and `is_refusal` which they are."""

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import io
import logging
import pickle
import subprocess
import sys
import sysconfig
import threading
import traceback

import numpy as np
import pytest

import memlimits
from memlimits.errors import is_refusal
from support.errors import error_of
from support.units import MIB

HELD, LIMIT, MORE = 40 * MIB, 64 * MIB, 50 * MIB
NOTE = "memlimits: refused 50 MiB (52,428,800 bytes) to NumPy: memory limit 64 MiB (strict), in use"


@pytest.fixture(autouse=True)
def held(govern):
    """An array beside which one of MORE bytes does not fit."""
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(LIMIT)
    array = np.zeros(HELD, np.uint8)
    yield
    del array


def more(n=MORE):
    return np.empty(n, np.uint8)


def notes(error):
    return getattr(error, "__notes__", [])


def test_a_note_says_to_whom_by_which_limit_and_what_was_in_use():
    [note] = notes(error_of(more))
    assert note.startswith(NOTE)
    in_use = float(note.removeprefix(NOTE).removesuffix(" MiB"))
    assert 40 <= in_use <= 64


def of_one_column(n):
    return np.broadcast_to(np.uint8(1), (n,))


async def awaited():
    await asyncio.sleep(0)
    return more()


def in_thread_pool():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(more).result()


NAMES = {"dtype": np.uint8}

ways = {
    "call": lambda: np.empty(MORE, np.uint8),
    "call with names": lambda: np.empty(shape=MORE, dtype=np.uint8),
    "call with stars": lambda: np.empty(*(MORE,), **NAMES),
    "method": lambda: of_one_column(MORE).copy(),
    "through Python's code of NumPy's": lambda: np.ones(MORE, np.uint8),
    "operator": lambda: of_one_column(MORE) + np.uint8(1),
    "negation": lambda: ~of_one_column(MORE),
    "comparison": lambda: of_one_column(MORE) == 1,
    "subscript": lambda: of_one_column(MORE)[of_one_column(MORE).view(bool)],
    "attribute": lambda: of_one_column(MORE).imag,
    "iteration": lambda: [None for _ in map(more, [MORE])],
    "iteration over C": lambda: [None for _ in map(np.empty, [MORE], [np.uint8])],
    "generator": lambda: next(np.empty(n, np.uint8) for n in [MORE]),
    "unpacking": lambda: [*map(np.empty, [MORE], [np.uint8])],
    "key": lambda: sorted([MORE, 1], key=more),
    "code that is compiled then": lambda: exec("numpy.empty(n, 'u1')", {"n": MORE, "numpy": np}),
    "coroutine": lambda: asyncio.run(awaited()),
    "pool of threads": in_thread_pool,
}


@pytest.mark.parametrize("way", ways.values(), ids=ways)
def test_it_is_told_however_the_memory_was_asked_for(way):
    error = error_of(way)
    [note] = notes(error)
    assert note.startswith(NOTE)
    assert is_refusal(error)


def test_a_growing_list_of_wide_instructions():
    """Where arguments of instructions need prefixes of their own."""
    names = "\n".join(f"    x{i} = {i}.5" for i in range(300))
    text = f"def wide(more, n):\n{names}\n    more, y = more, more(n)\n    return y\n"
    scope = {}
    exec(text, scope)
    [note] = notes(error_of(scope["wide"], np.empty, MORE // 8))
    assert note.startswith(NOTE)


@pytest.mark.parametrize("looked", [1, 2, 3])
def test_it_is_told_once(looked):
    error = error_of(more)
    for _ in range(looked):
        assert len(error.__notes__) == 1
    assert is_refusal(error)


def test_it_comes_before_the_programs_own():
    error = error_of(more)
    error.add_note("of the program's own")
    ours, theirs = error.__notes__
    assert ours.startswith(NOTE)
    assert theirs == "of the program's own"


def test_each_of_several_has_its_own_numbers():
    errors = [error_of(more, n * MIB) for n in (50, 60, 55)]
    group = ExceptionGroup("all of them", errors)
    shown = "".join(traceback.format_exception(group))
    found = [line for line in shown.splitlines() if "memlimits: refused" in line]
    assert [line.split("refused ")[1].split(" (")[0] for line in found] == [
        "50 MiB",
        "60 MiB",
        "55 MiB",
    ]
    assert is_refusal(group)


def test_errors_of_one_place_and_size_each_have_one():
    errors = [error_of(more) for _ in range(4)]
    assert [len(notes(error)) for error in errors] == [1] * 4


def test_errors_of_one_place_and_threads_each_have_one():
    errors = []
    threads = [threading.Thread(target=lambda: errors.append(error_of(more))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(notes(error)) for error in errors] == [1] * 4


def overflowing(n):
    return [0] * n


def misses(key):
    return {}[key]


others = {
    "the program's own MemoryError": lambda: exec("raise MemoryError('mine')"),
    "without a text": lambda: exec("raise MemoryError"),
    "longer than any list": lambda: overflowing(sys.maxsize),
    "another type": lambda: misses("memory"),
    "another argument": lambda: more(-1),
    "words": lambda: exec("raise RuntimeError('out of memory: cannot allocate')"),
}


@pytest.mark.parametrize("other", others.values(), ids=others)
def test_others_errors_are_none(other):
    """Even where something was refused right before, whose error nobody looked at."""
    error_of(more)
    error = error_of(other)
    assert not hasattr(error, "__notes__")
    assert not is_refusal(error)


def test_what_comes_next_in_the_same_function_is_none():
    def both():
        with contextlib.suppress(MemoryError):
            more()
        with contextlib.suppress(MemoryError):
            np.empty(MORE, np.uint8)
        return overflowing(1) * sys.maxsize

    error = error_of(both)
    assert isinstance(error, MemoryError)
    assert not is_refusal(error)


def test_what_happens_while_one_is_handled_is_none():
    def handled():
        try:
            more()
        except MemoryError:
            misses("key")

    error = error_of(handled)
    assert not is_refusal(error)
    assert not hasattr(error, "__notes__")
    assert notes(error.__context__)


def converted(from_it):
    try:
        more()
    except MemoryError as error:
        if from_it:
            raise ValueError("the file is damaged") from error
        raise ValueError("out of memory") from None


@pytest.mark.parametrize("from_it", [True, False])
def test_what_was_raised_from_one_is_one(from_it):
    assert is_refusal(error_of(converted, from_it)) is from_it


def test_what_says_so_and_was_raised_instead_of_one_is_one():
    def instead():
        try:
            more()
        except MemoryError:
            raise ValueError("Out of memory")  # noqa: B904

    assert is_refusal(error_of(instead))


def test_causes_in_a_circle_end():
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert not is_refusal(one)


def test_a_memory_limit_error_says_its_numbers_itself():
    error = error_of(memlimits.allocate, MORE)
    assert is_refusal(error)
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("value", [None, MemoryError, "MemoryError", 0])
def test_what_is_no_exception(value):
    with pytest.raises(TypeError, match="exception must be an exception, not "):
        is_refusal(value)


def test_a_bad_str_is_nobodys_error():
    class BadError(Exception):
        def __str__(self):
            raise KeyError

    def bad():
        raise BadError

    error_of(more)
    error = error_of(bad)
    assert not is_refusal(error)
    assert not hasattr(error, "__notes__")


def test_it_travels_between_processes_once_it_was_looked_at():
    error = error_of(more)
    expected = notes(error)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.__notes__ == expected
    assert is_refusal(copy)


def test_logging_has_it():
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        more()
    except MemoryError:
        logger.exception("it failed")
    assert NOTE in stream.getvalue()


def test_the_hook_of_threads_has_it():
    thread = threading.Thread(target=more)
    hook, threading.excepthook = threading.excepthook, threading.__excepthook__
    try:
        with contextlib.redirect_stderr(io.StringIO()) as stream:
            thread.start()
            thread.join()
    finally:
        threading.excepthook = hook
    assert stream.getvalue().count(NOTE) == 1


def test_a_chain_shows_each_at_its_own():
    def chained():
        try:
            more(60 * MIB)
        except MemoryError:
            more()

    shown = "".join(traceback.format_exception(error_of(chained)))
    first, second = shown.split("During handling of the above exception")
    assert "refused 60 MiB" in first
    assert "refused 50 MiB" in second
    assert shown.count("memlimits: refused") == 2


# ---- notes of others go on as they were ----


def test_notes_of_the_programs_own_are_as_always():
    error = ValueError("x")
    assert not hasattr(error, "__notes__")
    with pytest.raises(AttributeError, match="'ValueError' object has no attribute '__notes__'"):
        error.__notes__  # noqa: B018
    error.add_note("one")
    assert error.__notes__ == error.__dict__["__notes__"] == ["one"]
    error.__notes__ = ["two"]
    assert vars(error) == {"__notes__": ["two"]}
    del error.__notes__
    assert vars(error) == {}
    with pytest.raises(AttributeError):
        del error.__notes__


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, ExceptionGroup])
def test_all_types_of_exceptions_have_them(kind):
    error = kind("x", [ValueError()]) if kind is ExceptionGroup else kind("x")
    error.add_note("one")
    assert error.__notes__ == ["one"]
    assert traceback.format_exception_only(error)[1] == "one\n"


def test_what_a_class_does_with_its_own_notes_stays():
    class OwnError(MemoryError):
        @property
        def __notes__(self):
            return ["its own"]

    def raised():
        raise OwnError

    assert error_of(raised).__notes__ == ["its own"]


def test_notes_that_are_no_list_stay():
    error = error_of(more)
    error.__dict__["__notes__"] = ("a tuple",)
    assert error.__notes__ == ("a tuple",)


WENT_ON = """
#include <Python.h>
static PyObject *call(PyObject *module, PyObject *args)
{
    (void)module;
    Py_XDECREF(PyObject_Call(PyTuple_GET_ITEM(args, 0), PyTuple_GET_ITEM(args, 1), NULL));
    Py_RETURN_NONE;
}
static PyMethodDef methods[] = {{"call", call, METH_VARARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "went_on", "", -1, methods,
                                        NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_went_on(void) { return PyModule_Create(&definition); }
"""


@pytest.mark.skipif("t" in sys.abiflags, reason="the module would turn the GIL on")
def test_what_c_code_went_on_with_has_the_note(tmp_path):
    """As OpenCV does: the interpreter says so, from an error that has no traceback."""
    source, module = tmp_path / "went_on.c", tmp_path / "went_on.so"
    source.write_text(WENT_ON)
    include = sysconfig.get_paths()["include"]
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", source, "-o", module], check=True)
    spec = importlib.util.spec_from_file_location("went_on", module)
    went_on = importlib.util.module_from_spec(spec)
    error = error_of(lambda: went_on.call(np.empty, (MORE, np.uint8)))
    assert isinstance(error, SystemError)
    assert error.__cause__.__traceback__ is None
    [note] = notes(error)
    assert note.startswith(NOTE)
    assert is_refusal(error)
    assert "".join(traceback.format_exception(error)).count(NOTE) == 1


def test_what_else_c_code_went_on_with_has_none():
    error = SystemError("returned a result with an exception set")
    error.__cause__ = MemoryError()
    with pytest.raises(SystemError):
        raise error
    assert not is_refusal(error)
    assert notes(error) == notes(error.__cause__) == []
