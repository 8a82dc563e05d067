"""What is made for Perfetto, read by its own schema."""

import pytest

from memlimits.cli.formats.perfetto import make
from memlimits.recording import Writer, load
from support.recordings import record

MIB = 1 << 20


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")


def parse(schema, history):
    """The tracks by name, below the process; each with what it has at which second."""
    trace = schema.Trace()
    data = make(history, 0.0)
    assert trace.ParseFromString(data) == len(data)
    # All that is there is known: nothing was written under a number that the schema has not.
    trace.DiscardUnknownFields()
    assert len(trace.SerializeToString()) == len(data)
    names, tracks = {}, {}
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            process = track.process.pid if track.HasField("process") else None
            name = track.process.process_name if process else track.name
            names[track.uuid] = (names.get(track.parent_uuid, (None,))[0] or process, name, track)
        elif packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in names
            assert packet.trusted_packet_sequence_id
            value = event.counter_value if event.type == event.TYPE_COUNTER else event
            key = names[event.track_uuid][:2]
            tracks.setdefault(key, []).append((packet.timestamp / 1e9, value))
    assert len(set(names)) == len(names)
    return trace, names, tracks


def test_a_real_recording(schema, tmp_path):
    history = load(record(tmp_path))
    trace, names, tracks = parse(schema, history)
    parent, child = history.processes
    for process in (parent, child):
        found = tracks[process.pid, "footprint"]
        samples = {round(s.at - history.first, 6): s.footprint for s in process.samples}
        assert {round(at, 6): size for at, size in found}.items() <= samples.items()
        assert max(size for _, size in found) == process.peak
    unit = schema.CounterDescriptor.UNIT_SIZE_BYTES
    bytes_ = {name for _, name, track in names.values() if track.counter.unit == unit}
    assert bytes_ >= {"footprint", "active", "cache", "resident", "memory limit"}
    assert {value for _, value in tracks[parent.pid, "memory limit"]} == {64 * MIB}
    assert (child.pid, "memory limit") not in tracks
    events = [event for _, event in tracks[parent.pid, "events"]]
    assert [event.name for event in events] == ["refused 100 MiB", "refused 60 MiB", "exited"]
    assert events[0].type == events[0].TYPE_INSTANT
    facts = {fact.name: fact for fact in events[0].debug_annotations}
    assert facts["requested"].uint_value == 100 * MIB
    assert (facts["limit"].string_value, facts["blocked_by"].string_value) == ("64 MiB", "limit")
    used = [value for _, value in tracks[None, "all processes: used"]]
    assert max(used) == max(one.used for one in history.pool)
    clocks = {clock.clock_id: clock.timestamp for clock in trace.packet[0].clock_snapshot.clocks}
    real, boot = 1, 6
    assert clocks[boot] == 0
    assert abs(clocks[real] / 1e9 - history.first) < 1e-3


def test_a_counter_that_stays_says_so_at_its_end_only(schema, tmp_path):
    with Writer(tmp_path / "a.rec", at=0.0) as writer:
        for at, size in enumerate((5, 5, 5, 7, 7)):
            writer.sample(float(at), 1, footprint=size, waits=at // 2)
    _, _, tracks = parse(schema, load(tmp_path / "a.rec"))
    assert tracks[1, "footprint"] == [(0, 5), (3, 7), (4, 7)]
    assert [(at, event.name) for at, event in tracks[1, "events"]] == [(2, "wait"), (4, "wait")]


def test_a_process_id_used_twice_is_two_processes(schema, tmp_path):
    with Writer(tmp_path / "a.rec", at=0.0) as writer:
        for number, large in enumerate((2**63, 2**40)):
            writer.process(number, 9, started=number, command=f"<b>{number}</b>\n")
            writer.sample(number + 0.5, 9, footprint=large - 1)
            writer.end(number + 0.9, 9, "vanished")
    _, names, tracks = parse(schema, load(tmp_path / "a.rec"))
    pids = {process for process, _, _ in names.values()}
    assert len(pids) == 2
    found = {tracks[pid, "footprint"][0][1] for pid in pids}
    assert found == {2**63 - 1, 2**40 - 1}
