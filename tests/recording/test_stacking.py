"""What several processes hold together, against sums made one instant at a time."""

import random

from memlimits.recording import Writer, load
from memlimits.recording.stacking import stack, totals


def made(path, seed):
    """Processes that begin, hold this and that at common instants and others, and end."""
    chance = random.Random(seed)
    with Writer(path, at=0.0) as writer:
        for at in range(60):
            for pid in range(6):
                if pid * 5 <= at <= 30 + pid * 5 and chance.random() < 0.7:
                    writer.sample(float(at), pid, footprint=chance.randrange(1000))
                if at == 30 + pid * 5 and pid % 2:
                    writer.end(at + 0.5, pid, "exited")
    return load(path).processes


def at_once(processes, at):
    samples = [process.sample_at(at) for process in processes]
    return sum(sample.footprint for sample in samples if sample)


def test_sums_are_those_at_each_instant(tmp_path):
    for seed in range(20):
        processes = made(tmp_path / "a.rec", seed)
        found = totals(processes)
        assert [at for at, _ in found] == sorted({at for at, _ in found})
        assert found == [(at, at_once(processes, at)) for at, _ in found]
        assert max(size for _, size in found) == max(
            at_once(processes, s.at) for process in processes for s in process.samples
        )


def test_groups_add_up_and_the_highest_instant_stays(tmp_path):
    for seed in range(20):
        processes = made(tmp_path / "a.rec", seed)
        groups = [processes[:1], processes[1:3], processes[3:]]
        for most in (1000, 10, 3):
            times, heights = stack(groups, most)
            assert len(times) <= max(most, 3) + 1
            for group, row in zip(groups, heights, strict=True):
                assert row == [at_once(group, at) for at in times]
            sums = [sum(one) for one in zip(*heights, strict=True)]
            assert max(sums) == max(size for _, size in totals(processes))


def test_of_nothing_there_is_nothing(tmp_path):
    assert totals([]) == []
    assert stack([[]], 10) == ([], [[]])
