"""The lock that its owner does without: nobody is ever inside together with it."""

import shutil

import pytest

from support import extensions
from support.places import ROOT
from support.threads import run_threads

TIMES = 1_000_000

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture(scope="module")
def lock(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lock")
    # It is not installed with the package.
    shutil.copy(ROOT / "memlimits" / "_heap" / "lock.pxd", folder / "lock_under_test.pxd")
    extensions.build(folder, "lock.pyx")
    with extensions.imported(folder, "lock") as module:
        yield module


def test_an_owner_that_is_left_alone_does_without(lock):
    count = lock.Count()
    count.raise_as_owner(TIMES)
    assert count.total == TIMES
    assert 0.99 * TIMES < count.without <= TIMES


def test_another_thread_ends_that(lock):
    count = lock.Count()
    count.raise_as_owner(TIMES)
    assert count.raise_as_another(TIMES, 0) == 0
    assert count.raise_as_another(TIMES + 1, 0) == 1
    alone = count.without
    count.raise_as_owner(10)
    assert count.without == alone
    count.raise_as_owner(TIMES)
    assert count.without > alone


@pytest.mark.parametrize("pause", [100, 1000, 10_000])
def test_nothing_is_counted_twice_or_lost(lock, pause):
    count = lock.Count()
    others = []
    run_threads(
        lambda: others.append(count.raise_as_another(30 * TIMES, pause)),
        lambda: count.raise_as_owner(30 * TIMES),
    )
    assert count.total == 30 * TIMES + others[0]
    assert count.without > 0 < others[0]
