"""The plugin for pytest: tests run in turn with one request after the other refused."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import memlimits
from memlimits.adapters import turns
from support.interposed import LIBRARY

pytest_plugins = ["pytester"]
pytestmark = [
    pytest.mark.inside,
    pytest.mark.host,  # a child of Metal's process has no memory
]


def section(result, test):
    """The lines on what became of a test's runs."""
    text = result.stdout.str()
    part = re.split(rf"^_+ (?:\w+\.)?{test} _+$", text, flags=re.MULTILINE)[1]
    part = re.split(r"^-+ failing allocations -+$", part, flags=re.MULTILINE)[1]
    return re.split(r"^[_=]{3,}.*$", part, maxsplit=1, flags=re.MULTILINE)[0].strip().splitlines()


def test_what_each_run_came_to(suite):
    result = suite(
        """
        @failing
        def test_raises():
            first = np.empty(10_000)
            second = np.empty(20_000)
        @failing
        def test_survives():
            try:
                np.empty(10_000)
            except MemoryError:
                pass
        @failing
        def test_is_wrong():
            first = np.empty(10_000)
            try:
                second = np.empty(20_000)
            except MemoryError:
                second = None
            assert second is not None
        @failing
        def test_leaks():
            first = np.empty(10_000)
            try:
                np.empty(20_000)
            except MemoryError:
                kept.append(first)
        @failing
        def test_crashes():
            try:
                np.empty(10_000)
            except MemoryError:
                os.kill(os.getpid(), signal.SIGSEGV)
        @failing
        def test_ends():
            try:
                np.empty(10_000)
            except MemoryError:
                os._exit(3)
        @failing
        def test_closes():
            try:
                np.empty(10_000)
            except MemoryError:
                os.closerange(3, 1024)
        @failing(timeout=0.5)
        def test_hangs():
            try:
                np.empty(10_000)
            except MemoryError:
                threading.Event().wait()
        """
    )
    result.assert_outcomes(passed=2, failed=6)
    begin = "without a refusal: passed"
    raised = [
        "request 1 (80,000 bytes): raised: MemoryError in {} (test_it.py:{}): Unable to allocate "
        "78.1 KiB for an array with shape (10000,) and data type float64",
    ]
    found = section(result, "test_raises")
    assert found[:2] == [begin, raised[0].format("test_raises", 15)]
    assert found[2].startswith("request 2 (160,000 bytes): raised: MemoryError in test_raises")
    assert len(found) == 3
    assert section(result, "test_survives") == [begin, "request 1 (80,000 bytes): passed"]
    assert section(result, "test_is_wrong")[2:] == [
        "request 2 (160,000 bytes): wrong: AssertionError in test_is_wrong (test_it.py:30): "
        "assert None is not None"
    ]
    assert section(result, "test_leaks")[2:] == [
        "request 2 (160,000 bytes): leaked: 81,920 bytes; it passed"
    ]
    (crashed,) = section(result, "test_crashes")[1:]
    assert re.fullmatch(
        r'request 1: crashed: by SIGSEGV at ".*test_it\.py", line 43 in test_crashes', crashed
    )
    (ended,) = section(result, "test_ends")[1:]
    assert ended == "request 1: crashed: the process ended with status 3"
    (mute,) = section(result, "test_closes")[1:]
    assert mute == "request 1: crashed: it closed the pipe by which to tell what came of it"
    (hung,) = section(result, "test_hangs")[1:]
    assert hung.startswith("request 1: hung: ended after 0.5 s at ")
    result.stdout.fnmatch_lines(["FAILED *test_ends - Failed: request 1: crashed: *"])


def test_nothing_of_a_run_is_left_to_the_next(suite):
    result = suite(
        """
        @failing
        def test_children():
            kept.append(1)
            assert len(kept) == 1
            np.empty(10_000), np.empty(10_000)
        def test_here():
            assert kept == []
            assert memlimits.stats().refusals == 0
        """
    )
    result.assert_outcomes(passed=2)
    assert len(section(result, "test_children")) == 3


