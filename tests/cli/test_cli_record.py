"""`memlimits run --record`: what a program's processes held, against what they say themselves."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from memlimits.recording import Reader
from support.commands import runner
from support.patience import until
from support.places import ROOT
from support.units import MIB

pytestmark = pytest.mark.host

pytest.importorskip("numpy")

PROGRAM = """
import json, os, signal, sys, time
import numpy
import memlimits

def load(n):
    return numpy.ones(n << 20, numpy.uint8)

"""


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


def recorded(path):
    return list(Reader(path))


def of(entries, kind, **fields):
    found = [entry for entry in entries if entry["kind"] == kind]
    return [one for one in found if all(one[name] == value for name, value in fields.items())]


def test_the_time_line_is_the_programs(run, tmp_path):
    script = """
held = []
for n in range(5):
    held.append(load(8))
    time.sleep(0.25)
stats = memlimits.stats()
print(os.getpid(), stats.active)
"""
    done = run(PROGRAM + script, "--memory-limit=100MiB", "--govern=numpy", "--record=it.rec")
    pid, active = map(int, done.stdout.split())
    entries = recorded(tmp_path / "it.rec")
    samples = of(entries, "sample", pid=pid)
    steps = sorted({round(sample["active"] / (8 * MIB)) for sample in samples})
    assert steps == [0, 1, 2, 3, 4, 5]
    assert 40 * MIB <= active <= 41 * MIB
    assert abs(max(sample["active"] for sample in samples) - active) <= MIB
    assert all(sample["resident"] >= sample["footprint"] - MIB for sample in samples)
    process = of(entries, "process", pid=pid)[-1]
    assert process["memory_limit"] == 100 * MIB
    assert "program.py" in process["command"]
    assert of(entries, "end", pid=pid)[0]["ending"] == "exited"
    assert entries[-1]["kind"] == "closed"
    first = json.loads((tmp_path / "it.rec").read_text().partition("\n")[0])
    assert first["program"] == ["program.py"]


def test_holders_and_refusals_are_in_it(run, tmp_path):
    script = """
def forever():
    return load(12)

held = [forever(), load(4)]
time.sleep(1.5)
more = load(1)
time.sleep(0.2)
try:
    load(200)
except MemoryError:
    pass
"""
    run(PROGRAM + script, "--memory-limit=100MiB", "--govern=numpy", "--record=it.rec")
    entries = recorded(tmp_path / "it.rec")
    stacks = {entry["id"]: entry["frames"] for entry in of(entries, "stack")}
    held = of(entries, "holders")[-1]["holders"]
    [largest] = [one for one in held if one["nbytes"] == 12 * MIB]
    assert [frame[2] for frame in stacks[largest["stack"]]][-3:] == ["forever", "load", "ones"]
    assert largest["line"] == 7
    [refusal] = of(entries, "refusal")
    assert (refusal["requested"], refusal["blocked_by"]) == (200 * MIB, "limit")
    assert refusal["holders"][0]["nbytes"] == 17 * MIB
    [snapshot] = of(entries, "snapshot")
    assert snapshot["stats"]["active"] == refusal["active"]
    assert sum(block[2] for block in snapshot["blocks"]) == refusal["active"]
    assert sorted(block[1] for block in snapshot["blocks"])[-1] == 12 * MIB


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_all_processes_are_in_it(run, tmp_path, method):
    script = f"""
import multiprocessing
from memlimits.recording import Reader

def is_in_it(active):
    samples = [entry for entry in Reader("it.rec") if entry["kind"] == "sample"]
    return any(s["pid"] == os.getpid() and s["active"] >= active for s in samples)

def work(n):
    active = memlimits.get_active_memory()
    block = load(8 * n)
    give_up = time.monotonic() + 20
    while not is_in_it(active + 8 * n * {MIB}) and time.monotonic() < give_up:
        time.sleep(0.1)
    return os.getpid(), memlimits.get_active_memory()

