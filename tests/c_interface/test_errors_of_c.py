"""Errors of C code that was refused memory: of its types, in its words, from its threads."""

import contextlib
import importlib
import mmap
import operator
import traceback

import pytest

import memlimits
from memlimits import _modules
from memlimits.errors import is_refusal
from support import extensions
from support.units import MIB

pytestmark = pytest.mark.inside

N = 64 * MIB
NOTE = (
    "memlimits: refused 64 MiB (67,108,864 bytes) to C code: memory limit 1 MiB (strict), in use "
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    (folder / "within.pyx").write_text(CYTHON)
    extensions.build(folder, "pool.c")
    with extensions.imported(folder, "pool") as module:
        yield module


@pytest.fixture(autouse=True)
def _limited():
    _modules.for_notes().put_on()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(MIB)
    # So many are kept: none of those before.
    for n in range(256):
        with contextlib.suppress(MemoryError):
            memlimits.allocate(2 * MIB + n)


def error_of(function, *args):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever
        function(*args)
    return caught.value


CYTHON = """
cdef object inner(pool, n):
    return pool.here(n, "out of memory")

cdef object outer(pool, n):
    return inner(pool, n)

def within(pool, n):
    return outer(pool, n)
"""

texts = pytest.mark.parametrize(
    "text",
    [
        f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {N} bytes.",
        "RESOURCE_EXHAUSTED: Out of memory",
        "OpenCV(5.0) alloc.cpp:66: error: (-4:Insufficient memory) Failed to allocate",
        "[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc",
        "Memory allocation failed",
    ],
)


@texts
@pytest.mark.parametrize("function", ["here", "in_pool"])
def test_its_error_has_the_note(pool, function, text):
    error = error_of(getattr(pool, function), N, text)
    [note] = error.__notes__
    assert note.startswith(NOTE)
    assert is_refusal(error)


@pytest.mark.parametrize("function", ["here", "in_pool"])
@pytest.mark.parametrize("text", ["a file is damaged", "", "wrong shape (3, 64)"])
def test_an_error_of_other_causes_has_none(pool, function, text):
    error = error_of(getattr(pool, function), N, text)
    assert not is_refusal(error)
    assert not hasattr(error, "__notes__")


def test_what_a_thread_of_its_own_was_refused_is_behind_no_error_without_words(pool):
    error_of(pool.in_pool, N, "which nobody looks at: bad_alloc")
    assert not is_refusal(error_of(lambda: [0] * 2**62))


@pytest.mark.parametrize("kind", [OSError, MemoryError])
def test_what_python_raises_itself_is_not_of_a_threads_refusal(pool, kind):
    def raises():
        raise kind("Cannot allocate memory")

    error_of(pool.in_pool, N, "which nobody looks at: bad_alloc")
    assert not is_refusal(error_of(raises))


def test_of_several_at_one_place_the_one_of_its_size(pool):
    def both():
        for n in (N, 2 * N):
            errors.append(error_of(pool.here, n, f"bad_alloc of {n}"))

    errors = []
    both()
    sizes = [error.__notes__[0].split("refused ")[1].split(" (")[0] for error in errors]
    assert sizes == ["64 MiB", "128 MiB"]


def test_cythons_functions_stand_between(pool):
    """They add entries to the traceback that never ran."""
    error = error_of(importlib.import_module("within").within, pool, N)
    assert [entry.name for entry in traceback.extract_tb(error.__traceback__)][1:] == [
        "within.within",
        "within.outer",
        "within.inner",
    ]
    assert error.__notes__[0].startswith(NOTE)


def test_a_refusal_of_a_caller_is_none_of_what_it_calls_next(pool):
    """At one and the same instruction, by code in C and then in Python."""

    def raises(n, text):
        raise RuntimeError(text)

    errors = [error_of(function, N, "bad_alloc") for function in (pool.here, raises)]
    assert not is_refusal(errors[1])
    assert is_refusal(errors[0])


def test_a_refusal_is_behind_one_error(pool):
    """What comes from the same instruction afterwards has asked nobody for memory."""
    assert is_refusal(error_of(pool.here, N, "bad_alloc"))
    assert not is_refusal(error_of(operator.mul, [0], 2**62))


def test_of_several_at_one_place_the_last(pool):
    """The program looked at no other."""
    error_of(pool.here, N, "bad_alloc")
    [note] = error_of(pool.here, 2 * N, "bad_alloc").__notes__
    assert "refused 128 MiB" in note


def test_an_error_of_the_systems_is_not_of_a_threads_refusal(pool):
    error_of(pool.in_pool, N, "which nobody looks at: bad_alloc")
    error = error_of(mmap.mmap, -1, 2**62)
    assert isinstance(error, OSError)
    assert error.strerror == "Cannot allocate memory"
    assert not is_refusal(error)


def without_its_end(traceback):
    """As JAX shows them: without entries of its own."""
    traceback.tb_next.tb_next = None
    return traceback


@pytest.mark.parametrize(("size", "told"), [(N, True), (N + 1, False)])
def test_an_error_without_the_end_of_its_traceback_names_the_size(pool, size, told):
    def inner():
        pool.here(N, f"Out of memory allocating {size} bytes")

    error = error_of(lambda: inner())
    error.__traceback__ = without_its_end(error.__traceback__)
    assert is_refusal(error) is told


def test_small_numbers_name_no_size(pool):
    def inner():
        held.append(memlimits.allocate(MIB))
        pool.here(200, "out of memory in line 200")

    held = []
    error = error_of(lambda: inner())
    error.__traceback__ = without_its_end(error.__traceback__)
    assert not is_refusal(error)
    [block] = held
    block.release()
