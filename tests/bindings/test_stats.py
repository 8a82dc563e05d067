"""`memlimits.stats()`: each counter against what the test itself did."""

import inspect
import pickle
import re
import subprocess
import sys
import threading

import pytest

import memlimits
from memlimits import memory
from memlimits._bindings.allocator import BLOCKED_BY, Allocator
from memlimits._bindings.buffer import allocate_in
from memlimits.figures import SIZES, Holder, Stats, holders_html
from support.blocks import private, strict
from support.kernel import needs_lockable
from support.threads import in_thread, run_threads
from support.units import KIB, MIB, PAGE

pytestmark = pytest.mark.inside


def of(allocator, *, reset_peak=False):
    return Stats(allocator.statistics(reset_peak))


def test_limits_are_those_that_are_set():
    memlimits.set_idle_timeout(30)
    try:
        with memlimits.limits(memory=64 * MIB, cache=5 * MIB, wired=4096, policy="wait", timeout=2):
            stats = memlimits.stats()
    finally:
        memlimits.set_idle_timeout(None)
    assert (stats.memory_limit, stats.cache_limit, stats.wired_limit) == (64 * MIB, 5 * MIB, 4096)
    assert (stats.policy, stats.policy.timeout, stats.idle_timeout) == ("wait", 2, 30)
    assert memlimits.stats().idle_timeout is None


def test_it_cannot_be_changed_and_can_be_compared_copied_and_sent():
    stats = memlimits.stats()
    with pytest.raises(AttributeError, match="cannot be changed: active"):
        stats.active = 0
    with pytest.raises(AttributeError, match="cannot be changed: active"):
        del stats.active
    stats._asdict()["active"] = -1
    assert stats.active >= 0
    again = pickle.loads(pickle.dumps(stats))
    assert again == stats
    assert hash(again) == hash(stats)
    assert stats != memlimits.stats()._asdict()


def test_every_attribute_is_there_annotated_and_documented():
    stats = memlimits.stats()
    names = set(stats._asdict())
    counts = (
        "resources slabs heaps hits misses steals evictions overruns wires wire_failures commits"
    )
    counts += " registrations registration_failures trims pressure_trims decays waiting waits"
    others = ("policy", "memory_count", "idle_timeout", "waited_seconds")
    refusals = {name for name in names if name.startswith("refusals")}
    assert names - SIZES == {*counts.split(), *refusals, *others}
    assert names == set(Stats.__annotations__)
    attributes = inspect.cleandoc(Stats.__doc__).partition("\nSee Also\n")[0]
    heads = re.findall(r"^(\w[\w, ]*) : ", attributes, re.MULTILINE)
    assert {name for head in heads for name in head.split(", ")} == names
    assert names >= SIZES
    assert names >= {f"refusals_by_{cause}" for cause in BLOCKED_BY[1:]}
    assert names >= set(memory.counters()) - {"waited_ns"}
    assert {type(stats._asdict()[name]) for name in SIZES} == {int}


def test_people_read_it():
    allocator = private()
    held = allocate_in(allocator, 3 * MIB)
    lines = repr(of(allocator)).splitlines()
    assert lines[0] == "Stats"
    shown = dict(line.split(None, 1) for line in lines[1:])
    assert shown["active"] == f"{held.capacity:,} bytes"
    assert shown["resources"] == "1"
    assert shown["waited_seconds"] == "0.0 s"


