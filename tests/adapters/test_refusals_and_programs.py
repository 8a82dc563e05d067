"""Who looks for a refusal calls nothing of a program's classes, and its own errors are none."""

import contextlib
import ctypes

import numpy as np
import pytest

import memlimits
from memlimits.errors import is_refusal
from support.commands import RUN, execute, write
from support.errors import error_of
from support.units import MIB

LIMIT, MORE = 64 * MIB, 80 * MIB

SET_STRING = ctypes.pythonapi.PyErr_SetString
SET_OBJECT = ctypes.pythonapi.PyErr_SetObject

called = []


@pytest.fixture(autouse=True)
def strict(govern):
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(LIMIT)
    called.clear()


def more(n=MORE):
    return np.empty(n, np.uint8)


def is_called(*args):
    called.append(args)
    raise SystemExit(3)


def at_a_place(function, *args):
    return function(*args)


def error_at_a_place_of_a_refusal(kind, text="cannot allocate memory"):
    """Of C code, where an error that nobody looked at left its refusal."""
    error_of(at_a_place, np.empty, MORE, np.uint8)
    return error_of(at_a_place, SET_STRING, ctypes.py_object(kind), text.encode())


class WithStrError(MemoryError):
    __str__ = is_called


class WithArgsError(MemoryError):
    args = property(is_called)


class WithOtherArgsError(MemoryError):
    args = 5


class WithTracebackError(MemoryError):
    __traceback__ = property(is_called)


class WithDictError(MemoryError):
    __dict__ = property(is_called)


class WithCauseError(MemoryError):
    __cause__ = "why"
    __context__ = 5
    __suppress_context__ = property(is_called)


class WithClassError(MemoryError):
    __class__ = property(is_called)


class WithMembers(ExceptionGroup):
    exceptions = property(is_called)


class WithOtherMembers(ExceptionGroup):
    exceptions = ("text",)


KINDS = [
    WithStrError,
    WithArgsError,
    WithOtherArgsError,
    WithTracebackError,
    WithDictError,
    WithCauseError,
    WithClassError,
]
GROUPS = [WithMembers, WithOtherMembers]


@pytest.mark.parametrize("kind", [*KINDS, *GROUPS])
def test_nothing_of_a_class_is_called_to_look(kind):
    error_of(more)
    error = kind("x", [ValueError()]) if kind in GROUPS else kind("x")
    with contextlib.suppress(kind):
        raise error
    assert not is_refusal(error)
    assert not hasattr(error, "__notes__")
    assert called == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_c_code_is_told_whatever_its_class_says(kind):
    error = error_at_a_place_of_a_refusal(kind)
    [note] = error.__notes__
    assert note.startswith("memlimits: refused 80 MiB ")
    assert is_refusal(error)
    assert called == []


@pytest.mark.parametrize("kind", GROUPS)
def test_members_are_those_of_the_group_itself(kind):
    group = kind("x", [ExceptionGroup("y", [error_of(more)])])
    assert is_refusal(group)
    assert called == []


def test_a_cause_is_the_one_that_it_was_raised_from():
    error = WithCauseError("x")
    with contextlib.suppress(WithCauseError):
        raise error from error_of(more)
    assert is_refusal(error)
    assert called == []


def test_a_str_that_looks_for_notes_ends():
    class LookingError(Exception):
        def __str__(self):
            called.append(self)
            return "".join(getattr(self, "__notes__", ["none"]))

    error_of(more)
    error = LookingError()
    with contextlib.suppress(LookingError):
        raise error
    assert str(error) == "none"
    assert called == [error]


# ---- which types, and which words ----


class LibraryError(Exception):
    """As one that C code made."""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (MemoryError, ""),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory"),
        (RuntimeError, "can't start new thread"),
        (OSError, "Unable to open file (memory allocation failed)"),
        (ValueError, "out of memory"),
        (LibraryError, "RESOURCE_EXHAUSTED"),
        (LibraryError, "Failed to allocate 83886080 bytes"),
        (LibraryError, "malloc of size 83886080 failed"),
        (LibraryError, "std::bad_alloc"),
    ],
)
def test_an_error_about_memory_is_told(kind, text):
    assert is_refusal(error_at_a_place_of_a_refusal(kind, text))


