"""What the tests of several files here use."""

import pytest

import memlimits
from support.members import LIMIT


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """The pool "p", of LIMIT bytes, in a directory of its own, which is returned."""
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    memlimits.pools.create("p", LIMIT)
    return tmp_path
