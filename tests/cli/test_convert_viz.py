"""What is made for PyTorch's memory_viz, read by the code of PyTorch's own."""

import importlib.util
import pickle
import pickletools
from pathlib import Path

import pytest

from memlimits.cli.formats import viz
from memlimits.recording import Reader, Writer, load
from support.recordings import record

STACK = (("/srv/a.py", 3, "main"), ("/srv/a.py", 9, "load"))
OTHER = (("/srv/b.py", 1, "<module>"),)


@pytest.fixture(scope="module")
def torchs():
    """PyTorch's module, which needs nothing of the rest of it: that takes seconds to import."""
    found = importlib.util.find_spec("torch")
    if found is None:
        pytest.skip("no torch here")
    path = Path(found.origin).parent / "cuda" / "_memory_viz.py"
    spec = importlib.util.spec_from_file_location("memory_viz_of_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    history = load(record(tmp_path_factory.mktemp("recorded")))
    return history, viz.make(history, history.peak_at())


def write(path, *snapshots, refusal=None):
    with Writer(path, at=0.0) as writer:
        for number, rows in enumerate(snapshots):
            if number == 1 and refusal:
                writer.refusal(0.5, 7, **refusal)
            writer.snapshot(float(number), 7, stats={}, blocks=rows)
    return load(path)


def test_the_numbers_are_those_of_the_recording(made):
    history, data = made
    snapshot = pickle.loads(data)
    held = min(history.snapshots, key=lambda one: abs(one.at - history.peak_at()))
    rows = [e for e in Reader(history.reader.path) if e.get("blocks") and e["at"] == held.at]
    assert len(rows) == 1
    segments = {segment["address"]: segment for segment in snapshot["segments"]}
    assert segments.keys() == {row[0] for row in rows[0]["blocks"]}
    for address, size, used, _, _ in rows[0]["blocks"]:
        segment = segments[address]
        assert (segment["total_size"], segment["active_size"]) == (size, used)


def test_blocks_tile_their_segment_and_frames_are_the_innermost_first(tmp_path):
    rows = [
        (0x1000, 4096, 4096, "block", STACK),
        (0x3000, 8192, 100, "slab", OTHER),
        (0x7000, 4096, 0, "idle", None),
        (0x7800, 4096, 10, "block", None),  # in the one before: of a file that is not ours
    ]
    snapshot = pickle.loads(viz.make(write(tmp_path / "a.rec", rows), 0.0))
    blocks = [
        [(b["address"], b["size"], b["state"], b["frames"]) for b in segment["blocks"]]
        for segment in snapshot["segments"]
    ]
    frames = [{"filename": f, "line": n, "name": name} for f, n, name in reversed(STACK)]
    other = [{"filename": "/srv/b.py", "line": 1, "name": "<module>"}]
    assert blocks == [
        [(0x1000, 4096, "active_allocated", frames)],
        [(0x3000, 100, "active_allocated", other), (0x3064, 8092, "inactive", [])],
        [(0x7000, 4096, "inactive", [])],
    ]


def test_the_trace_is_the_difference_of_the_snapshots(tmp_path):
    first = [(0x1000, 4096, 4096, "block", STACK), (0x3000, 8192, 100, "slab", OTHER)]
    second = [(0x3000, 8192, 300, "slab", OTHER), (0x9000, 4096, 0, "idle", None)]
    refusal = {"requested": 999, "limit": 10_000, "active": 4000, "cache": 100, "slack": 200}
    history = write(tmp_path / "a.rec", first, second, refusal=refusal)
    (trace,) = pickle.loads(viz.make(history, 1.0))["device_traces"]
    assert [(e["action"], e["addr"], e["size"], e["time_us"]) for e in trace] == [
        ("segment_alloc", 0x1000, 4096, 0),
        ("alloc", 0x1000, 4096, 0),
        ("segment_alloc", 0x3000, 8192, 0),
        ("alloc", 0x3000, 100, 0),
        ("oom", 0, 999, 500_000),
        ("free_requested", 0x1000, 4096, 1_000_000),
        ("free_completed", 0x1000, 4096, 1_000_000),
        ("segment_free", 0x1000, 4096, 1_000_000),
        ("free_requested", 0x3000, 100, 1_000_000),
        ("free_completed", 0x3000, 100, 1_000_000),
        ("alloc", 0x3000, 300, 1_000_000),
        ("segment_alloc", 0x9000, 4096, 1_000_000),
    ]
    assert trace[4]["device_free"] == 5800
    (trace,) = pickle.loads(viz.make(history, 0.0))["device_traces"]
    assert len(trace) == 4


def test_the_trace_played_from_nothing_gives_the_segments(made):
    """A block outside every segment would have the page throw."""
    snapshot = pickle.loads(made[1])
    for device, trace in enumerate(snapshot["device_traces"]):
        segments, blocks = {}, {}
        for entry in trace:
            address, size = entry["addr"], entry["size"]
            if entry["action"] == "segment_alloc":
                assert address not in segments
                segments[address] = size
            elif entry["action"] == "alloc":
                assert size <= segments[address]
                blocks[address] = size
            elif entry["action"] == "free_completed":
                assert blocks.pop(address) == size
            elif entry["action"] == "segment_free":
                assert address not in blocks
                assert segments.pop(address) == size
            else:
                assert entry["action"] in ("oom", "free_requested")
        own = [one for one in snapshot["segments"] if one["device"] == device]
        assert segments == {one["address"]: one["total_size"] for one in own}
        assert blocks == {one["address"]: one["active_size"] for one in own if one["active_size"]}


def test_the_pickle_has_plain_types_in_a_protocol_that_the_page_reads(made):
    operations = [(op.name, argument) for op, argument, _ in pickletools.genops(made[1])]
    assert operations[0] == ("PROTO", 4)
    assert {name for name, _ in operations} & {"STACK_GLOBAL", "GLOBAL", "REDUCE", "BUILD"} == set()


def test_pytorchs_own_functions_read_it(made, torchs):
    history, data = made
    snapshot = pickle.loads(data)
    text = torchs.segsum(snapshot)
    assert "total_allocated: 47.0MiB" in text
    assert f"segments: {len(snapshot['segments'])}" in text
    trace = torchs.trace(snapshot)
    assert trace.count("raise OutOfMemoryError") == len(history.refusals) == 2
    assert "# 100.0MiB requested, 47.0MiB free in CUDA" in trace
    lines = torchs.memory(snapshot, format_flamegraph=str).splitlines()
    held = sum(int(line.rpartition(" ")[2]) for line in lines)
    assert held == 47 << 20
    assert any("program.py" in line and "index" in line for line in lines)
    lines = torchs.segments(snapshot, format_flamegraph=str).splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 47 << 20
    page = torchs.trace_plot(snapshot)
    assert "add_local_files" in page


def test_each_process_is_a_device(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path, at=0.0) as writer:
        for pid, size in ((7, 100), (9, 500)):
            writer.process(0.0, pid, command=f"worker {pid}")
            rows = [(0x1000, 4096, size, "slab", STACK)]
            writer.snapshot(1.0, pid, stats={}, blocks=rows)
    snapshot = pickle.loads(viz.make(load(path), 1.0))
    assert [(one["device"], one["active_size"]) for one in snapshot["segments"]] == [
        (0, 500),
        (1, 100),
    ]
    assert snapshot["allocator_settings"]["process of device 0"] == "9 worker 9"
