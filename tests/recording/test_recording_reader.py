"""What is read of recordings that are cut off, damaged, long, of others, of a later version."""

import json
import os
import tracemalloc

import pytest

from memlimits.recording import History, Reader, RecordingError, Writer, load
from support.recordings import record

FIRST = {"kind": "memlimits recording", "version": 1, "at": 0.0}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recorded"))


def write(path, *entries):
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


def test_a_real_program_is_read_back(recorded):
    history = load(recorded)
    assert history.notes() == []
    parent, child = history.processes
    assert (child.parent, child.ending, child.limits[0][1]) == (parent.pid, "exited", None)
    assert (parent.limits[0][1], parent.peak) == (64 << 20, 47 << 20)
    assert [refusal.requested >> 20 for refusal in history.refusals] == [100, 60]
    held = max(history.held, key=lambda one: one.size)
    assert held.size == 47 << 20
    first = history.holders(held)[0]
    assert (first["nbytes"], first["frames"][-1][1]) == (40 << 20, first["line"])
    assert "load_rows" in first["frames"][2][2]
    peak = history.peak_at()
    assert parent.sample_at(peak).footprint == parent.peak
    assert child.sample_at(peak) is None
    assert child.sample_at(child.first - 1) is None


def test_cut_off_anywhere_all_before_is_read(recorded, tmp_path):
    data = recorded.read_bytes()
    whole = list(Reader(recorded))
    path = tmp_path / "cut.rec"
    first = data.index(b"\n") + 1
    for length in [*range(first, first + 700), *range(first + 700, len(data), 101)]:
        path.write_bytes(data[:length])
        reader = Reader(path)
        found = list(reader)
        ends = data[first:length].count(b"\n")
        assert found[:ends] == whole[:ends]
        assert len(found) - ends in (0, 1)
        # An entry that lacks its newline alone is whole.
        assert reader.cut_off == (len(found) == ends and data[length - 1] != ord("\n"))
        assert reader.damaged == 0


DAMAGED = [
    b"\n",
    b"nonsense\n",
    b"\x00\xff\xfe\n",
    b"[1, 2]\n",
    b'{"at": 1.0}\n',
    b'{"kind": 3}\n',
    b'{"kind": "sample", "at": 1.0, "pid": 1}\n',
    b'{"kind": "sample", "at": 1.0, "pid": 1, "footprint": "many"}\n',
    b'{"kind": "sample", "at": 1.0, "pid": 1, "footprint": -3}\n',
    b'{"kind": "sample", "at": 1.0, "pid": 1, "footprint": 1e400}\n',
    b'{"kind": "sample", "at": NaN, "pid": 1, "footprint": 1}\n',
    b'{"kind": "sample", "at": 1.0, "pid": true, "footprint": 1}\n',
    b'{"kind": "sample", "at": 1.0, "pid": 1, "footprint": 1, "active": []}\n',
    b'{"kind": "stack", "id": 1, "frames": [["a.py", "x", "f"]]}\n',
    b'{"kind": "holders", "at": 1.0, "pid": 1, "holders": [{"nbytes": 3}]}\n',
    b'{"kind": "snapshot", "at": 1.0, "pid": 1, "blocks": [[1, 2, 3, "block", null]]}\n',
    b'{"kind": "snapshot", "at": 1.0, "pid": 1, "blocks": [[1, 2, 2, "other", null]]}\n',
    b"[" * 100_000 + b"\n",
    json.dumps(FIRST).encode() + b"\n",
]


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:70].decode(errors="replace"))
def test_a_damaged_line_is_skipped_and_counted(line, recorded, tmp_path):
    lines = recorded.read_bytes().splitlines(keepends=True)
    path = tmp_path / "torn.rec"
    path.write_bytes(b"".join([*lines[:4], line, *lines[4:]]))
    reader = Reader(path)
    assert list(reader) == list(Reader(recorded))
    assert (reader.damaged, reader.where, reader.cut_off) == (1, 5, False)
    assert load(path).notes() == ["1 damaged lines were skipped, the first of them line 5"]