def test_fixtures_parameters_and_cases(suite):
    result = suite(
        """
        @pytest.fixture
        def array():
            yield np.empty(30_000)      # not below the test, and not refused
        @failing
        @pytest.mark.parametrize("times", [1, 3])
        def test_sizes(array, times, tmp_path):
            for _ in range(times):
                np.empty(10_000)
        @failing
        class TestCase(unittest.TestCase):
            def setUp(self):
                self.array = np.empty(20_000)
            def test_case(self):
                self.assertEqual(len(np.empty(10_000)), 10_000)
            def test_wrong(self):
                try:
                    found = np.empty(10_000)
                except MemoryError:
                    found = []
                self.assertEqual(len(found), 10_000)
        """
    )
    result.assert_outcomes(passed=3, failed=1)
    assert len(section(result, r"test_sizes\[1\]")) == 2
    assert len(section(result, r"test_sizes\[3\]")) == 4
    # What setUp asks for is below the file, too.
    assert len(section(result, "test_case")) == 3
    assert "wrong: AssertionError in" in section(result, "test_wrong")[2]


def test_which_requests(suite):
    result = suite(
        """
        def helper():
            return np.empty(10_000)
        @failing(bytes="100KiB")
        def test_long_ones():
            np.empty(10_000), np.empty(20_000), np.empty(10_000)
        @failing(where="helper")
        def test_place():
            np.empty(10_000), helper(), np.empty(10_000)
        @failing(level="memlimits")
        def test_level():
            np.empty(10_000), memlimits.allocate(500)
        @failing(max=2)
        def test_bounded():
            for _ in range(5):
                helper()
        @failing(any_thread=True)
        def test_threads():
            thread = threading.Thread(target=lambda: kept.append(helper()))
            thread.start()
            thread.join()
            if not kept:
                raise MemoryError
        @failing(leak="1MiB")
        def test_little_may_stay():
            kept.append(np.empty(1000))
            try:
                np.empty(10_000)
            except MemoryError:
                kept.append(np.empty(5000))
        """,
        "-Wignore::pytest.PytestUnhandledThreadExceptionWarning",
    )
    result.assert_outcomes(passed=6)
    assert len(section(result, "test_long_ones")) == 2
    assert len(section(result, "test_place")) == 2
    assert section(result, "test_level")[1].startswith("request 1 (500 bytes): raised: MemoryLimit")
    assert section(result, "test_bounded")[3:] == [
        "of 5 requests the others were left alone (max=2)"
    ]
    assert len(section(result, "test_threads")) == 2


@pytest.mark.skipif("t" in sys.abiflags, reason="Python's objects are not governed without the GIL")
def test_pythons_objects(suite):
    result = suite(
        """
        @failing(level="python", bytes=100_000)
        def test_clean():
            bytearray(100_000)
            len([0] * 50_000)
        """
    )
    result.assert_outcomes(passed=1)
    found = section(result, "test_clean")
    assert len(found) == 3
    assert all(": raised: MemoryError in test_clean" in line for line in found[1:])


