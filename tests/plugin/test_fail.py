"""`memlimits.testing.fail`: which requests are refused, and that they are refused as all are."""

import ctypes
import doctest
import pickle
import random
import sys
import threading

import numpy as np
import pytest

import memlimits
from memlimits import testing
from support.process import run
from support.threads import in_thread, run_threads
from support.units import KIB, MIB

WITH_GIL = "t" not in sys.abiflags


def refused(take, times):
    """Which of so many requests were refused, from 1 on."""
    found = []
    for number in range(1, times + 1):
        try:
            take()
        except MemoryError:
            found.append(number)
    return found


def take():
    memlimits.allocate(5000).release()


def expected(nth, every, times):
    """By the words of the documentation, one request after the other."""
    first = nth or every or 1
    step = every or (None if nth else 1)
    return [
        number
        for number in range(1, times + 1)
        if number == first or (step and number > first and (number - first) % step == 0)
    ]


def test_which_are_refused():
    rng = random.Random(4)
    for _ in range(60):
        nth, every = rng.choice([None, *range(1, 9)]), rng.choice([None, *range(1, 9)])
        times = rng.randrange(1, 30)
        before = memlimits.stats()
        with testing.fail(nth=nth, every=every) as failing:
            found = refused(take, times)
        assert found == expected(nth, every, times), (nth, every, times)
        assert (failing.requests, failing.refused) == (times, len(found))
        after = memlimits.stats()
        assert after.refusals - before.refusals == len(found)
        assert after.refusals_by_test - before.refusals_by_test == len(found)
        take()


def test_what_it_raises_and_remembers():
    with testing.fail(nth=1), pytest.raises(memlimits.MemoryLimitError) as caught:
        memlimits.allocate(3 * MIB)
    assert (caught.value.blocked_by, caught.value.requested) == ("test", 3 * MIB)
    assert "a test wanted it to fail" in str(caught.value)
    assert memlimits.last_refusal().blocked_by == "test"
    assert memlimits.errors.is_refusal(caught.value)


def test_no_counter_moves_but_those_of_refusals():
    held = memlimits.allocate(MIB)
    before = memlimits.stats()._asdict()
    with testing.fail(), pytest.raises(MemoryError):
        memlimits.allocate(MIB)
    after = memlimits.stats()._asdict()
    moved = {name for name in before if before[name] != after[name]}
    assert {name for name in moved if not name.startswith("process_")} == {
        "refusals",
        "refusals_by_test",
    }
    held.release()


def test_real_limits_stay():
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(4 * MIB)
    with testing.fail(nth=2) as failing:
        for why in ("limit", "test", "limit"):
            with pytest.raises(memlimits.MemoryLimitError) as caught:
                memlimits.allocate(8 * MIB)
            assert caught.value.blocked_by == why
    assert (failing.requests, failing.refused) == (3, 1)


def test_what_is_served_from_idle_blocks_counts():
    memlimits.allocate(MIB).release()
    hits = memlimits.stats().hits
    with testing.fail(nth=3) as failing:
        assert refused(lambda: memlimits.allocate(MIB).release(), 5) == [3]
    assert failing.requests == 5
    assert memlimits.stats().hits - hits == 4


def test_bytes():
    sizes = [1, 4999, 5000, 5001, 5 * MIB]
    for least in (0, 1, 5000, "5000B", 5001, 5 * MIB, "5MiB", "6MiB"):
        bound = int(least.removesuffix("B")) if least == "5000B" else least
        bound = int(bound[0]) * MIB if isinstance(bound, str) else bound
        with testing.fail(bytes=least) as failing:
            failed = [size for size in sizes if refused(lambda: memlimits.allocate(size), 1)]  # noqa: B023
        assert failed == [size for size in sizes if size >= bound], least
        assert failing.requests == len(failed)


class Outer:
    @staticmethod
    def inner():
        return memlimits.allocate(5000)


def calls_inner():
    return Outer.inner()


@pytest.mark.parametrize(
    ("where", "fails"),
    [
        ("inner", True),
        ("Outer.inner", True),
        ("calls_inner", True),
        ("test_fail.py", True),
        ("plugin/test_fail.py", True),
        ("test_fail.py:calls_inner", True),
        ("plugin/test_fail.py:Outer.inner", True),
        (f"{__file__}:calls_inner", True),
        ("nner", False),
        ("r.inner", False),
        ("fail.py", False),
        ("in/test_fail.py", False),
        ("test_other.py:inner", False),
        ("python.py:inner", False),  # each in another frame does not do
        ("calls", False),
    ],
)
def test_where(where, fails):
    with testing.fail(where=where) as failing:
        assert bool(refused(calls_inner, 1)) == fails
    assert failing.requests == fails


