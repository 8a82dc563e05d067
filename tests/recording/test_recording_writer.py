"""What the writer leaves in the file: whole lines, in bounded disk, however it ends."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from memlimits.figures import Holder
from memlimits.recording import Reader, Writer, load

MIB = 1 << 20


def holder(number, nbytes, depth=3):
    stack = tuple((f"/srv/module_{number}.py", line, "load") for line in range(1, depth + 1))
    return Holder(stack[-1][0], depth, "load", nbytes, 1, stack)


def kinds(path):
    return [entry["kind"] for entry in Reader(path)]


def test_each_kind_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(
        path, program=["a.py", "--b"], interval=0.25, at=5.0, machine={"cpus": 3}
    ) as writer:
        writer.process(5.0, 7, parent=1, memory_limit=1 << 63, cache_limit=10, command="a.py")
        writer.sample(5.5, 7, footprint=3, resident=9, swap=None, refusals=2)
        writer.pool(5.5, used=3, limit=None, members=1)
        writer.refusal(6.0, 7, requested=99, limit=1 << 63, holders=[holder(1, 50)])
        writer.holders(6.0, 7, [holder(1, 50), holder(2, 40)])
        rows = [(4096, 100, 60, "block", holder(2, 1).stack), (8192, 50, 0, "idle", None)]
        writer.snapshot(6.5, 7, stats={"memory_limit": 1 << 63, "active": 60}, blocks=rows)
        writer.end(7.0, 7, "exited", status=3)
        writer.close(8.0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "kind": "memlimits recording", "version": 1, "at": 5.0, "program": ["a.py", "--b"],
        "interval": 0.25, "machine": {"cpus": 3},
    }  # fmt: skip
    frames = [[[f"/srv/module_{n}.py", line, "load"] for line in (1, 2, 3)] for n in (1, 2)]
    held = [
        {"stack": n - 1, "file": f"/srv/module_{n}.py", "line": 3, "function": "load",
         "nbytes": size, "blocks": 1} for n, size in ((1, 50), (2, 40))
    ]  # fmt: skip
    assert lines[1:] == [
        {"kind": "process", "at": 5.0, "pid": 7, "parent": 1, "memory_limit": None,
         "cache_limit": 10, "command": "a.py"},
        {"kind": "sample", "at": 5.5, "pid": 7, "footprint": 3, "resident": 9, "swap": None,
         "refusals": 2},
        {"kind": "pool", "at": 5.5, "limit": None, "used": 3, "members": 1},
        {"kind": "stack", "id": 0, "frames": frames[0]},
        {"kind": "refusal", "at": 6.0, "pid": 7, "requested": 99, "limit": None,
         "holders": held[:1]},
        {"kind": "stack", "id": 1, "frames": frames[1]},
        {"kind": "holders", "at": 6.0, "pid": 7, "holders": held},
        {"kind": "snapshot", "at": 6.5, "pid": 7, "stats": {"memory_limit": None, "active": 60},
         "budgets": [], "holders": [],
         "blocks": [[4096, 100, 60, "block", 1], [8192, 50, 0, "idle", None]],
         "blocks_left_out": 0},
        {"kind": "end", "at": 7.0, "pid": 7, "ending": "exited", "status": 3},
        {"kind": "closed", "at": 8.0},
    ]  # fmt: skip
    assert list(Reader(path)) == lines[1:]


def test_what_comes_after_a_pause_takes_the_end_back(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path) as writer:
        writer.sample(1.0, 7, footprint=3)
        writer.pause(2.0, lost=4)
        assert [entry["kind"] for entry in Reader(path)] == ["sample", "closed"]
        size = path.stat().st_size
        writer.pause(2.5)
        assert (path.stat().st_size, writer.size) == (size, size)
        writer.sample(3.0, 8, footprint=5)
        writer.flush()
        assert [entry["kind"] for entry in Reader(path)] == ["sample", "sample"]
        assert writer.size == path.stat().st_size
        writer.pause(4.0, lost=6)
    entries = list(Reader(path))
    assert [entry["kind"] for entry in entries] == ["sample", "sample", "closed"]
    assert (entries[-1]["at"], entries[-1]["lost"]) == (4.0, 6)


def test_a_process_that_is_killed_leaves_all_but_the_last_second(tmp_path):
    program = (
        "import sys, time\n"
        "from memlimits.recording import Writer\n"
        "writer = Writer(sys.argv[1])\n"
        "while True:\n"
        "    writer.sample(time.time(), 1, footprint=5)\n"
        "    print(flush=True)\n"
        "    time.sleep(0.005)\n"
    )
    path = tmp_path / "a.rec"
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=-1) as process:
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        killed = time.time()
    last = [entry["at"] for entry in Reader(path)][-1]
    assert 0 <= killed - last < 1.5
    assert any("did not end in order" in note for note in load(path).notes())


def test_a_days_recording_stays_within_its_bound_with_its_peaks(tmp_path):
    """Forty processes one after another, five at a time, with holders and refusals."""
    path, most = tmp_path / "day.rec", 1 * MIB
    peaks, largest_file, refused = {}, 0, 0
    with Writer(path, interval=0.5, max_bytes=most, at=0.0) as writer:
        for step in range(10_000):
            at = step / 2
            for slot in range(5):
                pid = 100 + slot + 5 * (step // 1250)
                if step % 1250 == 0:
                    writer.process(at, pid, command=f"worker {pid}", memory_limit=64 * MIB)
                size = (step * 7919 + pid * 104729) % (60 * MIB)
                resident = (step * 6007 + pid * 15485863) % (90 * MIB)
                old = peaks.get(pid, (0, 0))
                peaks[pid] = (max(old[0], size), max(old[1], resident))
                writer.sample(at, pid, footprint=size, resident=resident, refusals=step)
                if step % 1250 == 1249:
                    writer.end(at, pid, "exited")
            pid = 100 + 5 * (step // 1250)
            writer.pool(at, used=step, limit=320 * MIB)
            writer.holders(at, pid, [holder(step % 50, step * 1000, depth=20)])
            if step % 10 == 0:
                refused = step * 1000 + 1
                writer.refusal(at, pid, requested=refused, holders=[holder(step, 5)])
            largest_file = max(largest_file, path.stat().st_size)
        assert writer.interval > 0.5
    assert 0.5 * most < largest_file <= most
    assert os.listdir(tmp_path) == ["day.rec"]
    history = load(path)
    assert (history.reader.damaged, history.closed, history.pool[-1].at) == (0, True, 4999.5)
    found = {
        process.pid: (process.peak, max(sample.resident for sample in process.samples))
        for process in history.processes
    }
    assert found == peaks
    # The first hours are as dense as the last, but for what was not thinned yet.
    times = [sample.at for process in history.processes for sample in process.samples]
    assert sum(at < 1250 for at in times) > 300
    assert sum(at >= 3750 for at in times) > 300
    assert writer.interval <= 64
    assert {process.ending for process in history.processes} == {"exited"}
    requested = [refusal.requested for refusal in history.refusals]
    assert (requested[0], requested[-1]) == (1, refused)
    assert history.left_out.keys() >= {"samples", "holders", "refusals", "stacks"}
    # What stayed names no stack that went.
    named = {entry["stack"] for one in Reader(path) for entry in one.get("holders", ())}
    assert named <= history.stacks.keys()
    assert json.loads(path.read_text().splitlines()[1])["kind"] == "thinned"


def test_the_counts_of_what_went_add_up(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path, max_bytes=MIB) as writer:
        for step in range(40_000):
            writer.sample(step, 1, footprint=step)
    stayed = kinds(path).count("sample")
    assert stayed + load(path).left_out["samples"] == 40_000


def test_a_snapshot_of_too_many_blocks_has_the_largest(tmp_path):
    path = tmp_path / "a.rec"
    blocks = [(4096 * n, n, n, "block", None) for n in range(1, 100_001)]
    with Writer(path, max_bytes=MIB) as writer:
        writer.snapshot(1.0, 1, stats={}, blocks=blocks)
    (snapshot, _) = Reader(path)
    kept = [block[1] for block in snapshot["blocks"]]
    assert len(kept) > 500
    assert kept == list(range(100_001 - len(kept), 100_001))
    assert snapshot["blocks_left_out"] == 100_000 - len(kept)
    assert path.stat().st_size < MIB / 8


def test_many_short_processes_leave_those_that_held_most(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path, max_bytes=MIB) as writer:
        for pid in range(1, 10_001):
            writer.process(pid, pid, started=pid, command="c" * 100)
            writer.sample(pid, pid, footprint=(pid * 7919) % 10_007)
            writer.end(pid, pid, "exited")
    assert path.stat().st_size <= MIB
    processes = load(path).processes
    assert max(process.peak for process in processes) == 10_006
    assert processes[0].pid == 1


# Both leave the rest of a write undone: one has no more room, of the other no file may be longer.
FULL = """
import os, resource, sys
from memlimits.recording import Writer
if sys.argv[2]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
told = []
with Writer(sys.argv[1], on_error=told.append) as writer:
    for step in range(20_000):
        writer.sample(step, 1, footprint=step)
    assert writer.error is told[0]