def test_what_this_version_does_not_know_is_skipped(tmp_path):
    sample = {"kind": "sample", "at": 1.0, "pid": 1, "footprint": 5, "colour": "red"}
    path = write(tmp_path / "a.rec", FIRST, {"kind": "weather", "at": "x"}, sample)
    reader = Reader(path)
    assert list(reader)[1] == sample
    assert reader.damaged == 0
    assert load(path).processes[0].peak == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a recording of memlimits: it is empty"),
        ("print()\n", "not a recording of memlimits: its first line is not that of one"),
        ('{"kind": "sample"}\n', "its first line is not that of one"),
        ("\0" * 100, "its first line is not that of one"),
        ('{"kind": "memlimits recording", "version": 2}\n', "in version 2 of the format, of which"),
        ('{"kind": "memlimits recording", "version": "1", "at": 1}\n', "no right version"),
        ('{"kind": "memlimits recording", "version": 0, "at": 1}\n', "no right version"),
        ('{"kind": "memlimits recording", "version": 1}\n', "has no right at"),
    ],
)
def test_what_is_no_recording_is_refused_with_a_sentence(text, message, tmp_path):
    path = tmp_path / "a.rec"
    path.write_text(text)
    with pytest.raises(RecordingError) as caught:
        Reader(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_process_id_may_be_used_again(tmp_path):
    path = write(
        tmp_path / "a.rec",
        FIRST,
        {"kind": "process", "at": 1.0, "pid": 9, "started": 0.5, "command": "first"},
        {"kind": "sample", "at": 1.0, "pid": 9, "footprint": 100},
        {"kind": "end", "at": 2.0, "pid": 9, "ending": "vanished"},
        {"kind": "refusal", "at": 2.0, "pid": 9, "requested": 7},
        {"kind": "process", "at": 3.0, "pid": 9, "started": 2.5, "command": "second"},
        {"kind": "process", "at": 3.5, "pid": 9, "started": 2.5, "memory_limit": 50},
        {"kind": "sample", "at": 4.0, "pid": 9, "footprint": 10},
    )
    first, second = load(path).processes
    assert (first.command, first.peak, first.ending, first.last) == ("first", 100, "vanished", 2.0)
    assert (second.command, second.peak, second.ending) == ("second", 10, None)
    assert (second.limit_at(4.0), first.limit_at(1.0)) == (50, None)
    assert load(path).refusals[0].process.command == "first"


def test_the_peak_of_all_is_when_they_held_most_together(tmp_path):
    rows = [(1, 1, 50), (2, 2, 30), (3, 1, 10), (4, 2, 60), (5, 1, 25), (6, 3, 80)]
    samples = [{"kind": "sample", "at": at, "pid": p, "footprint": f} for at, p, f in rows]
    end = {"kind": "end", "at": 5.5, "pid": 2, "ending": "exited"}
    path = write(tmp_path / "a.rec", FIRST, *samples[:5], end, samples[5])
    assert load(path).peak_at() == 6  # 25 + 80, process 2 being gone
    path = write(tmp_path / "a.rec", FIRST, *samples[:5])
    assert load(path).peak_at() == 5  # 25 + 60


def test_a_long_recording_takes_bounded_memory_and_keeps_its_peaks(tmp_path):
    """Forty times as long as what may be kept; what goes is what is not the highest of its span."""
    path, peaks = tmp_path / "long.rec", {}
    with Writer(path, max_bytes=1 << 40) as writer:
        for step in range(40_000):
            pid = step % 7
            size = (step * 7919) % 1_000_003
            peaks[pid] = max(peaks.get(pid, 0), size)
            writer.sample(step / 10, pid, footprint=size, active=size, peak=peaks[pid])
    assert path.stat().st_size > 3_000_000
    load(path, most_samples=100)  # what is made once
    tracemalloc.start()
    history = load(path, most_samples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000
    assert {process.pid: process.peak for process in history.processes} == peaks
    kept = [sample.at for process in history.processes for sample in process.samples]
    assert 250 <= len(kept) <= 2000
    assert history.left_out == {"samples": 40_000 - len(kept)}
    assert {at * 10 for at in kept} <= set(range(40_000))  # no average
    first = history.processes[0].samples
    assert [sample.at for sample in first] == sorted(sample.at for sample in first)


def test_more_stacks_processes_and_refusals_than_are_kept(tmp_path):
    path = tmp_path / "a.rec"
    with open(path, "w") as file:
        file.write(json.dumps(FIRST) + "\n")
        for pid in range(6000):
            at = float(pid)
            for entry in (
                {"kind": "sample", "pid": pid, "footprint": (pid * 7919) % 6007},
                {"kind": "refusal", "pid": pid, "requested": (pid * 104729) % 6007},
                {"kind": "holders", "pid": pid, "holders": []},
                {"kind": "pool", "used": pid},
                {"kind": "end", "pid": pid, "ending": "exited"},
            ):
                file.write(json.dumps({"at": at, **entry}) + "\n")
    history = load(path)
    assert isinstance(history, History)
    assert 2000 <= len(history.processes) <= 4001
    assert max(process.peak for process in history.processes) == 6006
    assert max(one.used for one in history.pool) == 5999
    assert len(history.pool) <= 4001
    assert "left out" in history.notes()[-1]


def test_names_that_are_no_text_can_be_written(tmp_path):
    """A file's name is bytes; those that are no UTF-8 come as surrogates."""
    name = os.fsdecode(b"caf\xe9.py")
    frames = [[name, 1, "f"]]
    holder = {"stack": 5, "file": name, "line": 1, "function": "f", "nbytes": 10, "blocks": 1}
    path = write(
        tmp_path / "a.rec",
        FIRST,
        {"kind": "process", "at": 1.0, "pid": 1, "command": name},
        {"kind": "stack", "id": 5, "frames": frames},
        {"kind": "holders", "at": 1.0, "pid": 1, "holders": [holder, {**holder, "stack": 99}]},
    )
    history = load(path)
    known, unknown = history.holders(history.held[0])
    assert history.processes[0].command == known["file"] == "caf\\udce9.py"
    assert known["frames"] == unknown["frames"] == (("caf\\udce9.py", 1, "f"),)


def test_a_line_longer_than_any_is_skipped(tmp_path):
    """As where a crash of the machine left a hole of zeros."""
    sample = {"kind": "sample", "at": 1.0, "pid": 1, "footprint": 5}
    path = write(tmp_path / "a.rec", FIRST)
    os.truncate(path, 130 << 20)
    with path.open("ab") as file:
        file.write(b"\n" + json.dumps(sample).encode())
    reader = Reader(path)
    assert list(reader) == [sample]
    assert (reader.damaged, reader.where) == (1, 2)
