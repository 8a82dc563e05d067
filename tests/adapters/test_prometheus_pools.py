"""The metrics of pools, told by a member and from outside."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest

import memlimits
from memlimits import pools
from memlimits.adapters._figures import COUNTERS_OF_MEMBERS, OF_MEMBERS
from memlimits.adapters.prometheus import PoolCollector
from support.commands import runner

pytestmark = [pytest.mark.host, pytest.mark.inside]
MIB = 1 << 20

# Takes so many MiB in a pool, is refused once, and waits for a line.
MEMBER = """
import sys, memlimits
memlimits.set_memory_policy("strict")
memlimits.join(sys.argv[1])
block = memlimits.allocate(int(sys.argv[2]) << 20)
try:
    memlimits.allocate(1 << 30)
except memlimits.MemoryLimitError:
    print(flush=True)
input()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    return tmp_path


@pytest.fixture
def join():
    """Start a member, which is there when this returns."""
    started = []

    def start(name, mebibytes):
        words = [sys.executable, "-c", MEMBER, name, str(mebibytes)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(words, **pipes))
        assert started[-1].stdout.readline() == b"\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def told(collector):
    """Each sample by its name and labels."""
    return {
        (sample.name.removeprefix("memlimits_pool_"), *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_members_of_one_command_are_one_series(join):
    pools.create("shared", 256 * MIB)
    collector = PoolCollector("shared", registry=None)
    assert not [labels for labels in told(collector) if labels[0] == "members"]
    first, second = join("shared", 20), join("shared", 30)
    facts = pools.get("shared")
    command = "-c"
    seen = told(collector)
    assert seen["members", "shared", command] == 2
    active = seen["member_active_bytes", "shared", command]
    assert 50 * MIB <= active <= 52 * MIB
    assert seen["limit_bytes", "shared"] == 256 * MIB
    assert seen["refusals_total", "shared"] == facts["refusals"] == 2
    assert not [labels for labels in seen if str(first.pid) in labels]
    first.kill()
    first.wait()
    seen = told(collector)
    assert seen["members", "shared", command] == 1
    assert 30 * MIB <= seen["member_active_bytes", "shared", command] < 40 * MIB
    assert (seen["ended_total", "shared"], seen["vanished_total", "shared"]) == (1, 1)
    second.communicate(b"\n")
    seen = told(collector)
    assert not [labels for labels in seen if command in labels]
    assert (seen["ended_total", "shared"], seen["vanished_total", "shared"]) == (2, 1)
    assert seen["refusals_total", "shared"] == 2
    assert seen["peak_bytes", "shared"] >= 50 * MIB


def test_by_process_each_has_its_pid_until_it_ends(join):
    pools.create("shared", 256 * MIB)
    collector = PoolCollector("shared", registry=None, by_process=True)
    members = [join("shared", 20), join("shared", 30)]
    seen = told(collector)
    [command] = {labels[2] for labels in seen if labels[0] == "members"}
    for member, mebibytes in zip(members, (20, 30), strict=True):
        labels = ("shared", command, str(member.pid))
        assert 0 <= seen["member_active_bytes", *labels] - mebibytes * MIB < MIB
        assert seen["member_refusals_total", *labels] == 1
    members[0].kill()
    members[0].wait()
    pids = {labels[3] for labels in told(collector) if labels[0] == "members"}
    assert pids == {str(members[1].pid)}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["{python}", "-c", "input() # TOKEN"], "-c"),
        (["{python}", "-u", "./serve.py", "--key", "TOKEN"], "serve.py"),
        (["{python}", "-m", "serve", "TOKEN"], "serve"),
        (["{python}", "-m", "memlimits", "run", "--quiet", "serve.py", "TOKEN"], "serve.py"),
    ],
    ids=str,
)
def test_the_command_is_the_program_without_its_arguments(folder, words, name):
    pools.create("shared", 256 * MIB)
    (folder / "serve.py").write_text("import memlimits; memlimits.join('shared'); print(); input()")
    words = [word.format(python=sys.executable) for word in words]
    if name == "-c":
        words[2] = "import memlimits as m; m.join('shared'); print(); input() # TOKEN"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=folder, **pipes) as process:
        process.stdout.readline()
        seen = told(PoolCollector("shared", registry=None))
        process.communicate(b"\n")
    assert [labels[2] for labels in seen if labels[0] == "members"] == [name]
    assert "TOKEN" not in str(seen)


