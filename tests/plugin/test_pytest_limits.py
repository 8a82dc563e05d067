"""The plugin for pytest: limits for tests, in suites that pytest runs."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from support.interposed import LIBRARY

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.inside, pytest.mark.host]

WITH_GIL = "t" not in sys.abiflags


def test_it_fails_at_the_line_that_asked(suite):
    result = suite(
        """
        def test_too_much():
            first = take(30)
            second = take(30)   # here
        def test_fits():
            first = take(40)
        """,
        "--memory-limit=50MiB",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "memlimits: limit of a test: 50 MiB; counts NumPy, Python*",
            ">       second = take(30)   # here",
            "E       *Unable to allocate 30.0 MiB for an array with shape*",
            "E       memlimits: refused 30 MiB (31,457,280 bytes) to NumPy: memory limit*",
            "*- memory limit -*",
            "limit 50 MiB, beyond * that were held when the test began; * are for errors, so the "
            "process has *",
            "refused 30 MiB (31,457,280 bytes), with 30* MiB in use",
        ]
    )
    result.stdout.no_fnmatch_line("*the test caught that*")
    # As the error has it.
    (of_process,) = re.findall(r"memory limit (\S+ MiB) \(strict\)", result.stdout.str())
    result.stdout.fnmatch_lines([f"limit 50 MiB*so the process has {of_process}"])


def test_the_marker_is_for_one_and_comes_first(suite):
    result = suite(
        """
        @pytest.mark.memory_limit("20MiB")
        def test_less():
            with pytest.raises(MemoryError):
                take(21)
            take(19)
        @pytest.mark.memory_limit(80 * MIB)
        class TestMore:
            def test_more(self):
                take(70)
            @pytest.mark.memory_limit("infinity")
            def test_most(self):
                take(200)
            @pytest.mark.memory_limit("max")
            def test_policy(self):
                assert memlimits.get_memory_policy() == "guideline"
        def test_others():
            with pytest.raises(MemoryError):
                take(61)
        """,
        "--memory-limit=60MiB",
    )
    result.assert_outcomes(passed=5)


def test_markers_alone_will_do(suite):
    result = suite(
        """
        @pytest.mark.memory_limit("20MiB")
        def test_limited():
            take(21)
        def test_others():
            take(100)
            assert memlimits.get_memory_policy() == "guideline"
        """,
        "--strict-markers",
        "-Werror",
    )
    result.assert_outcomes(passed=1, failed=1)


# Each block of what is taken, until it is refused; Python's lists and small objects in between.
KINDS = {
    "long arrays": "take(3)",
    "arrays": "np.empty(50_000, np.uint8)",
    "small arrays": "np.empty(2000, np.uint8)",
    "bytes": "bytes(700)",
    "long bytes": "bytes(300_000)",
    "small objects": "(1, 2, len(held), [])",
    "blocks": "memlimits.allocate(20_000)",
}
BY_PYTHON = ("bytes", "long bytes", "small objects")


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if WITH_GIL or kind not in BY_PYTHON], ids=str
)
def test_a_mebibyte_late_at_most(suite, kind):
    """By what the allocator itself counts as taken, as the test goes on."""
    result = suite(
        f"""
        @pytest.mark.memory_limit("64MiB")
        def test_it():
            held = []
            before = memlimits.get_active_memory()
            try:
                while True:
                    held.append({KINDS[kind]})
            except MemoryError:
                # Before that, so that what the error itself takes does not count.
                taken = memlimits.last_refusal().active - before
            del held
            assert taken <= 65 * MIB
            # A list grows by an eighth, and has to be there twice meanwhile; 3 MiB are a block.
            assert taken >= {45 if kind == "small objects" else 59} * MIB
        """
    )
    result.assert_outcomes(passed=1)


def test_fixtures(suite):
    """Those of the test's own count, those of others were there before."""
    result = suite(
        """
        @pytest.fixture(scope="module", params=[1, 2])
        def big(request):
            yield take(100)
        @pytest.fixture(scope="session")
        def bigger(big_base):
            return take(100)
        @pytest.fixture(scope="session")
        def big_base():
            return memlimits.allocate(60 * MIB)     # governed everywhere
        @pytest.fixture
        def own():
            yield take(20)
            take(90)    # what is taken when it is over does not count
        def test_others(big):
            take(35)
        def test_theirs(bigger):
            take(35)
        def test_limit_holds(big, bigger):
            with pytest.raises(MemoryError):
                take(41)
        def test_own(own):
            take(19)
        def test_own_counts(own):
            take(21)
        @pytest.fixture
        def too_much():
            return take(50)
        def test_set_up(too_much):
            pass
        """,
        "--memory-limit=40MiB",
    )
    result.assert_outcomes(passed=6, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        ["FAILED test_it.py::test_own_counts*", "ERROR test_it.py::test_set_up*"]
    )


