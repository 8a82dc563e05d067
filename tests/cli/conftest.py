"""What several files of this room use."""

import pytest

from support.browser import started


@pytest.fixture(scope="module")
def browser():
    """One for all tests of a file: to start it takes longer than most of them."""
    with started() as one:
        yield one