def test_below_a_function_only():
    with testing.fail(where="calls_inner") as failing:
        assert refused(take, 3) == []
        assert refused(calls_inner, 2) == [1, 2]
    assert failing.requests == 2


def test_arrays():
    before = np.ones(10_000)
    with memlimits.govern_numpy(), testing.fail(level="numpy", nth=2, bytes=1024) as failing:
        kept = np.empty(10_000)
        with pytest.raises(MemoryError, match=r"Unable to allocate 78\.1 KiB") as caught:
            np.empty(10_000)
        assert "a test wanted it to fail" in caught.value.__notes__[0]
        np.zeros(10_000)
        # Not C code's, though C code's interface is what NumPy's requests go through.
    assert (failing.requests, failing.refused) == (3, 1)
    with memlimits.govern_numpy(), testing.fail(level="memlimits", bytes=1024) as failing:
        np.empty(10_000), np.zeros(10_000)
        before.resize(20_000, refcheck=False)
    assert failing.requests == 0
    with memlimits.govern_numpy(aligned=False), testing.fail(level="numpy", bytes=1024) as failing:
        assert refused(lambda: np.empty(10_000), 2) == [1, 2]
        assert refused(lambda: np.zeros(10_000), 1) == [1]
    del kept


def test_a_resized_array_stays_as_it_was():
    with memlimits.govern_numpy():
        array = np.arange(10_000)
        with testing.fail(level="numpy", bytes=1024) as failing:
            array.resize(5_000, refcheck=False)
            assert failing.requests == 0
            with pytest.raises(MemoryError):
                array.resize(100_000, refcheck=False)
        assert failing.refused == 1
        assert (array == np.arange(5_000)).all()


@pytest.mark.host
@pytest.mark.skipif(not WITH_GIL, reason="Python's objects are not governed without the GIL")
def test_pythons_objects():
    # Some objects that Python makes meanwhile it keeps.
    run("""
        from memlimits import testing

        def is_refused(make):
            try:
                make()
            except MemoryError as error:
                return "a test wanted it to fail" in error.__notes__[0]

        with memlimits.govern_python():
            with testing.fail(level="python", bytes=5000) as failing:
                for make in (lambda: bytearray(5000), lambda: b"x" * 5000, lambda: [0] * 1000):
                    assert is_refused(make)
                assert len(bytearray(1000)) == 1000
            assert failing.refused == 3
            grown, more = [*range(100)], [*range(9000)]
            with testing.fail(level="python", bytes=5000):
                assert is_refused(lambda: grown.__iadd__(more))
            assert grown == [*range(100)]
    """)


@pytest.mark.host
@pytest.mark.skipif(not WITH_GIL, reason="Python's objects are not governed without the GIL")
def test_an_arena_is_refused_with_the_object_that_needed_it():
    run("""
        from memlimits import testing
        memlimits.govern_python()
        kept = []
        with testing.fail(level="python", bytes=1 << 18) as failing:
            try:
                while len(kept) < 100_000:
                    kept.append((len(kept), None))
            except MemoryError:
                pass
        assert failing.requests == failing.refused >= 1 and len(kept) < 100_000
        kept.append((1, 2))
    """)


def test_other_threads_count_only_where_that_was_asked_for():
    for any_thread in (False, True):
        with testing.fail(any_thread=any_thread) as failing:
            assert in_thread(lambda: refused(take, 4)) == ([1, 2, 3, 4] if any_thread else [])
            assert refused(take, 2) == [1, 2]
        assert failing.requests == (6 if any_thread else 2)


def test_threads_at_once_lose_no_count():
    with testing.fail(every=10, any_thread=True) as failing:
        found = []
        run_threads(*[lambda: found.extend(refused(take, 500)) for _ in range(4)])
    assert (failing.requests, failing.refused, len(found)) == (2000, 200, 200)


def test_several_at_once_each_count():
    with testing.fail(nth=2) as one:
        with testing.fail(nth=3) as other:
            assert refused(take, 4) == [2, 3]
        assert refused(take, 2) == []
    assert (one.requests, one.refused, other.requests, other.refused) == (6, 1, 4, 1)


