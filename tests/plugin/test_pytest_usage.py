"""The plugin for pytest: how it is asked for, and what it makes of what it cannot do."""

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory-limit=many"], "--memory-limit: invalid size 'many': write it as 512MiB*"),
        (["--memory-limit=500"], "--memory-limit: 500 bytes, or MiB? Write 500B or 500MiB"),
        (["--memory-limit=0"], "--memory-limit: '0' is too little*asks for 1 MiB at a time*"),
        (["--memory-limit=1000KiB"], "--memory-limit: '1000KiB' is too little*"),
        (["--memory-limit=-5MiB"], "--memory-limit: invalid size*"),
        (["--memory-peaks=-1"], "--memory-peaks must be from 0 on, not -1"),
        (["--memory-holders=1B"], "--memory-holders: nbytes must be from 4096*"),
        (["--memory-holders=x"], "--memory-holders: invalid size*"),
    ],
)
@pytest.mark.parametrize("through", ["options", "variable"])
def test_options_that_are_wrong(usage, monkeypatch, options, words, through):
    if through == "variable":
        monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(options))
    result = usage("def test_it(): pass", *options * (through == "options"))
    result.stderr.fnmatch_lines([f"ERROR: {words}"])


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("memory_limit", 'takes one size, such as "100MiB"'),
        ("memory_limit()", 'takes one size, such as "100MiB"'),
        ("memory_limit('1MiB', '2MiB')", 'takes one size, such as "100MiB"'),
        ("memory_limit(size='1MiB')", 'takes one size, such as "100MiB"'),
        ("memory_limit('much')", "*invalid size 'much'*"),
        ("memory_limit(1.5)", "*an integer, in bytes, or a size such as '2GiB', not 1.5"),
        ("memory_limit(True)", "*an integer, in bytes, or a size such as '2GiB', not True"),
        ("memory_limit(-1)", "*from 0 to 2[*][*]64 - 1, not -1"),
        ("memory_limit(5)", "*5 is too little*"),
        ("fail_allocations(3)", "takes keyword arguments only, not 3"),
        ("fail_allocations(most=3)", "takes max, timeout, leak, bytes, *, and no 'most'"),
        ("fail_allocations(max=0)", "(max=...) must be a number above 0 and below 1e9, not 0"),
        ("fail_allocations(max=1.5)", "(max=...) must be a number above 0 and below 1e9, not 1.5"),
        (
            "fail_allocations(timeout=1e30)",
            "(timeout=...) must be a number above 0 and below 1e9, not 1e+30",
        ),
        (
            "fail_allocations(timeout='1')",
            "(timeout=...) must be a number above 0 and below 1e9, not '1'",
        ),
        ("fail_allocations(leak='x')", "(leak=...): invalid size*"),
        ("fail_allocations(level='c')", "*level must be of*"),
        ("fail_allocations(bytes=-1)", "*bytes must be from 0*"),
        ("fail_allocations(where='')", "*where must be a file*"),
    ],
)
def test_markers_that_are_wrong(usage, marker, words):
    result = usage(f"@pytest.mark.{marker}\ndef test_it(): pass")
    found = marker.partition("(")[0]
    result.stderr.fnmatch_lines([f"ERROR: test_it.py::test_it: @pytest.mark.{found}*{words}"])


def test_a_marker_that_is_wrong_below_xdist(suite):
    """Workers cannot tell of a wrong use: the test does."""
    pytest.importorskip("xdist")
    result = suite(
        """
        @pytest.mark.memory_limit
        def test_wrong(): pass
        def test_right(): pass
        """,
        "-n2",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*test_wrong: @pytest.mark.memory_limit takes one size*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_it_may_be_loaded_twice(suite):
    twice = ["-p", "memlimits.pytest", "-p", "memlimits.pytest", "--memory-limit=50MiB"]
    suite("def test_it(): take(60)", *twice).assert_outcomes(failed=1)


def test_it_is_loaded_by_name_where_no_plugin_is_found_by_itself(suite, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = suite("def test_it(): take(60)", "-p", "memlimits.pytest", "--memory-limit=50MiB")
    result.assert_outcomes(failed=1)


def test_it_may_be_left_out(suite):
    result = suite("def test_it(): take(60)", "-p", "no:memlimits.pytest", "--memory-limit=50MiB")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --memory-limit=50MiB*"])


def test_it_does_nothing_until_it_is_wanted(pytester):
    pytester.makepyfile(
        test_it="""
        def test_it(request):
            import sys
            manager = request.config.pluginmanager
            assert manager.has_plugin("memlimits.pytest")
            assert not manager.has_plugin("memlimits.pytest.started")
            assert "numpy" not in sys.modules
            assert not [name for name in sys.modules if name.startswith("memlimits.adapters._")]
            assert "memlimits.adapters.turns" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*memlimits:*")


def test_markers_are_listed(suite):
    result = suite("", "--markers")
    result.stdout.fnmatch_lines(
        ["@pytest.mark.memory_limit(size): *", "@pytest.mark.fail_allocations(max=100, *"]
    )


def test_beside_memrays_plugin(suite):
    pytest.importorskip("pytest_memray")
    result = suite(
        """
        @pytest.mark.limit_memory("500 MB")
        @pytest.mark.memory_limit("50MiB")
        def test_both():
            take(40)
        @pytest.mark.limit_memory("20 MB")
        @pytest.mark.memory_limit("50MiB")
        def test_theirs():
            take(40)
        @pytest.mark.limit_memory("500 MB")
        @pytest.mark.memory_limit("50MiB")
        def test_ours():
            take(60)
        """,
        "--memray",
    )
    result.assert_outcomes(passed=1, failed=2)
