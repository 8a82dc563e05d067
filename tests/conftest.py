"""What every test gets: limits as a fresh process has them, and a check that nothing leaked."""

import gc
import os
import subprocess

import hypothesis
import hypothesis.strategies as st
import pytest

# Before NumPy is imported, here and in what the tests start: its BLAS would make a thread a core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
pytest.register_assert_rewrite("support")

import memlimits  # noqa: E402
from memlimits import memory  # noqa: E402
from support import interposed  # noqa: E402
from support.cuda import CARDS, Card, build  # noqa: E402
from support.kernel import with_shared_memory_of_its_own  # noqa: E402
from support.signals import take_signals  # noqa: E402

take_signals()
# Processes leave each other room. Those of other tests at the same time are not met.
with_shared_memory_of_its_own()


def pytest_collection_modifyitems(items):
    if memlimits.device_info()["backend"] != "host":
        skip = pytest.mark.skip(reason="asks what only the host device does")
        for item in items:
            if item.get_closest_marker("host"):
                item.add_marker(skip)


def pytest_collection_finish():
    """Take what lives as long as the tests out of the many collections to come."""
    # Hypothesis makes random numbers of its own, whose owner the collector has to know of then.
    hypothesis.find(st.none(), lambda _: True, settings=hypothesis.settings(database=None))
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def many_steps():
    """Every heap's thread does without its lock from here on, as in a program that runs long."""
    for _ in range(40_000):
        memlimits.allocate(64)
    memlimits.clear_cache()
    memlimits.reset_peak_memory()


@pytest.fixture(autouse=True)
def fresh_limits():
    """Leave the default allocator as it was: the same active bytes, default limits, no cache."""
    gc.collect()
    active = interposed.active()
    limit = memlimits.get_memory_limit()
    yield
    memlimits.set_memory_policy("guideline")
    memlimits.set_memory_limit(limit)
    memlimits.set_cache_limit(None)
    memlimits.set_wired_limit(0)
    gc.collect()
    memlimits.clear_cache()
    assert interposed.active() <= active  # less: a failed test before held some
    assert memlimits.get_wired_memory() == 0
    balance(memory.counters())


def balance(counters):
    """The identity that every snapshot of the counters satisfies."""
    parts = counters["active"] + counters["cache"] + counters["slack"] + counters["pending"]
    assert parts == counters["footprint"]
    assert all(0 <= value < 2**63 for value in counters.values())


@pytest.fixture(scope="session")
def storm(tmp_path_factory):
    """Threads without the GIL, compiled from c_interface/storm.c."""
    from support import extensions

    folder = tmp_path_factory.mktemp("storm")
    extensions.build(folder, "storm.c")
    with extensions.imported(folder, "storm") as module:
        yield module.storm


def preloaded(folders, name):
    from support import extensions

    library = folders.mktemp(name) / f"{name}.so"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run([*words, extensions.SOURCES / f"{name}.c", "-o", library], check=True)
    return library


@pytest.fixture(scope="session")
def gate(tmp_path_factory):
    """A library to be preloaded that holds device calls, compiled from c_interface/gate.c."""
    return preloaded(tmp_path_factory, "gate")


@pytest.fixture(scope="session")
def libc(tmp_path_factory):
    """A library to be preloaded that does what C seldom does, compiled from c_interface/libc.c."""
    return preloaded(tmp_path_factory, "libc")


@pytest.fixture(scope="session", params=CARDS)
def card(request, tmp_path_factory):
    """Where scripts that use CUDA are run: the stand-in, and a GPU where there is one."""
    if request.param == "gpu":
        return Card(None)
    return Card(build(tmp_path_factory.mktemp("cuda")))


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The stand-in for CUDA's driver, for what no driver does when asked."""
    return Card(build(tmp_path_factory.mktemp("cuda")))


@pytest.fixture
def calm():
    """An allocator of the test's own, which no pressure reaches."""
    from memlimits._bindings import system_info
    from support.blocks import private

    allocator = private()
    system_info.set_pressure_trim(allocator, None, None)
    return allocator


@pytest.fixture
def allocator():
    """An allocator of the test's own, of which nothing is wired when the test ends."""
    from support.blocks import private
    from support.kernel import locked

    before = locked()
    allocator = private()
    yield allocator
    allocator.set_wired_limit(0)
    assert locked() == before == 0


@pytest.fixture
def strict():
    """The documented functions under the strict policy, with 64 MiB to be had."""
    from support.units import MIB

    memlimits.clear_cache()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(memlimits.get_active_memory() + 64 * MIB)


@pytest.fixture
def patient():
    """The documented functions under the policy "wait", with 64 MiB to be had."""
    from support.patience import LIMIT

    memlimits.clear_cache()
    memlimits.set_memory_limit(memlimits.get_active_memory() + LIMIT)
    memlimits.set_memory_policy("wait", timeout=20)


@pytest.fixture
def in_group():
    """Words that start a command in a control group of 256 MiB."""
    from support.cgroup import inside, nested, set_limit
    from support.units import MIB

    with nested() as (group,):
        set_limit(group, 256 * MIB)
        yield inside(group)


@pytest.fixture
def blocks():
    """Blocks of the C interface."""
    from support.functions import Blocks

    made = Blocks()
    yield made
    made.free()


@pytest.fixture
def plain_numpy():
    """NumPy as it is, before the test and after it."""
    from support.governed import PLAIN, owner_here

    assert owner_here() == PLAIN
    yield
    assert owner_here() == PLAIN


@pytest.fixture
def govern(plain_numpy):
    """Open govern_numpy(), closed when the test ends in whatever way."""
    with memlimits.govern_numpy() as governing:
        yield governing


@pytest.fixture
def buffered_streams(monkeypatch):
    """With this set, the order in which buffers are flushed would not show."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
