"""What processes tell of themselves: seen from outside, without their help."""

import os
import resource
import subprocess
import sys
import textwrap
import time

import pytest

import memlimits
from memlimits import processes
from support.patience import until
from support.process import run
from support.units import MIB

pytestmark = [pytest.mark.host, pytest.mark.inside]

A_THREAD = 64 << 10  # what it may have claimed and not used

# It says that it is ready, and then does what it is told in C.
PROGRAM = """
import os, signal, sys, time
import memlimits
MIB = 1 << 20
if len(sys.argv) > 1:
    os.setresuid(65534, 65534, 65534)
memlimits.set_memory_limit(100 * MIB)
memlimits.set_memory_policy("strict")
block = memlimits.allocate(40 * MIB)
{}
"""


class Program:
    def __init__(self, script, *words):
        source = PROGRAM.format(textwrap.dedent(script))
        command = [sys.executable, "-c", source, *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        self.pid = self.process.pid
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def tell(facts):
    return facts["footprint"], facts["active"], facts["idle"]


def test_its_own_figures_are_those_of_stats():
    run("""
        from memlimits import processes
        memlimits.set_memory_limit(200 * MIB)
        memlimits.set_wired_limit(MIB)
        memlimits.set_memory_policy("strict")
        block = memlimits.allocate(10 * MIB)
        assert refused_by(500 * MIB) == "limit"
        memlimits.set_memory_policy("wait", 0.001)
        assert refused_by(195 * MIB) == "limit"
        tickets = memlimits._modules.for_admissions()
        ticket = tickets.Admission(50 * MIB)
        ticket.open()
        tickets.note(3 * MIB, 2 * MIB, 4 * MIB)
        facts, stats = processes.get(os.getpid()), memlimits.stats()._asdict()
        for name in ("memory_limit", "cache_limit", "wired_limit", "policy", "memory_count",
                     "footprint", "pending", "wired", "reserved", "peak", "misses", "overruns",
                     "evictions", "evicted", "trims", "pressure_trims", "decays", "waiting",
                     "waits", "waited_seconds", "refusals", "mlx_active", "mlx_cache", "mlx_peak",
                     "mlx_tickets"):
            assert facts[name] == stats[name], (name, facts[name], stats[name])
        assert (facts["waits"], facts["refusals"]) == (1, 2)
        assert facts["refusals_by"] == {"limit": 2}
        assert (facts["mlx_active"], facts["mlx_tickets"]) == (3 * MIB, 50 * MIB)
        assert facts["active"] == stats["active"]
        assert (facts["pool_limit"], facts["parent"]) == (None, os.getppid())
        assert facts["command"].startswith(os.path.basename(sys.executable) + " -c")
        """)


@pytest.mark.parametrize("size", [100 << 10, MIB, 3 * MIB])
def test_the_first_block_is_seen(size):
    run(f"""
        from memlimits import processes
        block = memlimits.allocate({size})
        assert abs(processes.get(os.getpid())["active"] - {size}) <= 64 << 10
        """)


def test_what_is_wired_is_seen_at_once():
    run("""
        from memlimits import processes
        memlimits.set_wired_limit(2 * MIB)
        first, second = memlimits.allocate(MIB), memlimits.allocate(2 * MIB)
        for step in (
            lambda: memlimits.wire(second),
            lambda: memlimits.unwire(second),
            lambda: memlimits.allocate(MIB, wired=True),
            lambda: memlimits.set_wired_limit(0),
            lambda: memlimits.set_wired_limit(3 * MIB),
        ):
            step()
            assert processes.get(os.getpid())["wired"] == memlimits.stats().wired
        """)


def test_what_is_freed_and_taken_again_is_seen_without_a_slow_step():
    run(f"""
        from memlimits import processes
        blocks = [memlimits.allocate(MIB) for _ in range(32)]
        before = processes.get(os.getpid())
        misses = memlimits.stats().misses
        most = before["peak"] // 50 + 2 * {A_THREAD}
        for left in (16, 4, 0):
            while len(blocks) > left:
                blocks.pop().release()
            now = processes.get(os.getpid())
            freed = (32 - left) * MIB
            assert abs(before["active"] - now["active"] - freed) <= most
            assert now["footprint"] == before["footprint"]
            assert now["footprint"] == now["active"] + now["idle"]
        blocks = [memlimits.allocate(MIB) for _ in range(32)]
        assert memlimits.stats().misses == misses
        assert abs(processes.get(os.getpid())["active"] - before["active"]) <= most
        """)


@pytest.mark.parametrize(
    ("script", "states"),
    [
        ('print("ready", flush=True); sum(range(1 << 60))', "R"),
        ('print("ready", flush=True); sys.stdin.read()', "S"),
        ('print("ready", flush=True); os.kill(os.getpid(), signal.SIGSTOP)', "T"),
    ],
    ids=["computes", "waits", "is stopped"],
)
def test_another_process_is_seen_whatever_it_does(script, states):
    with Program(script) as program:
        until(lambda: processes.get(program.pid)["state"] in states)
        facts = processes.get(program.pid)
        assert tell(facts) == (40 * MIB, 40 * MIB, 0)
        assert (facts["memory_limit"], facts["policy"]) == (100 * MIB, "strict")
        assert facts["resident"] > 0
        assert facts["user"] == os.geteuid()
        assert time.time() - 100 < facts["began"] <= facts["at"] <= time.time()
        assert program.pid in [each["pid"] for each in processes.running()]


def test_one_that_ended_is_not_there():
    with Program('print("ready", flush=True); sys.stdin.read()') as program:
        path = f"/dev/shm/memlimits-{os.geteuid()}/running/{program.pid}@{processes._space()}"
        assert os.path.exists(path)
        program.process.kill()
        program.process.wait()
        assert program.pid not in [each["pid"] for each in processes.running()]
        with pytest.raises(LookupError, match=f"there is no process {program.pid}"):
            processes.get(program.pid)


def test_a_forked_child_tells_of_itself():
    run("""
        from memlimits import processes
        block = memlimits.allocate(8 * MIB)
        told, tells = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                processes.get(os.getpid())
            except LookupError:
                more = memlimits.allocate(3 * MIB)
                facts = processes.get(os.getpid())
                os.write(tells, b"%d" % facts["footprint"])
            time.sleep(60)
        assert int(os.read(told, 20)) == 11 * MIB
        child, own = processes.get(pid), processes.get(os.getpid())
        assert (child["footprint"], own["footprint"]) == (11 * MIB, 8 * MIB)
        assert child["parent"] == os.getpid()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert pid not in [each["pid"] for each in processes.running()]
        """)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_other_users_are_for_root_to_see():
    with Program('print("ready", flush=True); sys.stdin.read()') as program:
        run(f"""
            from memlimits import processes
            own = memlimits.allocate(MIB)
            os.setresuid(65534, 65534, 65534)
            try:
                processes.get({program.pid})
            except PermissionError as error:
                assert str(error) == "process {program.pid} is another user's: root can look at it"
            assert {program.pid} not in [each["pid"] for each in processes.running()]
            """)
    with Program('print("ready", flush=True); sys.stdin.read()', "as nobody") as program:
        assert processes.get(program.pid)["user"] == 65534
        assert program.pid in [each["pid"] for each in processes.running()]


@pytest.mark.parametrize(
    ("pid", "kind", "text"),
    [
        ("1", TypeError, "pid must be an integer, not '1'"),
        (True, TypeError, "pid must be an integer, not True"),
        (0, ValueError, "pid must be 1 or more, not 0"),
        (1 << 40, LookupError, f"there is no process {1 << 40}"),
    ],
)
def test_what_is_no_pid_is_refused(pid, kind, text):
    with pytest.raises(kind) as caught:
        processes.get(pid)
    assert str(caught.value) == text


def test_who_has_no_page_is_told_of():
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(LookupError, match="does not use memlimits, or has not asked for any"):
            processes.get(other.pid)
        other.kill()


def test_a_page_is_read_at_one_instant():
    """Growth writes twenty thousand times meanwhile."""
    script = """
        memlimits.set_cache_limit(0)
        print("ready", flush=True)
        while True:
            memlimits.allocate(5 * MIB).release()
        """
    with Program(script) as program:
        seen = set()
        for _ in range(3000):
            facts = processes.get(program.pid)
            assert facts["footprint"] in (40 * MIB, 45 * MIB)
            assert facts["pending"] in (0, 5 * MIB)
            assert facts["active"] + facts["idle"] + facts["pending"] == facts["footprint"]
            seen.add(facts["misses"])
        assert len(seen) > 100


def test_looking_leaves_no_file_open():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        block = memlimits.allocate(MIB)
        for _ in range(300):
            assert processes.get(os.getpid())["active"] >= MIB
        block.release()
    finally:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("/usr/bin/python3 -u train.py 3", "python3 -u train.py 3"),
        ("/opt/bin/python /opt/bin/memlimits run --memory-limit 1GiB train.py 3", "train.py 3"),
        ("python -m memlimits run --quiet --policy=wait -m jobs.train", "-m jobs.train"),
        ("python /x/_boot.py run --record=it.rec -- -c print(1)", "-c print(1)"),
        ("memlimits run --per-process --pool p a.py --pool q", "a.py --pool q"),
        ("memlimits run", "memlimits run"),
        ("python run.py run x", "python run.py run x"),
        ("", ""),
    ],
)
@pytest.mark.inside
def test_a_command_is_the_programs(tmp_path, words, command):
    (tmp_path / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words.split()))
    assert processes._command(str(tmp_path)) == command


