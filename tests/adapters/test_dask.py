"""Dask's workers under limits: a task that takes too much fails, and no worker is lost."""

import re
import time

import pytest

from support.commands import runner
from support.places import ROOT
from support.tasks import (
    beside_objects,
    filled,
    idle_after,
    in_little_parts,
    pid,
    settings,
    too_much,
)
from support.units import MIB

distributed = pytest.importorskip("distributed")

from memlimits.adapters.dask import MemoryLimits  # noqa: E402 - needs what was looked for

pytestmark = [
    pytest.mark.host,
    # Its own, when a cluster closes.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LIMIT = 512 * MIB
SHARE = int(LIMIT * 0.8 * 15 / 16)


def cluster(**options):
    return distributed.LocalCluster(
        **{
            "n_workers": 2,
            "threads_per_worker": 1,
            "memory_limit": LIMIT,
            "dashboard_address": ":0",
            **options,
        }
    )


@pytest.fixture(scope="module")
def processes():
    """A client of two workers, each in a process of its own below a nanny."""
    with cluster() as workers, distributed.Client(workers) as client:
        yield client


@pytest.fixture
def register(processes):
    """Register the plugin, which is removed when the test is over."""

    def register(**options):
        processes.register_plugin(MemoryLimits(**options))
        return processes

    yield register
    processes.unregister_worker_plugin("memlimits")


def notes_of(future):
    error = future.exception()
    assert isinstance(error, MemoryError), error
    return getattr(error, "__notes__", [])


def is_refused(future):
    return any(note.startswith("memlimits: refused ") for note in notes_of(future))


def test_a_task_of_too_much_fails_and_its_worker_goes_on(register):
    client = register()
    before = client.run(pid)
    sizes = [n * MIB for n in (8, 600, 9, 601, 10)]
    futures = client.map(filled, sizes, pure=False)
    distributed.wait(futures, timeout=30)
    ends = [future.status for future in futures]
    assert ends == ["finished", "error", "finished", "error", "finished"]
    assert all(is_refused(future) for future in futures if future.status == "error")
    assert [future.result() for future in futures[::2]] == sizes[::2]
    assert client.run(pid) == before


@pytest.mark.parametrize("task", [too_much, in_little_parts, beside_objects])
def test_workers_outlive_many_tasks_that_never_have_enough(register, task):
    # Of less than Dask allows, which ends a worker itself that has too much in objects.
    client = register(memory_limit="150 MiB")
    before = client.run(pid)
    futures = client.map(task, range(12), pure=False)
    distributed.wait(futures, timeout=60)
    assert all(is_refused(future) for future in futures)
    assert client.submit(filled, MIB, pure=False).result(timeout=10) == MIB
    assert client.run(pid) == before


def seconds_until_error(client, task):
    """With a task that has run before, so that what it imports is there."""
    started = time.monotonic()
    error = client.submit(task, 0, pure=False).exception(timeout=100)
    return time.monotonic() - started, error


def test_with_the_plugin_no_worker_is_lost_and_without_all_are():
    with cluster() as workers, distributed.Client(workers) as client:
        client.register_plugin(MemoryLimits())
        client.run(filled, MIB)
        before = client.run(pid)
        seconds, error = seconds_until_error(client, too_much)
        assert isinstance(error, MemoryError)
        assert seconds < 10
        assert client.run(pid) == before
        client.unregister_worker_plugin("memlimits")
        client.register_plugin(AllowFailures(1))
        _seconds, error = seconds_until_error(client, too_much)
        assert isinstance(error, distributed.KilledWorker)
        assert not set(before.values()) & set(client.run(pid).values())


class AllowFailures(distributed.SchedulerPlugin):
    """Have a task tried on so many workers more."""

    def __init__(self, number):
        self.number = number

    async def start(self, scheduler):
        scheduler.allowed_failures = self.number


def test_the_share_lies_below_where_dask_pauses(register):
    client = register()
    assert set(client.run(settings).values()) == {(SHARE, "strict", "process")}


def test_what_is_given_holds(register):
    client = register(memory_limit="300 MiB", policy="wait", timeout=0.01)
    assert set(client.run(settings).values()) == {(300 * MIB, "wait", "process")}
    assert client.submit(filled, 8 * MIB, pure=False).result(timeout=60) == 8 * MIB
    assert is_refused(client.submit(filled, 301 * MIB, pure=False))


def test_a_worker_that_starts_later_is_governed(register):
    client = register()
    before = set(client.run(pid).values())
    client.restart()
    assert not before & set(client.run(pid).values())
    assert set(client.run(settings).values()) == {(SHARE, "strict", "process")}


def test_what_was_set_before_holds_again(processes):
    before = processes.run(settings)
    processes.register_plugin(MemoryLimits())
    assert processes.run(settings) != before
    processes.unregister_worker_plugin("memlimits")
    assert processes.run(settings) == before


def test_little_idle_memory_is_kept(register):
    client = register()
    assert client.submit(idle_after, 200 * MIB, pure=False).result(timeout=60) <= SHARE // 16


def test_a_worker_without_a_limit_needs_one():
    with (
        cluster(n_workers=1, processes=False, memory_limit=0) as workers,
        distributed.Client(workers) as client,
    ):
        with pytest.raises(ValueError, match="the worker has no memory limit of Dask's"):
            client.register_plugin(MemoryLimits())
        before = settings()
        client.register_plugin(MemoryLimits(memory_limit=SHARE))
        assert settings()[0] == SHARE
        client.unregister_worker_plugin("memlimits")
        assert settings() == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"memory_limit": "much"}, ValueError, "much"),
        ({"memory_limit": -1}, ValueError, "memory_limit must be above 0 bytes, not -1"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be above 0 bytes, not 0"),
        ({"memory_limit": 1.5}, TypeError, "memory_limit must be bytes, or Dask's words, not 1.5"),
        ({"policy": "hope"}, ValueError, "policy must be 'guideline'.*'hope'"),
        ({"timeout": 3}, ValueError, "timeout is of the policy 'wait'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options, error, message):
    with pytest.raises(error, match=message):
        MemoryLimits(**options)


# ---- below `memlimits run` ----

PROGRAM = """
import sys

def settings():
    import os, memlimits
    return memlimits.get_memory_limit(), memlimits.get_memory_count(), os.getpid()

def filled(nbytes):
    import numpy
    return int(numpy.ones(nbytes, "u1").sum(dtype="u8"))

if __name__ == "__main__":
    import distributed
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=sys.argv[1], dashboard_address=":0"
    ) as cluster, distributed.Client(cluster) as client:
        if sys.argv[2:]:
            from memlimits.adapters.dask import MemoryLimits
            client.register_plugin(MemoryLimits())
        before = client.run(settings)
        ends = [client.submit(filled, n << 20).exception() for n in (8, 1100)]
        print({limit >> 20 for limit, _, _ in before.values()})
        print({count for _, count, _ in before.values()})
        print(ends[0], type(ends[1]).__mro__[-4].__name__, *ends[1].__notes__)
        print(client.run(settings) == before)
"""


@pytest.mark.parametrize(
    ("words", "limit"), [(["2GiB"], 1024), (["512MiB", "plugin"], 384)], ids=["without", "with"]
)
def test_below_the_command_workers_are_governed(tmp_path, words, limit):
    done = runner(tmp_path)(PROGRAM, "--memory-limit=1GiB", args=words, text=True)
    limits, counts, ends, same = done.stdout.splitlines()
    assert (limits, counts, same) == (str({limit}), "{'given'}", "True"), done.stdout
    assert ends.startswith("None MemoryError memlimits: refused 1.07 GiB"), ends
    assert "all processes: peak" in done.stderr


def test_what_the_guide_shows_is_run():
    """On two workers: its four would wait for the processors."""
    page = (ROOT / "docs/guides/workers.md").read_text()
    [program] = re.findall(r"^```python\n(import distributed\n.*?)^```$", page, re.M | re.S)
    names = {}
    exec(program.replace("n_workers=4", 'n_workers=2, dashboard_address=":0"'), names)
    with names["client"] as client:
        future = client.submit(filled, 4 << 30)
        assert is_refused(future)
        assert client.submit(filled, MIB).result() is not None