def test_what_one_leaves_behind_is_nobody_elses(suite):
    result = suite(
        """
        def test_leaves():
            kept.append(take(45))
        def test_next():
            kept.append(take(45))
        def test_one_that_fails():
            kept.append(take(45))
            take(45)
        def test_after_that():
            take(45)
        def test_freed_by_another():
            kept.clear()
            take(45)
        """,
        "--memory-limit=50MiB",
    )
    result.assert_outcomes(passed=4, failed=1)


CHECKS = """
    import atexit
    import memlimits
    import numpy    # below `memlimits run` it is governed from here on
    from memlimits import testing

    def state():
        return (
            memlimits.get_memory_limit(), str(memlimits.get_memory_policy()),
            memlimits.get_memory_count(), memlimits.get_cache_limit(),
            memlimits.get_holder_sampling(), testing.is_governed("numpy"),
            testing.is_governed("python"), memlimits.stats().reserved,
        )

    memlimits.set_memory_limit(3 << 30)
    memlimits.set_holder_sampling(1 << 24)
    before = state()

    # Sampling is for all of the run.
    def pytest_runtest_logreport(report):
        assert state()[:4] + state()[5:] == before[:4] + before[5:]

    atexit.register(lambda: print("as before" if state() == before else state()))
"""


def test_afterwards_all_is_as_before(suite):
    result = suite(
        """
        def test_passes():
            assert memlimits.get_memory_policy() == "strict"
            assert memlimits.get_memory_limit() < 3 << 30
            assert memlimits.get_holder_sampling() == 1 << 20
        def test_fails():
            take(60)
        def test_sets_a_limit():
            memlimits.set_memory_limit(MIB)
        @pytest.mark.fail_allocations
        def test_in_turn():
            take(1)
        """,
        "--memory-limit=50MiB",
        "--memory-holders=1MiB",
        conftest=CHECKS,
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["as before"])
    result.stderr.no_fnmatch_line("*Error*")


def test_what_run_keeps_back_for_errors_is_as_before(suite):
    result = suite(
        """
        def test_it():
            assert memlimits.stats().reserved <= 4 * MIB
        """,
        "--memory-limit=50MiB",
        conftest=CHECKS,
        before=[sys.executable, "-m", "memlimits", "run", "--quiet", "-m", "pytest"],
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["as before"])


def test_one_that_catches_it_passes_and_that_is_said(suite):
    result = suite(
        """
        def test_catches():
            for _ in range(2):
                try:
                    take(60)
                except MemoryError:
                    pass
        def test_fails_otherwise():
            try:
                take(60)
            except MemoryError:
                pass
            assert False
        """,
        "--memory-limit=50MiB",
        "-rP",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "the test caught that, and failed",
            "*test_catches*",
            "*- memory limit -*",
            "refused 60 MiB (62,914,560 bytes), with * in use, after a refusal before",
            "the test caught that, and passed",
        ]
    )
    result.stdout.fnmatch_lines(
        ["memlimits: test_it.py::test_catches passed, and caught 2 refusals"]
    )


def test_test_cases_classes_and_parameters(suite):
    result = suite(
        """
        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.big = take(100)
            def setUp(self):
                self.own = take(20)
            def test_fits(self):
                take(25)
            def test_too_much(self):
                take(35)
        class TestPlain:
            @pytest.mark.parametrize("mib", [10, 49, 51])
            def test_sizes(self, mib):
                take(mib)
        @unittest.skip("not today")
        class TestSkipped(unittest.TestCase):
            def test_it(self):
                take(100)
        @pytest.mark.xfail(raises=MemoryError, strict=True)
        def test_expected():
            take(60)
        """,
        "--memory-limit=50MiB",
    )
    result.assert_outcomes(passed=3, failed=2, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines_random(
        ["FAILED *TestCase::test_too_much*", "FAILED *test_sizes[[]51[]]*"]
    )


PEAKS = """
    def test_most():
        for _ in range(3):
            take(40)
    def test_more():
        first = take(20)
        second = take(10)
    def test_none():
        pass
"""


@pytest.mark.parametrize("options", [(), ("-n2",)], ids=["", "xdist"])
def test_the_table_of_the_largest(suite, options):
    if options:
        pytest.importorskip("xdist")
    result = suite(PEAKS, "--memory-peaks=2", *options)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*= largest 2 memory peaks of 3 =*",
            "40* MiB test_it.py::test_most",
            "30* MiB test_it.py::test_more",
        ],
        consecutive=True,
    )
    result = suite(PEAKS, "--memory-peaks=0", "--memory-limit=50MB", *options)
    result.stdout.fnmatch_lines(
        [
            "*= largest 3 memory peaks of 3 =*",
            "40* MiB of 47.68 MiB test_it.py::test_most",
            "30* MiB of 47.68 MiB test_it.py::test_more",
            "* of 47.68 MiB test_it.py::test_none",
        ],
        consecutive=True,
    )