def test_it_imports_nothing_heavy():
    script = (
        "import sys; before = set(sys.modules); import memlimits; memlimits.stats(); "
        "own = ('memlimits', '_cython', 'cython'); "
        "print({name for name in set(sys.modules) - before if not name.startswith(own)})"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "set()"


@pytest.mark.core
def test_hits_misses_resources_and_the_largest_idle():
    allocator = private()
    sizes = [MIB, 3 * MIB, 2 * MIB]
    held = [allocate_in(allocator, n) for n in sizes]
    stats = of(allocator)
    assert (stats.hits, stats.misses, stats.resources) == (0, 3, 3)
    assert stats.largest_idle == stats.cache == 0
    for block in held[:2]:
        block.release()
    assert of(allocator).largest_idle == 3 * MIB
    held[1] = allocate_in(allocator, 3 * MIB)
    stats = of(allocator)
    assert (stats.hits, stats.misses) == (1, 3)
    assert stats.largest_idle == stats.cache == MIB
    assert stats.active == stats.footprint - MIB == 5 * MIB


@pytest.mark.core
def test_slabs():
    allocator = private()
    sizes = [64, 1000, 5000, 32 * KIB]
    held = [allocate_in(allocator, n) for n in sizes for _ in range(3)]
    stats = of(allocator)
    assert stats.slabs == stats.resources == len(sizes)
    assert stats.largest_idle == 0
    held.append(allocate_in(allocator, MIB))
    assert (of(allocator).slabs, of(allocator).resources) == (len(sizes), len(sizes) + 1)
    for block in held[:-1]:
        block.release()
    stats = of(allocator)
    assert stats.largest_idle == stats.cache - (3 * 64 * KIB) == 256 * KIB
    allocator.clear_cache()
    assert (of(allocator).slabs, of(allocator).resources) == (0, 1)


@pytest.mark.core
def test_the_largest_idle_of_a_bin_and_of_what_is_purgeable():
    allocator = private()
    allocator.set_idle_timeout(None)
    page = 4096
    blocks = [allocate_in(allocator, MIB + n * page) for n in (0, 8, 4)]
    longest = max(block.capacity for block in blocks)
    for block in blocks:
        block.release()
    assert of(allocator).largest_idle == longest
    assert of(allocator).purgeable == 0
    allocator.set_idle_timeout(0)
    stats = of(allocator)
    assert stats.largest_idle == longest
    assert stats.purgeable == stats.cache == sum(block.capacity for block in blocks)


@pytest.mark.core
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_the_largest_idle_where_one_bin_has_several_lengths(order):
    """Which it has where limits are near, since lengths are rounded to those of bins else."""
    allocator = strict(0)
    sizes = [MIB + n * PAGE for n in (1, 2, 3)]
    blocks = []
    for n in sizes:
        allocator.set_memory_limit(allocator.get_active_memory() + n)
        blocks.append(allocate_in(allocator, n))
    assert [block.capacity for block in blocks] == sizes
    for i in order:
        blocks[i].release()
    assert of(allocator).largest_idle == sizes[-1]


@pytest.mark.core
def test_the_largest_idle_is_a_page():
    allocator = strict(PAGE)
    allocate_in(allocator, 100).release()
    assert of(allocator).largest_idle == PAGE
    assert of(allocator, reset_peak=True).largest_idle == PAGE
    stats = of(allocator)  # since the stop it is no slab
    assert (stats.largest_idle, stats.slabs) == (PAGE, 0)


@pytest.mark.core
def test_steals():
    """Near the limit a thread takes what another has idle."""
    allocator = strict(8 * MIB)
    ready, go = threading.Event(), threading.Event()

    def other():
        blocks = [allocate_in(allocator, MIB) for _ in range(8)]
        del blocks
        ready.set()
        go.wait(10)

    taken = []

    def mine():
        ready.wait(10)
        assert of(allocator).steals == 0
        taken.extend(allocate_in(allocator, MIB) for _ in range(5))
        go.set()

    run_threads(other, mine)
    stats = of(allocator)
    assert stats.hits == 5
    assert 1 <= stats.steals <= 5  # several at a time
    assert stats.misses == 8


@pytest.mark.core
@pytest.mark.host
def test_a_stolen_block_that_is_split_is_one_hit():
    allocator = strict(8 * MIB)
    ready, done = threading.Event(), threading.Event()

    def other():
        rest = allocate_in(allocator, 3 * MIB)
        allocate_in(allocator, 5 * MIB).release()
        ready.set()
        done.wait(10)
        rest.release()

    def mine():
        ready.wait(10)
        assert allocate_in(allocator, 3 * MIB).capacity == 3 * MIB
        done.set()

    run_threads(other, mine)
    stats = of(allocator)
    assert (stats.misses, stats.hits, stats.steals) == (2, 1, 1)


@pytest.mark.core
def test_evictions():
    allocator = private()
    for n in (MIB, 2 * MIB, 4 * MIB):
        allocate_in(allocator, n).release()
    held = [allocate_in(allocator, n) for n in (MIB, 2 * MIB)]
    idle = of(allocator).cache
    assert of(allocator).evictions == of(allocator).evicted == 0
    allocator.clear_cache()
    stats = of(allocator)
    assert stats.evicted == idle
    held.pop().release()
    allocator.set_cache_limit(0)
    after = of(allocator)
    assert (after.evictions, after.evicted) == (stats.evictions + 1, stats.evicted + 2 * MIB)


@pytest.mark.core
def test_refusals_by_cause():
    allocator = strict(MIB)
    longest = allocator.device_info()["max_buffer_length"]
    for n, times in ((2 * MIB, 3), (longest + 1, 2)):
        for _ in range(times):
            with pytest.raises(memlimits.MemoryLimitError):
                allocate_in(allocator, n)
    stats = of(allocator)
    assert (stats.refusals, stats.refusals_by_limit, stats.refusals_by_max_buffer_length) == (
        5,
        3,
        2,
    )
    assert stats.refusals_by_system == stats.refusals_by_device == 0


@pytest.mark.core
def test_overruns():
    allocator = private()
    allocator.set_memory_limit(MIB)
    held = [allocate_in(allocator, MIB) for _ in range(3)]
    assert of(allocator).overruns == len(held) - 1


@pytest.mark.host
@needs_lockable(4 * MIB)
def test_wires_and_commits():
    allocator = Allocator()
    held = [allocate_in(allocator, MIB) for _ in range(2)]
    assert (of(allocator).wires, of(allocator).commits) == (0, 0)
    allocator.set_wired_limit(4 * MIB)
    stats = of(allocator)
    assert (stats.wires, stats.wired, stats.wire_failures) == (2, 2 * MIB, 0)
    assert stats.commits >= 1
    allocator.set_wired_limit(0)
    after = of(allocator)
    assert (after.wires, after.wired) == (2, 0)
    assert after.commits > stats.commits
    del held


@pytest.mark.core
def test_waits():
    allocator = private()
    allocator.set_memory_limit(MIB)
    allocator.set_memory_policy("wait", 0.05)
    held = allocate_in(allocator, MIB)
    with pytest.raises(memlimits.MemoryLimitError):
        in_thread(lambda: allocate_in(allocator, MIB))
    stats = of(allocator)
    assert (stats.waits, stats.waiting, stats.refusals) == (1, 0, 1)
    assert 0.05 <= stats.waited_seconds < 5
    held.release()


@pytest.mark.core
def test_the_peak_after_a_reset_is_that_of_what_is_taken_then():
    allocator = private()
    blocks = [allocate_in(allocator, n) for n in (MIB, 2 * MIB)]
    for block in blocks:
        block.release()
    assert of(allocator, reset_peak=True).peak == 3 * MIB
    held = allocate_in(allocator, MIB)
    assert of(allocator).peak == held.capacity == MIB


@pytest.mark.core
def test_no_peak_is_lost_where_it_is_read_and_reset_in_one_step():
    allocator = private()
    peaks = []
    done = threading.Event()
    count = 400

    def work():
        try:
            for n in range(1, count + 1):
                # Each is the highest until it was seen.
                allocate_in(allocator, n * 64 * KIB).release()
        finally:
            done.set()

    def read():
        while not done.is_set():
            peaks.append(of(allocator, reset_peak=True).peak)

    run_threads(work, read)
    peaks.append(of(allocator, reset_peak=True).peak)
    assert max(peaks) >= count * 64 * KIB
    assert of(allocator).peak == 0
    held = allocate_in(allocator, MIB)
    assert of(allocator).peak == held.capacity
    assert of(allocator, reset_peak=True).peak == held.capacity
    assert allocator.get_peak_memory() == 0


# ---- as HTML ----


def test_a_table_for_jupyter():
    block = memlimits.allocate(3 * MIB)
    html = memlimits.stats()._repr_html_()
    block.release()
    first, rest = html.split("<details>")
    assert "<td" in first
    rows = dict(re.findall(r"<tr[^>]*><td[^>]*>(\w+)</td><td[^>]*>([^<]*)</td></tr>", html))
    assert re.findall(r">(\w+)</td><td", first)[:3] == ["memory_limit", "policy", "footprint"]
    assert "wired" in rest
    assert set(rows) == set(Stats.__annotations__)
    assert rows["active"] == "3 MiB"
    assert rows["idle_timeout"] == "None"
    memlimits.set_memory_limit(1 << 63)
    assert ">none<" in memlimits.stats()._repr_html_()


def test_colours_are_those_of_the_page():
    """So it can be read on light and on dark ones."""
    html = memlimits.stats()._repr_html_() + holders_html([])
    assert set(re.findall(r"(?<![\w-])color:(\w+)|background:(\w+)", html)) == {
        ("inherit", ""), ("", "none")
    }  # fmt: skip


def test_what_the_program_named_is_text():
    name = "<b title=\"x\" id='y'>&amp;\udcff"
    html = holders_html([Holder(name, 7, name, 5 * MIB, 1200, ())])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    shown = "&lt;b title=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;\\udcff"
    assert cells == [shown, f"{shown}:7", "5 MiB", "1,200"]
    nowhere = holders_html([Holder("", 0, "no Python", 1, 1, ())])
    assert re.findall(r"<td[^>]*>(.*?)</td>", nowhere)[:2] == ["no Python", ""]


def test_a_snapshot_is_a_table_too():
    memlimits.set_holder_sampling(MIB)
    block = memlimits.allocate(7 * MIB)
    shown = memlimits.snapshot()._repr_html_()
    memlimits.set_holder_sampling(None)
    block.release()
    assert ">active<" in shown.split("<details>")[0]
    assert "test_a_snapshot_is_a_table_too" in shown.split("</details>")[1]
    assert ">7 MiB<" in shown.split("</details>")[1]