LOOK_UPS = [
    AssertionError,
    AttributeError,
    FileNotFoundError,
    ImportError,
    IndexError,
    KeyError,
    LookupError,
    ModuleNotFoundError,
    NameError,
    SyntaxError,
    UnicodeError,
    ZeroDivisionError,
]


@pytest.mark.parametrize("kind", LOOK_UPS)
def test_an_error_of_a_type_that_is_never_about_memory_is_none(kind):
    assert not is_refusal(error_at_a_place_of_a_refusal(kind))


@pytest.mark.parametrize("text", ["no such table: allocations", "malloc_stats", "no thread"])
def test_words_alone_do_not_tell(text):
    assert not is_refusal(error_at_a_place_of_a_refusal(LibraryError, text))


def test_an_array_of_another_size_is_another_error():
    """NumPy's error has the array's shape and type: no refusal of another size was behind it."""
    error_of(at_a_place, np.empty, MORE, np.uint8)
    kind = np._core._exceptions._ArrayMemoryError

    def of_shape(*shape):
        return SET_OBJECT, ctypes.py_object(kind), ctypes.py_object((shape, np.dtype(np.uint8)))

    assert not is_refusal(error_of(at_a_place, *of_shape(MORE, 2)))
    assert is_refusal(error_of(at_a_place, *of_shape(MORE // 2, 2)))


ON_A_THREAD_OF_ITS_OWN = """
import ctypes, memlimits, sqlite3, sys
from memlimits.errors import is_refusal

# A thread that runs no Python asks the interpreter's allocator, and is refused.
libc = ctypes.CDLL(None)
ask = ctypes.cast(ctypes.pythonapi.PyMem_RawMalloc, ctypes.c_void_p)
thread = ctypes.c_void_p()
assert libc.pthread_create(ctypes.byref(thread), None, ask, ctypes.c_void_p(1 << 30)) == 0
assert libc.pthread_join(thread, None) == 0

def raises(kind, text):
    ctypes.pythonapi.PyErr_SetString(ctypes.py_object(kind), text)

ways = [
    lambda: eval("allocated"),
    lambda: {}["unable to allocate"],
    lambda: __import__("malloc_failed"),
    lambda: object().allocate_or_fail,
    lambda: int("cannot allocate"),
    lambda: open("cannot allocate"),
    lambda: compile("malloc fails", "", "exec"),
    lambda: sqlite3.connect(":memory:").execute("select * from allocations"),
    lambda: raises(RuntimeError, b"can't start new thread"),
    lambda: raises(RuntimeError, b"failed to allocate memory"),
]
for way in ways:
    try:
        way()
    except Exception as error:
        print(type(error).__name__, is_refusal(error))
"""


@pytest.mark.host
def test_a_refusal_of_a_librarys_own_thread_goes_to_an_error_about_memory(tmp_path):
    write(tmp_path / "program.py", ON_A_THREAD_OF_ITS_OWN)
    done = execute(*RUN, "--memory-limit=256MiB", "program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert [line.endswith("True") for line in lines] == [False] * 9 + [True], lines


# ---- which place, and how many ----


def error_of_code(text, **scope):
    return error_of(exec, compile(text, "<text>", "exec"), scope)


def test_code_at_the_address_of_code_that_went_is_another_place():
    """Of the same instructions, with another name."""
    found = []
    for _ in range(50):
        error_of_code("x = empty(n)", empty=np.empty, n=MORE)
        found.append(is_refusal(error_of_code("x = list(n)", n=range(1 << 62))))
    assert not any(found)


def test_many_errors_that_nobody_looked_at_meanwhile_each_have_their_refusal():
    errors = [error_of(more, MORE + n) for n in range(200)]
    assert [error.__notes__[0].split("(")[1].split()[0] for error in errors] == [
        f"{MORE + n:,}" for n in range(200)
    ]


def test_of_more_the_latest_have_theirs():
    errors = [error_of(more, MORE + n) for n in range(300)]
    assert [is_refusal(error) for error in errors] == [False] * 44 + [True] * 256