def test_commands_are_bounded(folder):
    """Of programs whose names come without end, as those of jobs."""
    pools.create("shared", 256 * MIB)
    collector, names = PoolCollector("shared", registry=None), set()
    for i in range(55):
        member = {"command": f"job{i}.py", "pid": i, "waiting_since": None}
        member |= dict.fromkeys((*OF_MEMBERS, *COUNTERS_OF_MEMBERS), 1)
        facts = pools.get("shared") | {"members": [member]}
        for family in collector._metrics([("shared", facts)]):
            names |= {one.labels["command"] for one in family.samples if "command" in one.labels}
    assert names == {*(f"job{i}.py" for i in range(50)), "other"}


def test_a_pool_that_cannot_be_read_leaves_the_others(folder):
    pools.create("good", 64 * MIB)
    (folder / "bad.pool").write_bytes(b"no pool")
    for names in (("good", "bad", "missing"), ("*", "good")):
        registry = CollectorRegistry()
        PoolCollector(*names, registry=registry)
        value = registry.get_sample_value
        success = [value("memlimits_pool_scrape_success", {"pool": n}) for n in ("good", "bad")]
        assert success == [1, 0]
        limits = [value("memlimits_pool_limit_bytes", {"pool": n}) for n in ("good", "bad")]
        assert limits == [64 * MIB, None]
        assert generate_latest(registry).count(b"memlimits_pool_limit_bytes{") == 1


def test_all_pools_are_those_of_the_moment():
    collector = PoolCollector("*", registry=None)
    assert told(collector) == {}
    pools.create("later", 64 * MIB)
    assert told(collector)["limit_bytes", "later"] == 64 * MIB
    pools.remove("later")
    assert told(collector) == {}


def test_without_a_name_it_is_the_pool_that_this_process_is_in():
    collector = PoolCollector(registry=None)
    assert told(collector) == {}
    with memlimits.join("mine", limit=64 * MIB), memlimits.allocate(3 * MIB):
        seen = told(collector)
        [(_, _, command)] = [labels for labels in seen if labels[0] == "member_active_bytes"]
        active = seen["member_active_bytes", "mine", command]
        assert active == memlimits.get_active_memory() >= 3 * MIB
    assert told(collector) == {}


@pytest.mark.parametrize(
    ("name", "error"), [("a b", ValueError), ("", ValueError), (3, TypeError)], ids=repr
)
def test_what_is_no_name(name, error):
    with pytest.raises(error, match=r"pool.* name"):
        PoolCollector(name, registry=None)


TREE = """
import multiprocessing, os, signal
from prometheus_client import CollectorRegistry, generate_latest
from memlimits.adapters.prometheus import PoolCollector
import numpy

def work(pipe):
    array = numpy.ones(20 << 20, numpy.uint8)
    try:
        numpy.ones(1 << 30, numpy.uint8)
    except MemoryError:
        pass
    pipe.send(told())
    pipe.recv()

def told():
    registry = CollectorRegistry()
    PoolCollector(registry=registry)
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            assert sample.labels["pool"] == ""
            name = sample.name.removeprefix("memlimits_pool_")
            found[name] = found.get(name, 0) + sample.value
    return found

if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    here, there = context.Pipe()
    child = context.Process(target=work, args=[there])
    child.start()
    assert here.poll(50)
    inside, outside = here.recv(), told()
    print(inside["members"], outside["members"], inside["limit_bytes"] / 2**20)
    print(outside["member_active_bytes"] >= 20 << 20, outside["refusals_total"])
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    after = told()
    print(after["members"], after["refusals_total"], after["vanished_total"])
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_below_the_command(tmp_path, method):
    """Every one of them can tell of all, also who is not asked for its own figures."""
    run = runner(tmp_path)
    done = run(TREE.replace("METHOD", method), "--memory-limit=200MiB", "--govern=numpy", text=True)
    first, second, third = done.stdout.splitlines()
    assert first.split()[2] == "200.0"
    # Below spawn there is what tracks resources, too.
    assert float(first.split()[0]) == float(first.split()[1]) >= 2
    assert second == "True 1"
    assert third.split()[1:] == ["1", "1"]
    assert os.listdir(tmp_path) == ["program.py"]