def test_one_that_fails_by_itself_is_reported_as_ever(suite):
    result = suite(
        """
        @failing
        def test_wrong():
            np.empty(10_000)
            assert 1 == 2
        @failing
        def test_skipped():
            pytest.skip("not today")
        @failing
        @pytest.mark.xfail(strict=True)
        def test_expected():
            try:
                np.empty(10_000)
            except MemoryError:
                assert False
        @failing
        def test_asks_for_nothing():
            pass
        @failing
        def test_crashes_anyway():
            os.abort()
        """
    )
    result.assert_outcomes(failed=3, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines_random(
        [
            ">       assert 1 == 2",
            "the test made no request that counts: *where='*test_it.py'*",
            "without a refusal: crashed: by SIGABRT at *test_it.py*",
        ]
    )


def test_below_a_limit(suite):
    result = suite(
        """
        @failing
        @pytest.mark.memory_limit("50MiB")
        def test_both():
            np.empty(1 << 20)
            with pytest.raises(MemoryError):
                np.empty(1 << 23)
        """
    )
    result.assert_outcomes(passed=1)
    # The second is refused without it, too, which is what the test expects.
    found = section(result, "test_both")
    assert found[1].startswith("request 1 (8,388,608 bytes): raised: MemoryError")
    assert found[2:] == ["request 2 (67,108,864 bytes): passed"]


def test_below_xdist(suite):
    pytest.importorskip("xdist")
    result = suite(
        """
        @failing
        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            np.empty(10_000)
        """,
        "-n2",
    )
    result.assert_outcomes(passed=4)
    assert len(section(result, r"test_it\[2\]")) == 2


@pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only")
def test_malloc(suite):
    source = """
        @failing(level="malloc")
        def test_it():
            libc = ctypes.CDLL(None)
            libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
            block = libc.malloc(5_000_000)
            {}
    """
    wrong = source.format("assert block")
    result = suite(wrong)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*needs a process whose malloc is governed: memlimits run *"])
    command = [sys.executable, "-m", "memlimits", "run", "--quiet", "--govern=all", "-m", "pytest"]
    result = suite(wrong, before=command)
    result.assert_outcomes(failed=1)
    assert "(5,000,000 bytes): wrong: AssertionError" in section(result, "test_it")[-1]
    free = "libc.free.argtypes = [ctypes.c_void_p]; libc.free(block)"
    suite(source.format(free), before=command).assert_outcomes(passed=1)


# ---- without pytest ----


def run(function, **given):
    keywords = {"most": 100, "timeout": 60, "leak": None, **given}
    with memlimits.govern_numpy():
        return turns.in_turn(function, {"level": "numpy"}, **keywords)


def test_what_is_told_of_a_run():
    first, second, third = run(lambda: (np.empty(1000), np.empty(2000)))
    assert (first.nth, first.kind, first.requests, first.refused, first.nbytes) == (
        *(0, "passed", 2, 0, 0),
    )
    assert (second.nth, second.kind, second.requests, second.refused) == (1, "raised", 1, 1)
    assert (third.nth, third.kind, third.requests, third.nbytes) == (2, "raised", 2, 16000)


def test_errors_that_come_from_a_refusal_are_clean():
    def chained():
        try:
            np.empty(1000)
        except MemoryError as error:
            raise ValueError("bad") from error

    def unlike():
        try:
            np.empty(1000)
        except MemoryError:
            raise ValueError("bad") from None

    assert [turn.kind for turn in run(chained)] == ["passed", "raised"]
    assert [turn.kind for turn in run(unlike)] == ["passed", "wrong"]


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_no_child_is_left_behind():
    reading, writing = os.pipe()

    def forks():
        np.empty(1000)
        if os.fork() == 0:
            os.set_inheritable(writing, True)
            os.execlp("sleep", "sleep", "1000")

    descriptors, before = os.listdir("/dev/fd"), children()
    assert [turn.kind for turn in run(forks)] == ["passed", "raised"]
    os.close(writing)
    assert os.read(reading, 1) == b""  # once nobody has the other end
    os.close(reading)
    assert children() == before
    assert len(os.listdir("/dev/fd")) == len(descriptors) - 2


def test_a_long_error_is_cut():
    def talks():
        np.empty(1000)
        raise ValueError("x" * 1_000_000 + "\ny")

    (turn,) = run(talks)
    assert turn.kind == "wrong"
    assert len(turn.detail) == 500


def test_what_python_keeps_of_an_earlier_limit_is_no_leak(pytester):
    pytester.makepyfile(
        """
        import numpy, pytest

        def load(n):
            return numpy.ones(n << 17)

        @pytest.mark.memory_limit("50MiB")
        def test_one():
            import xml.dom.minidom, email.parser, decimal
            [load(1) for _ in range(10)]

        def rows():
            out = []
            for _ in range(20):
                out.append(load(1))
            return out

        @pytest.mark.fail_allocations(bytes="1KiB", max=3)
        def test_other():
            rows()
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_what_a_test_case_keeps_of_an_error_is_no_leak(pytester):
    pytester.makepyfile(
        """
        import unittest
        import numpy, pytest

        class TestIt(unittest.TestCase):
            @pytest.mark.fail_allocations(bytes="1KiB")
            def test_raises(self):
                first = numpy.ones(1 << 15)
                second = numpy.ones(1 << 15)

            @pytest.mark.fail_allocations(bytes="1KiB")
            def test_is_wrong(self):
                try:
                    first = numpy.ones(1 << 15)
                except MemoryError:
                    first = None
                self.assertIsNotNone(first)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*request 1 (262,144 bytes): wrong: AssertionError*"])
