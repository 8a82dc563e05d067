"""Suites that pytest runs with the plugin."""

import sys
import textwrap

import pytest

PRELUDE = """
    import ctypes, os, signal, subprocess, sys, threading, unittest
    import numpy as np
    import pytest
    import memlimits

    MIB = 1 << 20
    kept = []
    failing = pytest.mark.fail_allocations

    def take(mib):
        return np.empty(mib * MIB, np.uint8)
"""


@pytest.fixture
def suite(pytester):
    """Write a suite, run it in a process of its own, and return what pytest said."""

    def run(source, *options, conftest="", before=()):
        text = textwrap.dedent(PRELUDE) + textwrap.dedent(source)
        pytester.makepyfile(test_it=text)
        if conftest:
            pytester.makeconftest(textwrap.dedent(conftest))
        words = [*before] or [sys.executable, "-m", "pytest"]
        return pytester.run(*words, "-p", "no:cacheprovider", "-rA", *options, "test_it.py")

    return run


@pytest.fixture
def usage(pytester):
    """Run a suite that is not to get as far as its tests, in this process; return the result."""

    def run(source, *options):
        pytester.makepyfile(test_it=f"import pytest\n{source}")
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.no_fnmatch_line("*Traceback*")
        return result

    return run