print(len(told), type(told[0]).__name__, told[0].errno)
"""


def test_a_file_that_may_not_grow_stays_readable_and_it_is_told_once(tmp_path):
    path = tmp_path / "a.rec"
    words = [sys.executable, "-c", FULL, path, "300001"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "1 OSError 27\n"
    steps = [entry["at"] for entry in Reader(path)]
    assert steps == list(range(len(steps)))
    assert path.stat().st_size > 299_000
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.host
def test_a_full_disk_leaves_a_readable_file_and_it_is_told_once(tmp_path):
    """On a small file system of its own, in a namespace where anybody may have one."""
    script = f'mount -t tmpfs -o size=256k none {tmp_path} && "$@" && cp {tmp_path}/a.rec "$0"'
    copy = tmp_path.parent / f"{tmp_path.name}.rec"
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, copy]
    try:
        subprocess.run([*words[:3], "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    words += [sys.executable, "-c", FULL, tmp_path / "a.rec", ""]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 OSError 28\n", "")
    steps = [entry["at"] for entry in Reader(copy)]
    assert steps == list(range(len(steps)))
    assert 200_000 < copy.stat().st_size <= 256 << 10


def test_where_there_is_no_room_to_thin_the_file_stays_as_it_is(tmp_path):
    """Nothing beside it can be made."""
    path, told = tmp_path / "a.rec", []
    with Writer(path, max_bytes=MIB, on_error=told.append) as writer:
        path.with_name(f"a.rec.{os.getpid()}.tmp").mkdir()
        for step in range(20_000):
            writer.sample(step, 1, footprint=step)
    assert [type(error) for error in told] == [FileExistsError]
    assert MIB - 200 < path.stat().st_size <= MIB
    steps = [entry["at"] for entry in Reader(path)]
    assert steps == list(range(len(steps)))


def test_a_file_that_took_its_place_is_left_alone(tmp_path):
    path, told = tmp_path / "a.rec", []
    with Writer(path, max_bytes=MIB, on_error=told.append) as writer:
        path.unlink()
        path.write_text("of somebody else")
        for step in range(20_000):
            writer.sample(step, 1, footprint=step)
    assert [type(error) for error in told] == [FileNotFoundError]
    assert path.read_text() == "of somebody else"


def test_a_forked_childs_copy_writes_nothing(tmp_path):
    path = tmp_path / "a.rec"
    program = (
        "import os, sys\n"
        "from memlimits.recording import Writer\n"
        "writer = Writer(sys.argv[1])\n"
        "writer.sample(1.0, 1, footprint=5)\n"
        "if not os.fork():\n"
        "    writer.sample(2.0, 1, footprint=5)\n"
        "    writer.close()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "writer.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True)
    assert kinds(path) == ["sample", "closed"]


def test_what_is_there_and_no_recording_is_not_overwritten(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("print()")
    with pytest.raises(FileExistsError, match="no recording"):
        Writer(path)
    assert path.read_text() == "print()"
    with pytest.raises(FileExistsError, match="no recording"):
        Writer("/dev/null")
    with pytest.raises(FileNotFoundError):
        Writer(tmp_path / "missing" / "a.rec")
    with pytest.raises(ValueError, match=r"a\.rec\.gz.*not compressed"):
        Writer(tmp_path / "a.rec.gz")
    with pytest.raises(ValueError, match="max_bytes is 5, less than 1048576"):
        Writer(tmp_path / "b.rec", max_bytes=5)
    assert not (tmp_path / "b.rec").exists()


def test_a_recording_that_is_there_is_replaced_behind_its_link(tmp_path):
    (tmp_path / "real.rec").symlink_to("nowhere.rec")
    for size in (3, 4):
        with Writer(tmp_path / "real.rec", max_bytes=MIB) as writer:
            for step in range(15_000):
                writer.sample(step, 1, footprint=size)
    assert (tmp_path / "real.rec").is_symlink()
    sizes = {entry["footprint"] for entry in Reader(tmp_path / "nowhere.rec") if "pid" in entry}
    assert sizes == {4}


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/dev/fd"))
    with Writer(tmp_path / "a.rec", max_bytes=MIB) as writer:
        for step in range(15_000):
            writer.sample(step, 1, footprint=5)
    writer.close()
    list(Reader(tmp_path / "a.rec"))
    assert len(os.listdir("/dev/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_deep_stack_has_its_ends(tmp_path):
    with Writer(tmp_path / "a.rec") as writer:
        writer.holders(1.0, 1, [holder(1, 10, depth=5000)])
    (frames,) = [entry["frames"] for entry in Reader(tmp_path / "a.rec") if "frames" in entry]
    assert [line for _, line, _ in frames] == [*range(1, 57), *range(4801, 5001)]