if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        found = pool.map(work, [1, 2], chunksize=1)
        pool.close()
        pool.join()
    print(json.dumps([os.getpid(), *found]))
"""
    done = run(PROGRAM + script, "--memory-limit=200MiB", "--govern=numpy", "--record=it.rec")
    parent, *workers = json.loads(done.stdout)
    entries = recorded(tmp_path / "it.rec")
    pids = {entry["pid"] for entry in of(entries, "process")}
    assert pids >= {parent, *(pid for pid, _ in workers)}
    for pid, active in workers:
        most = max(sample["active"] for sample in of(entries, "sample", pid=pid))
        assert abs(most - active) <= MIB
    assert max(pool["used"] for pool in of(entries, "pool")) >= 24 * MIB
    assert {entry["pid"] for entry in of(entries, "end")} == pids
    # One may be seen before it has taken over the limits.
    policies = {entry["pid"]: entry["policy"] for entry in of(entries, "process")}
    assert {*policies.values()} == {"strict"}


def test_without_a_pool_holders_are_told_at_what_is_noted(run, tmp_path):
    """Whether memory grows or not: so it is known who held it when the process is killed."""
    script = """
held = [load(20)]
spare = load(2)     # what stands in its place grows nothing
for n in range(30):
    del spare
    spare = load(2)
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(PROGRAM + script, "--govern=numpy", "--record=it.rec", code=-signal.SIGKILL)
    until(lambda: of(recorded(tmp_path / "it.rec"), "closed"))
    entries = recorded(tmp_path / "it.rec")
    told = [entry["at"] for entry in of(entries, "holders") if entry["holders"]]
    grew = of(entries, "sample", footprint=of(entries, "sample")[-1]["footprint"])[0]["at"]
    assert told[-1] > grew + 0.5
    [largest] = [one for one in of(entries, "holders")[-1]["holders"] if one["nbytes"] == 20 * MIB]
    assert largest["line"] == 7


def test_who_ends_does_not_end_another_that_took_its_place(run, tmp_path):
    """The parent takes a second from the end of its program to its own."""
    child = """
import time, memlimits
time.sleep(1.2)
held = memlimits.allocate(50 << 20)
time.sleep(0.5)
"""
    script = f"""
import subprocess
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(1)
slow = Slow()
words = ["sh", "-c", "sleep 0.4; exec \\"$0\\" -c \\"$1\\"", sys.executable, {child!r}]
subprocess.Popen(words)
"""
    run(PROGRAM + script, "--record=it.rec")

    def ends():
        return of(recorded(tmp_path / "it.rec"), "end")

    until(lambda: len(ends()) == 2)
    samples = of(recorded(tmp_path / "it.rec"), "sample", pid=ends()[1]["pid"])
    assert samples[-1]["peak"] >= 50 * MIB


def test_a_recording_is_replaced_as_soon_as_its_program_has_ended(run, tmp_path):
    for n in (1, 2, 3):
        run(f"print({n})", "--record=it.rec")
    assert recorded(tmp_path / "it.rec")


def test_where_the_file_of_messages_is_damaged_it_ends_all_the_same(tmp_path):
    script = "held = load(9)\nprint('ready', flush=True); sys.stdin.read()"
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with start(tmp_path, script, "--record=it.rec", **options) as program:
        program.stdout.readline()
        recorder = recorder_of(tmp_path / "it.rec")
        with open(f"/proc/{program.pid}/maps") as maps:
            (events,) = set(re.findall(r"(/\S+\.events)$", maps.read(), re.M))
        with open(events, "r+b") as file:
            file.write(bytes(os.path.getsize(events)))
        program.communicate()
    until(lambda: of(recorded(tmp_path / "it.rec"), "closed"))
    assert max(sample["active"] for sample in of(recorded(tmp_path / "it.rec"), "sample")) > 9 * MIB
    until(lambda: not os.path.exists(f"/proc/{recorder}"))


