"""`memlimits pool`, and programs that run in one."""

import json
import os
import subprocess
import sys

import pytest

from support.commands import execute
from support.members import members
from support.patience import until

pytestmark = pytest.mark.host


@pytest.fixture
def pool(environ, tmp_path):
    def run(*words):
        return execute("-m", "memlimits", "pool", *words, env=environ, cwd=tmp_path)

    return run


def test_a_pool_from_its_beginning_to_its_end(pool, environ, tmp_path):
    assert pool("list").stdout == b"no pools\n"
    assert pool("create", "gpu0", "--limit", "256MiB").returncode == 0
    assert pool("set", "gpu0", "--limit", "128MiB").returncode == 0
    (facts,) = json.loads(pool("list", "--json").stdout)
    assert (facts["name"], facts["limit"], facts["members"]) == ("gpu0", 128 << 20, [])
    program = "import memlimits, sys; block = memlimits.allocate(50 << 20); print(); input()"
    words = [sys.executable, "-m", "memlimits", "run", "--pool", "gpu0", "--quiet", "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, env=environ, cwd=tmp_path, **pipes) as process:
        process.stdout.readline()

        def shown():
            return pool("list", "gpu0").stdout.decode().splitlines()

        assert "of 128 MiB" in shown()[0]
        # Where the machine is busy it may not have answered at once.
        row = [str(process.pid), "50", "MiB"]
        until(lambda: (line := shown()[2]).split()[:3] == row or "50." in line)
        too_much = pool("set", "gpu0", "--limit", "9TiB")
        assert too_much.returncode == 2
        assert "this pool's limit can be" in too_much.stderr.decode()
        lowered = pool("set", "gpu0", "--limit", "16MiB")
        full = execute(*words[1:], env=environ, cwd=tmp_path)
        assert full.returncode == 2
        assert "pool 'gpu0' has no room for a program" in full.stderr.decode()
        assert lowered.returncode == 0
        assert "its members use 5" in lowered.stderr.decode()
        refused = pool("remove", "gpu0")
        assert refused.returncode == 2
        assert f"has members: {process.pid}" in refused.stderr.decode()
        process.communicate(b"\n")
    assert pool("remove", "gpu0").returncode == 0
    assert pool("list").stdout == b"no pools\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["create", "a/b", "--limit=1GiB"], "invalid pool name 'a/b'"),
        (["create", "x" * 64, "--limit=1GiB"], "at most 63 characters, not 64"),
        (["create", "", "--limit=1GiB"], "invalid pool name ''"),
        (["create", "a", "--limit=1KiB"], "limit must be from 2**20 to 2**62 - 1 bytes"),
        (["create", "a", "--limit=much"], "invalid size 'much'"),
        (["create", "a", "--limit=infinity"], "a pool is a limit, and infinity is none: write"),
        (["list", "a"], "there is no pool 'a': memlimits pool create a --limit SIZE makes it"),
        (["set", "a", "--limit=1GiB"], "there is no pool 'a'"),
        (["remove", "a"], "there is no pool 'a'"),
    ],
)
def test_what_is_wrong_is_said(pool, words, error):
    done = pool(*words)
    assert done.returncode == 2
    assert error in done.stderr.decode()


def test_one_that_is_there_is_not_made_again(pool):
    pool("create", "a", "--limit=1GiB")
    done = pool("create", "a", "--limit=2GiB")
    assert done.returncode == 2
    assert "there is a pool 'a' already, of 1 GiB (1,073,741,824 bytes)" in done.stderr.decode()


def test_a_program_in_a_pool_is_refused_what_does_not_fit_there(pool, environ, tmp_path):
    pool("create", "a", "--limit=64MiB")
    program = "import numpy; numpy.ones(80 << 17)"
    words = ("-m", "memlimits", "run", "--pool", "a", "-c", program)
    done = execute(*words, env=environ, cwd=tmp_path)
    assert done.returncode == 1
    assert "refused 80 MiB" in done.stderr.decode()
    below = f"import subprocess, sys; subprocess.run([sys.executable, *{words}])"
    done = execute("-m", "memlimits", "run", "--memory-limit=1GiB", "-c", below, env=environ)
    assert "--pool a: a command above this one has a pool already" in done.stderr.decode()