def test_peaks_are_those_of_the_test(suite, pytester):
    """What was there before, and what a fixture of a module took, are none of its own."""
    suite(
        """
        kept.append(take(30))
        @pytest.fixture(scope="module")
        def big():
            take(200)
            return take(100)
        @pytest.fixture
        def own():
            return take(10)
        def test_it(own, big):
            take(5)
        """,
        "--memory-peaks=1",
        "--junitxml=out.xml",
    ).assert_outcomes(passed=1)
    peak = int(properties(pytester.path / "out.xml")["memory_peak"])
    assert 15 << 20 <= peak < 17 << 20


def properties(path):
    found = ElementTree.parse(path).getroot().iter("property")
    return {one.get("name"): one.get("value") for one in found}


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["", "xdist"])
def test_junits_properties(suite, pytester, options):
    if options:
        pytest.importorskip("xdist")
    suite(
        """
        def test_it(record_property):
            record_property("mine", 3)
            held = take(30)
            take(30)
        """,
        "--memory-limit=50MiB",
        "--memory-holders=1MiB",
        "--junitxml=out.xml",
        *options,
    ).assert_outcomes(failed=1)
    found = properties(pytester.path / "out.xml")
    assert set(found) == {
        *("mine", "memory_peak", "memory_limit", "memory_refusals", "memory_holders"),
    }
    assert found["memory_limit"] == str(50 << 20)
    assert found["memory_refusals"] == "1"
    assert 30 << 20 <= int(found["memory_peak"]) <= 32 << 20
    # The call of take() in the test is the program's own, as take() is: the innermost is told.
    assert re.match(r"take \(\S*test_it\.py:\d+\) 30 MiB in a block", found["memory_holders"])


def test_holders_are_told_of_a_refusal(suite):
    result = suite(
        """
        def load():
            return take(30)
        def test_it():
            held = load()
            take(30)
        """,
        "--memory-limit=50MiB",
        "--memory-holders=1MiB",
    )
    result.stdout.fnmatch_lines(["held by take (*test_it.py:*) 30 MiB in a block"])


def test_holders_are_those_of_what_the_test_took(suite):
    """Not of what others left, be it more and from the same line."""
    result = suite(
        """
        left = []
        def test_leaves():
            left.append(take(40))
        def test_it():
            held = take(30)
            take(80)
        """,
        "--memory-limit=100MiB",
        "--memory-holders=1MiB",
        "--memory-peaks=0",
    )
    told = re.findall(r"held by take \(\S*\) (\d+ MiB in .*)", result.stdout.str())
    # The refused test's section, and in the list of peaks the two, largest first.
    assert told == [f"{n} MiB in a block" for n in (30, 40, 30)]


@pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only")
def test_malloc_counts_where_it_is_governed(suite):
    source = """
        def test_it():
            malloc = ctypes.CDLL(None).malloc
            malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
            kept.append(malloc(30 * MIB))
            assert malloc(30 * MIB) is None
        """
    result = suite(source, "--memory-limit=50MiB")
    result.assert_outcomes(failed=1)
    command = [sys.executable, "-m", "memlimits", "run", "--quiet", "--govern=all", "-m", "pytest"]
    result = suite(source, "--memory-limit=50MiB", before=command)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "memlimits: limit of a test: 50 MiB; counts NumPy, Python, malloc",
            "memlimits: test_it.py::test_it passed, and caught a refusal",
        ]
    )


def test_children(suite):
    """A forked child has the limit for what it takes itself; others have none."""
    result = suite(
        """
        def test_forked():
            held = take(30)
            child = os.fork()
            if child == 0:
                try:
                    take(30)
                    mine = take(15)
                    take(40)
                except MemoryError:
                    os._exit(7)
                os._exit(8)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            take(15)
        def test_started():
            program = "import numpy as np; np.ones(10_000_000)"
            subprocess.run([sys.executable, "-c", program], check=True)
        """,
        "--memory-limit=50MiB",
    )
    result.assert_outcomes(passed=2)
