"""Tables of a recording, as pandas and polars read them."""

import csv
import io
import json
import os
import tracemalloc
from datetime import UTC, datetime

import pytest

from memlimits.cli.formats import tables
from memlimits.recording import Reader, Writer

MIB = 1 << 20


def table(path, name, form="csv"):
    file = io.BytesIO()
    notes = tables.write(Reader(path), name, form, file)
    return file.getvalue(), notes


def rows(path, name):
    text = table(path, name)[0].decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def entries(path, kind):
    return [entry for entry in Reader(path) if entry["kind"] == kind]


def test_a_row_is_a_sample(recorded):
    found, samples = rows(recorded, "samples"), entries(recorded, "sample")
    assert len(found) == len(samples) > 8
    first = Reader(recorded).first["at"]
    for row, sample in zip(found, samples, strict=True):
        when = datetime.fromisoformat(row["time"])
        assert when.tzinfo is not None
        assert abs(when.timestamp() - sample["at"]) < 1e-5
        assert abs(float(row["seconds"]) - (sample["at"] - first)) < 1e-5
        for name in ("footprint", "active", "cache", "slack", "wired", "peak", "resident"):
            assert int(row[f"{name}_bytes"]) == sample[name]
        assert (int(row["refusals"]), int(row["pid"])) == (sample["refusals"], sample["pid"])
    assert {row["memory_limit_bytes"] for row in found} == {str(64 * MIB), ""}
    assert {row["command"] for row in found} >= {"python -c CHILD"}


def test_the_other_tables(recorded):
    refusals = rows(recorded, "refusals")
    assert [int(row["requested_bytes"]) // MIB for row in refusals] == [100, 60]
    assert {(row["limit_bytes"], row["blocked_by"]) for row in refusals} == {
        (str(64 * MIB), "limit")
    }
    assert refusals[0]["first_function"].startswith("main.<locals>.load_rows")
    assert refusals[0]["first_stack"].startswith("<module> (")
    holders = rows(recorded, "holders")
    total = sum(len(entry["holders"]) for entry in entries(recorded, "holders"))
    assert len(holders) == total
    assert max(int(row["held_bytes"]) for row in holders) == 40 * MIB
    pool = rows(recorded, "pool")
    assert {row["limit_bytes"] for row in pool} == {str(100 * MIB)}
    processes = rows(recorded, "processes")
    assert [row["ending"] for row in processes] == ["", "", "exited", "exited"]
    assert processes[1]["parent"] == processes[0]["pid"]


@pytest.mark.parametrize("name", tables.COLUMNS)
@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_arrow_and_parquet_have_what_csv_has(name, form, recorded):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    data, _ = table(recorded, name, form)
    read = {"arrow": lambda file: ipc.open_file(file).read_all(), "parquet": parquet.read_table}
    found = read[form](pyarrow.BufferReader(data))
    assert found.column_names == list(tables.COLUMNS[name])
    assert found.schema.field("time").type == pyarrow.timestamp("us", tz="UTC")
    plain = rows(recorded, name)
    assert found.num_rows == len(plain)
    for row, other in zip(found.to_pylist(), plain, strict=True):
        for column, value in row.items():
            text = other[column]
            if isinstance(value, datetime):
                assert abs(value - datetime.fromisoformat(text)).total_seconds() < 1e-5
            elif isinstance(value, float):
                assert value == float(text)
            else:
                assert ("" if value is None else str(value)) == text


def test_names_with_whatever_a_path_may_have(tmp_path):
    name = 'a,"b"\n<script>;\udce9.py'
    path = tmp_path / "a.rec"
    with open(path, "w") as file:
        for entry in (
            {"kind": "memlimits recording", "version": 1, "at": 0.0},
            {"kind": "process", "at": 0.0, "pid": 1, "command": name},
            {"kind": "sample", "at": 1.0, "pid": 1, "footprint": 5},
        ):
            file.write(json.dumps(entry) + "\n")
    (row,) = rows(path, "samples")
    assert row["command"] == 'a,"b"\n<script>;\\udce9.py'
    assert row["time"] == "1970-01-01T00:00:01.000000Z"
    assert datetime.fromisoformat(row["time"]) == datetime.fromtimestamp(1, UTC)


def test_a_number_that_arrow_has_not_is_refused_with_a_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    with Writer(tmp_path / "a.rec") as writer:
        writer.sample(1.0, 1, footprint=2**64 - 1)
    with pytest.raises(Exception, match="write --to csv") as caught:
        table(tmp_path / "a.rec", "samples", "arrow")
    assert type(caught.value).__name__ == "CommandError"
    assert rows(tmp_path / "a.rec", "samples")[0]["footprint_bytes"] == str(2**64 - 1)


def test_without_pyarrow_the_error_says_what_to_install(recorded, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(Exception, match="pip install pyarrow"):
        table(recorded, "samples", "arrow")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_long_recording_takes_bounded_memory_and_is_whole(form, tmp_path):
    """As the other readers do, but without leaving anything out."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "a.rec"
    with Writer(path, max_bytes=1 << 40) as writer:
        for step in range(30_000):
            writer.sample(float(step), step % 5, footprint=step)
    table(path, "samples", form)  # what is made once
    with open(os.devnull, "wb") as null:
        tracemalloc.start()
        tables.write(Reader(path), "samples", form, null)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < (1 if form == "csv" else 6) * MIB
    assert len(rows(path, "samples")) == 30_000
