"""`memlimits convert`: what it refuses, and what it leaves in files."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from support.commands import execute

ALL = ("html", "flamegraph", "folded", "viz", "perfetto", "csv")


@pytest.fixture
def convert(recorded, tmp_path):
    def run(*words, file=recorded, code=0):
        done = execute("-m", "memlimits", "convert", file, *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done

    return run


def refused(done):
    """The one sentence on standard error."""
    (line,) = done.stderr.decode().splitlines()
    assert done.stdout == b""
    return line.removeprefix("memlimits: ")


@pytest.mark.parametrize("to", ALL)
def test_an_output_that_is_there_stays_unless_it_is_to_be_replaced(to, convert, tmp_path):
    path = tmp_path / "out"
    path.write_text("mine")
    done = convert("--to", to, "-o", "out", code=2)
    assert refused(done) == "out: it is there already: write --force to replace it"
    assert path.read_text() == "mine"
    convert("--to", to, "-o", "out", "--force")
    made = path.read_bytes()
    assert len(made) > 100
    assert convert("--to", to, "-o", "-").stdout == made
    assert os.listdir(tmp_path) == ["out"]


def test_a_recording_is_not_replaced_by_what_is_made_of_it(convert, recorded, tmp_path):
    (tmp_path / "a.rec").write_bytes(recorded.read_bytes())
    done = convert("--to", "html", "-o", "./a.rec", "--force", file="a.rec", code=2)
    assert refused(done) == "./a.rec: it is the recording itself: write another name"
    assert (tmp_path / "a.rec").read_bytes() == recorded.read_bytes()


WRITING = (
    "info",
    "info --json",
    "--help",
    "--version",
    "help run",
    "run --help",
    "convert --help",
    "pool create --help",
    "pool list",
    "pool list --json",
    "metrics --rules",
    "top --once",
    "top --once --json",
    "man",
    "completion fish",
)


@pytest.mark.parametrize("words", ["run --help", "top --once", "pool list", "man run", "info"])
def test_where_nobody_reads_any_more_the_status_says_so(words):
    command = f"{shlex.quote(sys.executable)} -m memlimits {words}"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(shlex.split(command), stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", WRITING)
def test_where_nothing_can_be_written_a_sentence_says_so(words):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "memlimits", *words.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "memlimits: cannot write to standard output: No space left on device: send it elsewhere\n"
    )


@pytest.mark.parametrize("words", ["info", "--help", "--version", "pool --help"])
def test_where_standard_output_is_closed_it_says_nothing(words):
    command = f"{shlex.quote(sys.executable)} -m memlimits {words} >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("convert", "it.rec", "--to=html", "-o-"), ("info",)])
def test_a_reader_that_has_had_enough_ends_it_without_a_word(words, recorded, tmp_path):
    """As it ends any filter: `memlimits info | true`."""
    (tmp_path / "it.rec").write_bytes(recorded.read_bytes())
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "memlimits", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_without_a_name_it_lies_beside_the_recording(convert, recorded, tmp_path):
    copy = tmp_path / "a.rec"
    copy.write_bytes(recorded.read_bytes())
    done = convert("--to", "perfetto", file="a.rec")
    made = tmp_path / "a.perfetto-trace"
    assert done.stderr.decode() == (
        f"memlimits: made a.perfetto-trace ({made.stat().st_size:,} bytes)\n"
    )


def test_a_folder_that_is_not_there(convert, tmp_path):
    done = convert("--to", "csv", "-o", "missing/out.csv", code=2)
    assert refused(done) == "missing/out.csv: there is no folder missing: make it before"
    done = convert("--to", "csv", "-o", tmp_path, code=2)
    assert refused(done) == f"{tmp_path}: it is a folder: write the name of a file in it"


def test_an_unknown_format_is_named_with_those_that_are_known(convert):
    done = convert("--to", "svg", code=2)
    last = done.stderr.decode().splitlines()[-1]
    assert "invalid value 'svg': write one of html, " in last
    assert all(name in last for name in ALL)


def test_what_is_no_recording(convert, tmp_path):
    for text, reason in (
        ("print()\n", "not a recording of memlimits: its first line is not that of one"),
        ("", "not a recording of memlimits: it is empty"),
    ):
        (tmp_path / "a.py").write_text(text)
        for to in ALL:
            done = convert("--to", to, "-o", "out", file="a.py", code=2)
            assert refused(done) == f"a.py: {reason}; memlimits run --record FILE makes one"
    later = {"kind": "memlimits recording", "version": 7, "at": 1.0}
    (tmp_path / "a.py").write_text(json.dumps(later) + "\n")
    done = convert("--to", "html", "-o", "out", file="a.py", code=2)
    assert "in version 7 of the format, of which this memlimits knows 1" in refused(done)
    done = convert("--to", "csv", "-o", "out", file="missing.rec", code=2)
    assert refused(done) == "cannot read missing.rec: No such file or directory"
    assert os.listdir(tmp_path) == ["a.py"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "viz", "--at", "yesterday"), "invalid time 'yesterday': write seconds since"),
        (("--to", "viz", "--at", "86400"), "86400 is not in the recording, which has"),
        (("--to", "folded", "--at", "2001-01-01"), "2001-01-01 is not in the recording"),
        (("--to", "folded", "--at", "nan"), "nan is not in the recording"),
        (("--to", "html", "--at", "1"), "only --to flamegraph, folded, viz is of one time"),
        (("--to", "html", "--table", "pool"), "only --to csv, arrow, parquet makes tables"),
    ],
)
def test_what_is_asked_of_the_wrong_thing(words, message, convert, tmp_path):
    assert message in refused(convert(*words, "-o", "out", code=2))
    assert os.listdir(tmp_path) == []


def test_a_snapshot_or_holders_asked_for_where_there_are_none(convert, tmp_path):
    first = {"kind": "memlimits recording", "version": 1, "at": 1.0}
    sample = {"kind": "sample", "at": 2.0, "pid": 1, "footprint": 3}
    lines = [json.dumps(first), json.dumps(sample), json.dumps({"kind": "closed", "at": 2.0})]
    (tmp_path / "a.rec").write_text("\n".join(lines) + "\n")
    done = convert("--to", "viz", file="a.rec", code=2)
    assert refused(done).startswith("a.rec: there is no snapshot in it")
    for to in ("flamegraph", "folded"):
        done = convert("--to", to, file="a.rec", code=2)
        assert "has not been noted in it who held memory" in refused(done)
    done = convert("--to", "csv", "--table", "refusals", file="a.rec")
    assert b"there are no refusals in it: the table has no rows" in done.stderr


def test_a_recording_that_was_cut_off_is_converted_and_that_is_said(convert, recorded, tmp_path):
    data = recorded.read_bytes()
    lines = data.splitlines(keepends=True)
    (tmp_path / "cut.rec").write_bytes(b"".join([*lines[:9], b"torn\n", *lines[9:-2]])[:-7])
    for to in ALL:
        done = convert("--to", to, "-o", f"{to}.out", file="cut.rec")
        assert "1 damaged lines were skipped, the first of them line 10" in done.stderr.decode()
        assert ("did not end in order" in done.stderr.decode()) == (to != "csv")


@pytest.mark.parametrize("to", ["html", "csv"])
def test_what_cannot_be_written_whole_is_not_there(to, recorded, tmp_path):
    """A file may have a block of 512 or of 1024 bytes."""
    words = 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "memlimits", "convert"
    words = ["sh", "-c", *words, recorded, "--to", to, "-o", "out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True)
    assert refused(done) == "cannot write out: File too large; name another file by -o"
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_is_named(convert):
    """As a device says it that always is."""
    done = convert("--to", "csv", "-o", "/dev/full", code=2)
    assert (
        refused(done) == "cannot write /dev/full: No space left on device; name another file by -o"
    )
    done = convert("--to", "html", "-o", "/dev/full", code=2)
    assert (
        refused(done) == "cannot write /dev/full: No space left on device; name another file by -o"
    )
