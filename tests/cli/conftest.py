"""What several files of this room use."""

import pytest

from support.browser import started
from support.children import environment
from support.recordings import record


@pytest.fixture(scope="module")
def browser():
    """One for all tests of a file: to start it takes longer than most of them."""
    with started() as one:
        yield one


@pytest.fixture
def environ(tmp_path):
    """For commands whose pools lie in a folder of the test's own."""
    (tmp_path / "pools").mkdir()
    return environment(tmp_path, MEMLIMITS_POOLS=str(tmp_path / "pools"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the pools lie of this process, and of those that it starts."""
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of two processes, with refusals, a snapshot and holders."""
    return record(tmp_path_factory.mktemp("recorded"))