def test_a_program_that_asks_for_memory_late_is_in_it(run, tmp_path):
    script = "time.sleep(0.5)\nheld = load(7)\ntime.sleep(0.3)\n"
    run(PROGRAM + script, "--govern=numpy", "--record=it.rec")
    entries = recorded(tmp_path / "it.rec")
    assert of(entries, "sample")[-1]["peak"] >= 7 * MIB
    assert [entry["kind"] for entry in entries].count("closed") == 1


def test_a_process_that_outlives_the_one_that_started_it_is_in_it(run, tmp_path):
    child = """
import os, time
while os.getppid() == {}:
    time.sleep(0.01)
time.sleep(0.3)
held = bytearray(9 << 20)
time.sleep(0.5)
"""
    script = f"""
import subprocess
subprocess.Popen([sys.executable, "-c", {child!r}.format(os.getpid())])
time.sleep(0.7)
"""
    run(PROGRAM + script, "--record=it.rec")

    def ends():
        return of(recorded(tmp_path / "it.rec"), "end")

    until(lambda: len(ends()) == 2)
    until(lambda: of(recorded(tmp_path / "it.rec"), "closed"))
    entries = recorded(tmp_path / "it.rec")
    assert of(entries, "sample", pid=ends()[1]["pid"])[-1]["peak"] >= 9 * MIB
    assert [entry["kind"] for entry in entries].count("closed") == 1


def start(tmp_path, script, *options, **keywords):
    (tmp_path / "program.py").write_text(PROGRAM + script)
    words = [sys.executable, "-m", "memlimits", "run", *options, "program.py"]
    keywords = {"stdout": subprocess.PIPE, "text": True, **keywords}
    return subprocess.Popen(words, cwd=tmp_path, **keywords)


def recorder_of(path):
    """The process that has it open."""
    for name in os.listdir("/proc"):
        try:
            files = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        if str(path) in files:
            return int(name)
    raise LookupError(path)


def test_a_program_that_is_killed_has_left_it(tmp_path):
    script = "held = load(20)\nprint('ready', flush=True)\ntime.sleep(60)"
    with start(tmp_path, script, "--memory-limit=100MiB", "--record=it.rec") as program:
        program.stdout.readline()
        time.sleep(0.3)
        program.kill()
    until(lambda: of(recorded(tmp_path / "it.rec"), "closed"))
    entries = recorded(tmp_path / "it.rec")
    assert of(entries, "end", pid=program.pid)[0]["ending"] == "vanished"
    assert of(entries, "sample")[-1]["active"] >= 20 * MIB


def test_a_recorder_that_is_killed_leaves_all_but_the_last_second(tmp_path):
    script = """
print("ready", flush=True)
for n in range(30):
    held = load(n)
    time.sleep(0.1)
"""
    with start(tmp_path, script, "--memory-limit=100MiB", "--record=it.rec", "--quiet") as program:
        program.stdout.readline()
        time.sleep(1)
        os.kill(recorder_of(tmp_path / "it.rec"), signal.SIGKILL)
        killed = time.time()
        program.wait()
    assert program.returncode == 0
    entries = recorded(tmp_path / "it.rec")
    assert entries[-1]["at"] >= killed - 1
    assert not of(entries, "closed")


def test_no_child_of_the_programs_records(run):
    script = """
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("none")
"""
    assert run(PROGRAM + script, "--record=it.rec").stdout == b"none\n"