@pytest.fixture
def running():
    """Where pages are, for names that nobody has."""
    held = memlimits.allocate(MIB)
    folder = f"/dev/shm/memlimits-{os.geteuid()}/running"
    made = []

    def make(pid):
        made.append(f"{folder}/{pid}@{processes._space()}")
        return made[-1]

    yield make
    held.release()
    for path in made:
        if os.path.lexists(path):
            os.unlink(path)


@pytest.mark.inside
def test_what_is_no_page_is_passed_over(running):
    own = f"/dev/shm/memlimits-{os.geteuid()}/running/{os.getpid()}@{processes._space()}"
    with open(own, "rb") as file:
        page = file.read()
    kept = processes.running()
    os.mkfifo(running(77))
    os.symlink(own, running(78))
    for pid, content in ((79, b""), (80, page[:100]), (81, b"x" * 600), (82, page)):
        with open(running(pid), "wb") as file:
            file.write(content)
    found = processes.running()
    assert [one["pid"] for one in found] == [one["pid"] for one in kept]


@pytest.mark.inside
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_page_that_another_user_made_is_passed_over(running):
    with Program('print("ready", flush=True); sys.stdin.read()') as program:
        assert processes.get(program.pid)
        path = running(program.pid)
        os.chown(path, 65534, 65534)
        with pytest.raises(LookupError, match="does not use memlimits"):
            processes.get(program.pid)


@pytest.mark.parametrize("name", [b"\x1cVmRSS:z", b"a\xc2\x85Uid:x", b"\x9b31m"])
def test_a_name_may_hold_anything(name):
    script = f"""
        import ctypes
        ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)
        print("ready", flush=True)
        sys.stdin.read()
        """
    with Program(script) as program:
        assert processes.get(program.pid)["footprint"] == 40 * MIB
        program.process.kill()
        until(lambda: processes.get(program.pid)["state"] == "Z")
        assert processes.get(program.pid)["command"].isprintable()