def test_one_of_several_may_end_first():
    one, other = testing.fail(), testing.fail(nth=2)
    one.__enter__()
    other.__enter__()
    assert refused(take, 1) == [1]
    one.__exit__(None, None, None)
    assert refused(take, 2) == [1]
    other.__exit__(None, None, None)
    assert (one.requests, one.refused, other.requests, other.refused) == (1, 1, 3, 1)


def test_it_counts_anew_in_each_block():
    failing = testing.fail(nth=2)
    for _ in range(2):
        with failing:
            assert refused(take, 3) == [2]
        assert failing.requests == 3
    with failing, pytest.raises(RuntimeError, match="in force already"):
        failing.__enter__()
    with pytest.raises(RuntimeError, match="not in force"):
        failing.__exit__(None, None, None)


def test_decorator():
    @testing.fail(nth=1)
    def decorated():
        """Words."""
        return refused(take, 3)

    assert [decorated(), decorated()] == [[1], [1]]
    assert decorated.__doc__ == "Words."


def test_one_that_is_dropped_in_force_ends():
    failing = testing.fail()
    failing.__enter__()
    assert refused(take, 1) == [1]
    del failing
    assert refused(take, 1) == []


def test_a_thread_that_ended_leaves_its_rule_to_nobody():
    opened = []

    def open_one():
        opened.append(testing.fail())
        opened[0].__enter__()

    thread = threading.Thread(target=open_one)
    thread.start()
    thread.join()
    assert refused(take, 1) == []
    opened[0].__exit__(None, None, None)


@pytest.mark.parametrize("level", ["numpy", "python", "malloc"])
def test_a_named_level_has_to_be_governed(level):
    failing = testing.fail(level=level)
    before = memlimits.stats().refusals
    with pytest.raises(RuntimeError, match=f"'{level}' can fail, since it is not governed"):
        failing.__enter__()
    with testing.fail():  # whatever is
        pass
    assert memlimits.stats().refusals == before


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"nth": 0}, ValueError, "nth must be from 1"),
        ({"nth": -1}, ValueError, "nth must be from 1"),
        ({"nth": 1.0}, TypeError, "nth must be an int"),
        ({"nth": True}, TypeError, "nth must be an int"),
        ({"nth": 1 << 63}, ValueError, "less than 2"),
        ({"every": 0}, ValueError, "every must be from 1"),
        ({"every": "2"}, TypeError, "every must be an int"),
        ({"bytes": -1}, ValueError, "bytes must be from 0"),
        ({"bytes": "many"}, ValueError, "invalid size 'many'"),
        ({"bytes": 1.5}, TypeError, "bytes must be an integer, in bytes, or a size"),
        ({"where": ""}, ValueError, "where must be a file"),
        ({"where": ":f"}, ValueError, "where must be a file"),
        ({"where": "f\0"}, ValueError, "where must be a file"),
        ({"where": 3}, TypeError, "where must be a str"),
        ({"where": "x" * 512}, ValueError, "at most 511 bytes"),
        ({"level": "c"}, ValueError, "level must be of"),
        ({"level": ()}, ValueError, "level must be of"),
        ({"level": ("numpy", 3)}, ValueError, "level must be of"),
        ({"level": 3}, TypeError, "level must be a str"),
        ({"any_thread": 1}, TypeError, "any_thread must be"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        testing.fail(**arguments)


def test_it_is_not_pickled():
    with pytest.raises(TypeError, match="for one process"):
        pickle.dumps(testing.fail())


def test_long_names_are_looked_at_to_their_end():
    name = "f" * 600
    scope = {"take": take}
    exec(f"def {name}():\n    take()", scope)
    with testing.fail(where="f" * 500) as failing:
        assert refused(scope[name], 1) == []
    assert failing.requests == 0
    exec(compile("def short():\n    take()", "/" + "d" * 900 + "/end.py", "exec"), scope)
    with testing.fail(where="end.py:short") as failing:
        assert refused(scope["short"], 1) == [1]


def test_examples():
    results = doctest.testmod(testing, raise_on_error=False)
    assert results.attempted > 3
    assert results.failed == 0


@pytest.mark.host
def test_a_child_has_rules_of_its_own():
    run("""
        from memlimits import testing
        with testing.fail(nth=2) as failing:
            assert refused_by(5000) is None
            child = os.fork()
            assert refused_by(5000) == "test" and failing.requests == 2
            if child == 0:
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="a C library that ctypes finds by no name")
def test_errno_and_memory_of_c_code():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    with testing.fail() as failing:
        block = libc.malloc(64 * KIB)  # nobody governs it here
        assert block
        libc.free(block)
    assert failing.requests == 0