def test_below_a_command_that_records_it_is_that_which_does(run, tmp_path):
    script = """
import subprocess
below = "import numpy, time; held = numpy.ones(9 << 20, numpy.uint8); time.sleep(0.5)"
words = [sys.executable, "-m", "memlimits", "run", "--record=other.rec", "-c", below]
subprocess.run(words, check=True)
"""
    done = run(PROGRAM + script, "--memory-limit=200MiB", "--record=it.rec")
    assert b"--record other.rec: a command above this one records already" in done.stderr
    assert not (tmp_path / "other.rec").exists()
    entries = recorded(tmp_path / "it.rec")
    assert len({entry["pid"] for entry in of(entries, "sample")}) == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/it.rec", "No such file or directory"),
        ("taken.txt", "there is something that is no recording"),
        ("it.rec.gz", "a recording is not compressed while it is written"),
        (".", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_of(run, tmp_path, name, why):
    (tmp_path / "taken.txt").write_text("of others")
    done = run("print(1)", f"--record={name}", code=2)
    assert done.stdout == b""
    assert b"memlimits: cannot record to " in done.stderr
    assert why.encode() in done.stderr
    assert (tmp_path / "taken.txt").read_text() == "of others"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_where_the_disk_is_full_the_program_goes_on(run, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = run(PROGRAM + "time.sleep(3)\nprint(7)", "--record=small/it.rec")
        assert done.stdout == b"7\n"
        assert b"memlimits: the recording is not complete: No space left on device" in done.stderr
        entries = recorded(folder / "it.rec")
        assert of(entries, "sample")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_that_another_command_records_to_is_left_to_it(run, tmp_path):
    script = "print('ready', flush=True); sys.stdin.read()"
    with start(tmp_path, script, "--record=it.rec", "--quiet", stdin=subprocess.PIPE) as program:
        program.stdout.readline()
        done = run("print(1)", "--record=it.rec", code=2)
        assert b"another process records to it now" in done.stderr
        (tmp_path / "program.py").write_text(PROGRAM)
        program.communicate()
    assert {entry["pid"] for entry in of(recorded(tmp_path / "it.rec"), "sample")} == {program.pid}


def test_a_recorder_that_was_killed_is_told_of(tmp_path):
    script = "print('ready', flush=True); sys.stdin.read()"
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(tmp_path, script, "--record=it.rec", **options) as program:
        program.stdout.readline()
        os.kill(recorder_of(tmp_path / "it.rec"), signal.SIGKILL)
        _, stderr = program.communicate()
    assert "the recording is not complete: the process that records does not answer" in stderr


def test_where_streams_are_closed_it_records_all_the_same(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM + "held = load(9)\ntime.sleep(0.3)")
    words = f"{shlex.quote(sys.executable)} -m memlimits run --quiet --record=it.rec program.py"
    subprocess.run(f"{words} <&- >&-", shell=True, cwd=tmp_path, check=True)
    until(lambda: of(recorded(tmp_path / "it.rec"), "closed"))
    assert max(sample["active"] for sample in of(recorded(tmp_path / "it.rec"), "sample")) > 9 * MIB


def test_the_recorder_is_none_of_the_programs_processes(run):
    script = """
from memlimits import processes
time.sleep(0.3)
commands = [facts["command"] for facts in processes.running()]
print([command for command in commands if "_boot.py _record" in command])
"""
    done = run(PROGRAM + script, "--record=it.rec")
    assert done.stdout == b"[]\n"
    assert b"child processes ran" not in done.stderr


def test_nothing_is_left_in_shared_memory(run, tmp_path):
    run("print(1)", "--record=it.rec")
    folder = f"/dev/shm/memlimits-{os.geteuid()}"
    pools = os.environ.get("MEMLIMITS_POOLS", folder)
    until(lambda: not any(name.endswith(".events") for name in os.listdir(pools)))


def test_what_the_page_shows_is_run(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    page = (ROOT / "docs/guides/holders.md").read_text()
    [script] = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
    for command in script.splitlines():
        program, *words = shlex.split(command)
        assert program == "memlimits"
        subprocess.run([sys.executable, "-m", "memlimits", *words], cwd=tmp_path, check=True)
    [refusal] = of(recorded(tmp_path / "run.rec"), "refusal")
    assert refusal["holders"][0]["function"] == "read"
    assert b"collect" in (tmp_path / "run.html").read_bytes()
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