def test_who_waits_without_a_limit_waits_for_the_others(environ, tmp_path):
    """Within the limit that there is by itself."""
    below = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import numpy'])"
    words = ("-m", "memlimits", "run", "--policy=wait", "--report=it.json", "-c", below)
    done = execute(*words, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "it.json").read_text())
    assert report["processes"]["limit"] == pytest.approx(report["memory_limit"], rel=1e-3)
    assert report["processes"]["ended"] == 1
    assert b"memlimits: all processes: peak " in done.stderr


def test_a_report_tells_of_its_own_time(pool, environ, tmp_path):
    pool("create", "a", "--limit=64MiB")
    program = "import subprocess as s, sys; s.run([sys.executable, *sys.argv[1:]])"
    words = ("-m", "memlimits", "run", "--pool", "a", "-c", program)
    refused = execute(
        *words, "-c", "import numpy; numpy.ones(80 << 17)", env=environ, cwd=tmp_path
    ).stderr.decode()
    later = execute(*words, "-c", "", env=environ, cwd=tmp_path).stderr.decode()
    assert "refused once: process" in refused
    assert "refused once: process" not in later
    assert "pool a, since it was made: peak" in later


STARTS = """
import subprocess, sys
for _ in sys.stdin:
    done = subprocess.run([sys.executable, "-c", ""], capture_output=True, text=True)
    print(done.returncode, done.stderr.strip(), flush=True)
"""


@pytest.mark.skipif("t" in sys.abiflags, reason="objects are not governed without the GIL")
def test_a_python_that_has_no_room_to_start_ends_with_a_line(pool, environ, tmp_path):
    pool("create", "p", "--limit=64MiB")
    words = [sys.executable, "-m", "memlimits", "run", "--quiet", "--pool", "p", "-c", STARTS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        members(environ["MEMLIMITS_POOLS"], 1) as (other,),
        subprocess.Popen(words, env=environ, cwd=tmp_path, **pipes) as program,
    ):

        def start():
            program.stdin.write("\n")
            program.stdin.flush()
            return program.stdout.readline()

        assert start() == "0 \n"
        other.join()

        def starts_where_nothing_is_left():
            # To the last page; but what the program has idle by the time that it starts one goes to
            # that.
            other.ask("[take(4096 << i) for i in range(14, -1, -1) for _ in 'ab'] and None")
            return start()

        ends = {starts_where_nothing_is_left() for _ in range(5)}
        line = "1 memlimits: this process ends: its limits leave no room for a Python to start\n"
        assert line in ends <= {line, "0 \n"}
        program.stdin.close()


@pytest.mark.parametrize("options", [["--memory-limit", "1GiB"], ["-X", "utf8"]])
def test_the_programs_words_are_its_name(pool, environ, tmp_path, options):
    pool("create", "a", "--limit=64MiB")
    (tmp_path / "serve.py").write_text("input()")
    words = [sys.executable, *options] if "-X" in options else [sys.executable]
    words += ["-m", "memlimits", "run", "--quiet", "--pool", "a"]
    words += [] if "-X" in options else options
    child = subprocess.Popen(
        [*words, "serve.py", "--port", "1"], env=environ, cwd=tmp_path, stdin=subprocess.PIPE
    )
    with child:
        while not (members := json.loads(pool("list", "a", "--json").stdout)[0]["members"]):
            assert child.poll() is None
        assert members[0]["command"].endswith("serve.py --port 1")
        assert "memlimits" not in members[0]["command"]
        child.communicate(b"\n")


def test_a_program_needs_the_pool_that_it_names(environ, tmp_path):
    words = ("-m", "memlimits", "run", "--pool", "a", "-c", "print()")
    done = execute(*words, env=environ, cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no pool 'a'" in done.stderr.decode()
    assert os.listdir(tmp_path / "pools") == []
