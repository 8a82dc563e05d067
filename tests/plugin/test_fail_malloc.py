"""`memlimits.testing.fail` in a process whose malloc is memlimits'."""

import sys

import pytest

from support.family import run
from support.interposed import LIBRARY

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
]


def test_each_function_fails_and_says_so():
    run("""
        from memlimits import testing
        memlimits.govern_malloc()
        block = malloc(6000)
        takers = (
            lambda: malloc(5000),
            lambda: calloc(5, 1000),
            lambda: realloc(None, 5000),
            lambda: realloc(block, 50_000),
            lambda: reallocarray(block, 50, 1000),
            lambda: aligned_alloc(64, 5000),
            lambda: memalign(1 << 16, 5000),
            lambda: valloc(5000),
        )
        for take in takers:
            with testing.fail(level="malloc", bytes=5000) as failing:
                set_errno(0)
                assert take() is None
                assert get_errno() == errno.ENOMEM
            assert (failing.requests, failing.refused) == (1, 1), takers.index(take)
            assert memlimits.last_refusal().blocked_by == "test"
        before = memlimits.stats().refusals_by_test
        assert before == len(takers)
        with testing.fail(level="malloc", bytes=5000):
            set_errno(5)
            assert realloc(block, 5500) == block and get_errno() == 5
            start = c_void_p()
            assert posix_memalign(byref(start), 64, 5000) == errno.ENOMEM
        free(block)
        free(malloc(5000))
        assert memlimits.stats().refusals_by_test == before + 1
    """)


def test_the_nth_of_those_of_a_length():
    run("""
        from memlimits import testing
        memlimits.govern_malloc()
        with testing.fail(level="malloc", nth=3, bytes=123_456) as failing:
            blocks = [malloc(123_456) for _ in range(5)]
        assert [block is None for block in blocks] == [False, False, True, False, False]
        assert (failing.requests, failing.refused) == (5, 1)
        for block in blocks:
            free(block)
    """)


@pytest.mark.skipif("t" in sys.abiflags, reason="Python's objects are not governed without the GIL")
def test_objects_of_pythons_are_not_mallocs():
    run("""
        from memlimits import testing
        memlimits.govern_malloc()
        memlimits.govern_python()
        with testing.fail(level="malloc", bytes=100_000) as failing:
            kept = bytearray(1_000_000)
            block = malloc(100)
        assert failing.requests == 0 and block
        with testing.fail(level=("malloc", "python"), bytes=100_000) as failing:
            try:
                bytearray(1_000_000)
            except MemoryError:
                pass
            assert malloc(100_000) is None
        assert (failing.requests, failing.refused) == (2, 2)
    """)


def test_other_threads_are_left_alone_or_not():
    run("""
        from memlimits import testing
        memlimits.govern_malloc()
        for any_thread in (False, True):
            found = []
            with testing.fail(level="malloc", bytes=100_000, any_thread=any_thread) as failing:
                thread = threading.Thread(target=lambda: found.append(malloc(100_000)))
                thread.start()
                thread.join()
                assert malloc(100_000) is None
            assert (found == [None]) == any_thread
            assert failing.refused == 1 + any_thread
    """)
