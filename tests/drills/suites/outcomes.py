"""A plugin for pytest: the same seed for every test, and what became of each, as JSON."""

import gc
import json
import os
import random

import numpy
import pytest

outcomes = {}


def pytest_collection_finish():
    """Take the tests themselves out of the garbage collections that many of them ask for."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    random.seed(0)
    numpy.random.seed(0)


def pytest_runtest_logreport(report):
    # A test may fail and its clean-up, too.
    word = f"{report.when} {report.outcome}" + (" x" if hasattr(report, "wasxfail") else "")
    outcomes.setdefault(report.nodeid, []).append(word)


def pytest_sessionfinish():
    with open(os.environ["OUTCOMES"], "w") as file:
        json.dump(outcomes, file)
