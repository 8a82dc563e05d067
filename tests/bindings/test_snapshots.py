"""What lives, and who holds it, at one instant: against the test's own books."""

import pickle

import pytest

import memlimits
from memlimits import figures
from support.process import run
from support.units import MIB


@pytest.fixture
def sampling():
    memlimits.set_holder_sampling(1 << 18)
    yield
    memlimits.set_holder_sampling(None)


def test_its_blocks_are_the_footprint():
    held = [memlimits.allocate(n) for n in (300, 5000, 70_000, MIB, 3 * MIB)]
    memlimits.allocate(2 * MIB).release()
    found = memlimits.snapshot()
    stats = found.stats
    assert sum(block.nbytes for block in found.blocks) == stats.footprint
    assert sum(block.used for block in found.blocks) == stats.active
    assert len(found.blocks) == stats.resources
    assert sum(block.state == "slab" for block in found.blocks) == stats.slabs
    idle = [block for block in found.blocks if block.state == "idle"]
    assert all(block.used == 0 for block in idle)
    assert sum(block.nbytes for block in idle) >= 2 * MIB
    assert len(held) == 5


def test_its_blocks_lie_where_they_do():
    held = [memlimits.allocate(n) for n in (MIB, 3 * MIB)]
    found = {block.address: block for block in memlimits.snapshot().blocks}
    for block in held:
        found_there = found[address_of(block)]
        assert (found_there.state, found_there.used) == ("block", len(memoryview(block)))
    addresses = list(found)
    assert addresses == sorted(addresses)
    ends = [block.address + block.nbytes for block in found.values()]
    assert all(end <= start for end, start in zip(ends, addresses[1:], strict=False))


def address_of(block):
    np = pytest.importorskip("numpy")
    return np.frombuffer(block, np.uint8).ctypes.data


def hold():
    return memlimits.allocate(4 * MIB)


@pytest.mark.usefixtures("sampling")
def test_its_holders_and_stacks_are_those_of_now():
    block = hold()
    found = memlimits.snapshot()
    assert list(found.holders) == memlimits.holders(None)
    [holder] = [one for one in found.holders if one.function == "hold"]
    assert (holder.nbytes, holder.blocks, holder.file) == (4 * MIB, 1, __file__)
    [noted] = [one for one in found.blocks if one.address == address_of(block)]
    assert noted.stack == holder.stack
    assert noted.stack[-1] == (__file__, hold.__code__.co_firstlineno + 1, "hold")
    del block
    assert "hold" not in [one.function for one in memlimits.snapshot().holders]
    assert holder in found.holders


def test_budgets_are_in_it():
    with memlimits.budget("in a snapshot", limit=8 * MIB):
        block = memlimits.allocate(MIB)
        found = [each for each in memlimits.snapshot().budgets if each["name"] == "in a snapshot"]
    assert found == [{"name": "in a snapshot", "limit": 8 * MIB, "active": MIB, "peak": MIB}]
    block.release()


@pytest.mark.usefixtures("sampling")
def test_it_is_a_value():
    block = hold()
    found = memlimits.snapshot()
    with pytest.raises(AttributeError, match="a snapshot cannot be changed: pid"):
        found.pid = 1
    with pytest.raises(AttributeError, match="a snapshot cannot be changed: pid"):
        del found.pid
    same = pickle.loads(pickle.dumps(found))
    assert isinstance(same, figures.Snapshot)
    assert (same.at, same.stats, same.blocks) == (found.at, found.stats, found.blocks)
    assert "hold (" in repr(found)
    block.release()


@pytest.mark.usefixtures("sampling")
def test_it_can_be_written(tmp_path):
    block = hold()
    found = memlimits.snapshot()
    found.write(tmp_path / "now.rec")
    entries = list(memlimits.recording.Reader(tmp_path / "now.rec"))
    [written] = [entry for entry in entries if entry["kind"] == "snapshot"]
    stacks = {entry["id"]: entry["frames"] for entry in entries if entry["kind"] == "stack"}
    assert (written["at"], written["stats"]["active"]) == (found.at, found.stats.active)
    assert [row[:4] for row in written["blocks"]] == [list(each[:4]) for each in found.blocks]
    for row, each in zip(written["blocks"], found.blocks, strict=True):
        assert stacks.get(row[4]) == (each.stack and [list(frame) for frame in each.stack])
    (tmp_path / "other").write_text("of others")
    with pytest.raises(FileExistsError, match="there is something that is no recording"):
        found.write(tmp_path / "other")
    block.release()


def test_a_refusal_keeps_one_if_asked():
    run("""
        memlimits.set_holder_sampling(1 << 18)
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(20 * MIB)
        assert refused_by(50 * MIB) == "limit" and memlimits.refusal_snapshot() is None
        assert memlimits.set_refusal_snapshots(True) is False
        assert memlimits.refusal_snapshot() is None
        def hold():
            return memlimits.allocate(10 * MIB)
        block = hold()
        start = time.time()
        assert refused_by(15 * MIB) == "limit"
        block.release()
        found = memlimits.refusal_snapshot()
        assert start - 1 <= found.at <= time.time()
        assert found.stats.active == 10 * MIB and found.stats.refusals == 2
        [held] = [block for block in found.blocks if block.state == "block"]
        assert held.used == 10 * MIB and held.stack[-1][2] == "hold"
        assert [holder.function for holder in found.holders] == ["hold"]
        assert memlimits.set_refusal_snapshots(False) is True
        assert memlimits.refusal_snapshot() is None
        """)


def test_refusals_that_follow_each_other_have_not_one_each():
    """A look at ten thousand resources each time would be what all the time goes into."""
    run("""
        memlimits.set_memory_policy("strict")
        blocks = [memlimits.allocate(40_000) for _ in range(10_000)]
        memlimits.set_memory_limit(memlimits.stats().footprint + MIB)
        memlimits.set_refusal_snapshots(True)
        seen = set()
        for _ in range(300):
            assert refused_by(100 * MIB) == "limit"
            seen.add(memlimits.refusal_snapshot().at)
        assert 1 <= len(seen) < 300, len(seen)
        """)


def test_no_counter_moves_and_nothing_leaks():
    block = memlimits.allocate(MIB)
    memlimits.snapshot()
    before = memlimits.stats()
    for _ in range(20):
        memlimits.snapshot()
    after = memlimits.stats()
    moved = {name for name, value in before._asdict().items() if getattr(after, name) != value} - {
        "process_resident",
        "process_files",
        "process_peak_resident",
    }
    assert moved == set()
    block.release()


@pytest.mark.host
def test_within_a_full_limit_it_can_be_had():
    run("""
        memlimits.set_memory_policy("strict")
        block = memlimits.allocate(8 * MIB)
        memlimits.snapshot()
        memlimits.set_memory_limit(8 * MIB)
        with memlimits.govern_python():
            assert refused_by(MIB) == "limit"
            assert sum(each.used for each in memlimits.snapshot().blocks) >= 8 * MIB
        """)
