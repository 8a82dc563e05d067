"""The processes of a program under `memlimits run`: one limit for all, and one report."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from support.cgroup import needs_namespace
from support.children import environment
from support.commands import RUN

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("buffered_streams")]

MIB = 1 << 20
# Two that hold so much at once, told when to end.
TWO = """
import subprocess, sys
code = '''
import memlimits, sys
try:
    block = memlimits.allocate(40 << 20)
except MemoryError:
    print("refused", flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
'''
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
children = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
said = [child.stdout.readline().strip() for child in children]
print(*sorted(said), flush=True)
"""
END = """
for child in children:
    child.communicate()
"""


@pytest.fixture
def run(tmp_path):
    pools = tmp_path / "pools"
    pools.mkdir()
    environ = environment(tmp_path, MEMLIMITS_POOLS=str(pools))

    def run(source, *options, env=environ, **keywords):
        words = [sys.executable, *RUN, *options, "-c", textwrap.dedent(source)]
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, **keywords
        )
        assert done.returncode == 0, done.stderr
        return done

    run.environ, run.pools = environ, pools
    yield run
    assert os.listdir(pools) == []


LIMIT = "--memory-limit=80MiB"


def test_the_limit_is_one_for_all(run, tmp_path):
    done = run(TWO + END, LIMIT, f"--report={tmp_path / 'report.json'}")
    assert done.stdout == "held refused\n"
    assert re.search(
        r"memlimits: all processes: peak [4-7]\d.*MiB of 80 MiB together, 3 processes, refusals 1,",
        done.stderr,
    )
    report = json.loads((tmp_path / "report.json").read_text())["processes"]
    assert (report["limit"], report["refusals"], report["ended"]) == (80 * MIB, 1, 2)
    assert sorted(member["refusals"] for member in report["ended_members"]) == [0, 1]
    assert report["peak"] <= 80 * MIB


def test_the_limit_is_each_ones_where_that_is_asked_for(run):
    done = run(TWO + END, LIMIT, "--per-process")
    assert done.stdout == "held held\n"
    assert "all processes" not in done.stderr


def test_without_a_place_for_a_pool_the_limit_is_each_ones(run, tmp_path):
    """A container may have no /dev/shm, and nothing else that can be written."""
    environ = {**run.environ, "MEMLIMITS_POOLS": str(tmp_path / "file" / "pools")}
    (tmp_path / "file").write_text("")
    done = run(TWO + END, LIMIT, env=environ)
    assert done.stdout == "held held\n"
    warning = "memlimits: warning: the memory limit is each process's own: there is no place"
    assert done.stderr.startswith(warning)
    assert "Set MEMLIMITS_POOLS" in done.stderr


@pytest.mark.parametrize("depth", [0, 1])
def test_who_starts_after_the_first_has_ended_is_within_the_limit_too(run, depth):
    source = """
        import os, subprocess, sys, time
        import memlimits
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            held = memlimits.allocate(50 << 20)
            code = "import memlimits; memlimits.allocate(50 << 20)"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            print(done.stderr.splitlines()[-1])
            sys.stdout.flush()
            held.release()
            # What ends last takes the pool's file with it.
            os.execv(sys.executable, [sys.executable, "-c", "pass"])
    """
    if depth:
        source = f"""
            import os, subprocess, sys
            wait = "import os, time\\nwhile os.getppid() == {{}}: time.sleep(0.01)\\n"
            code = wait.format(os.getpid()) + {textwrap.dedent(source)!r}
            subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
        """
    assert (
        "cannot allocate 50 MiB (52,428,800 bytes): the limit for all" in run(source, LIMIT).stdout
    )


@needs_namespace
def test_a_dev_shm_without_room_is_passed_over(run, tmp_path):
    environ = {**run.environ, "TMPDIR": str(tmp_path)}
    del environ["MEMLIMITS_POOLS"]
    script = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *RUN, LIMIT]
    source = "import os; print(os.listdir('/dev/shm/memlimits-0'))"
    done = subprocess.run(
        [*words, "-c", source], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    assert ".tree" not in done.stdout
    assert [entry.name for entry in tmp_path.glob("memlimits-*")] != []


def test_one_command_below_another_stays_within_its_limit(run):
    inner = "['-m', 'memlimits', 'run', '--quiet', '--memory-limit=1GiB', '-c', code]"
    done = run(TWO.replace("['-c', code]", inner).replace('"-c", code', f"*{inner}") + END, LIMIT)
    assert done.stdout == "held refused\n"


@pytest.mark.skipif("t" in sys.abiflags, reason="objects are not governed without the GIL")
def test_pythons_objects_wait_for_more_than_others_have_and_are_counted(run):
    source = """
    import subprocess, sys
    code = "import memlimits, time; held = memlimits.allocate(40 << 20); print(flush=True); "
    code += "time.sleep(0.5)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(len(bytearray(50 << 20)))
    child.wait()
    """
    done = run(source, LIMIT, "--policy=wait", "--timeout=60")
    assert done.stdout == f"{50 << 20}\n"
    assert re.search(r"all processes: .*refusals 0, waits [1-9]", done.stderr), done.stderr


def test_a_worker_that_was_killed_is_named(run):
    kill = "holder = children[said.index('held')]\nholder.kill()\nholder.wait()\n"
    done = run(TWO + kill + END, LIMIT)
    named = r"ended without its exit handlers, holding 4\d.*MiB: process \d+ \(python\S* -c"
    assert re.search(named, done.stderr)


def test_one_that_is_asked_tells_of_all(run, tmp_path):
    source = TWO + "input()\n" + END
    words = [sys.executable, *RUN, LIMIT, "-c", source]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(words, cwd=tmp_path, env=run.environ, text=True, **pipes) as process:
        assert process.stdout.readline() == "held refused\n"
        process.send_signal(signal.SIGUSR1)
        lines = []
        while not lines or "command" not in lines[-1]:
            lines.append(process.stderr.readline())
        assert re.match(r"memlimits: all processes: in use .* of 80 MiB", lines[-2])
        pids = [int(process.stderr.readline().split()[1]) for _ in range(3)]
        assert process.pid in pids
        process.communicate("\n")
    assert process.returncode == 0


def test_what_a_tree_left_that_was_killed_is_swept(run):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    words = [sys.executable, *RUN, LIMIT, "-c", killed]
    subprocess.run(words, env=run.environ, capture_output=True, timeout=100)
    assert len(os.listdir(run.pools)) == 1
    run("print()", LIMIT)
