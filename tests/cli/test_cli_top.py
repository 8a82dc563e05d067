"""`memlimits top --once`, against what the programs themselves say."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

import memlimits
from memlimits.cli.source import Family
from memlimits.cli.width import fitted
from memlimits.figures import printable
from support.children import environment
from support.commands import execute
from support.members import LIMIT, MIB, Member, members
from support.patience import until
from support.places import ROOT
from support.process import run

pytestmark = pytest.mark.host

A_THREAD = 64 << 10  # what it may have claimed and not used


@pytest.fixture
def member(folder):
    with members(folder, 1) as (one,):
        one.ask("memlimits.set_memory_policy('strict')")
        one.ask("memlimits.set_memory_limit(100 * MIB)")
        yield one


@pytest.fixture
def top(folder):
    environ = environment(folder, MEMLIMITS_POOLS=str(folder))

    def run(*words, code=0, env=environ, **options):
        done = execute("-m", "memlimits", "top", *map(str, words), env=env, **options)
        assert done.returncode == code, done
        assert (done.stderr == b"") == (code == 0), done
        return (done.stderr if code else done.stdout).decode()

    return run


def seen(text, pid):
    """What JSON says of a process."""
    return next(row for row in json.loads(text)["processes"] if row["pid"] == pid)


def line_of(text, pid):
    return next(line for line in text.splitlines() if line.split()[:1] == [str(pid)])


def assert_as_it_says(row, stats):
    for name in ("footprint", "peak", "memory_limit", "refusals", "waits", "misses", "wired"):
        assert row[name] == stats[name], name
    assert abs(row["active"] - stats["active"]) <= max(stats["peak"] // 50, A_THREAD)
    assert row["of_limit"] == pytest.approx(stats["footprint"] / stats["memory_limit"])


def test_it_shows_what_programs_say_of_themselves_whatever_they_do(member, top):
    assert member.ask("[take(n * MIB) for n in (40, 10, 90)]") == ["ok", "ok", "limit"]
    member.ask("blocks.pop().release()")
    stats = member.ask("memlimits.stats()._asdict()")
    assert (stats["footprint"], stats["refusals"]) == (50 * MIB, 1)
    idle = seen(top("--json"), member.pid)
    assert_as_it_says(idle, stats)
    assert idle["state"] == "S"
    assert "50Mi" in line_of(top("--once"), member.pid).split()
    member.tell("sum(range(1 << 60))")
    until(lambda: seen(top("--once", "--json"), member.pid)["state"] == "R")
    assert_as_it_says(seen(top("--json"), member.pid), stats)
    os.kill(member.pid, signal.SIGSTOP)
    until(lambda: "stopped" in line_of(top(), member.pid))
    assert_as_it_says(seen(top(member.pid, "--json"), member.pid), stats)


def test_what_is_near_or_refused_is_marked_in_text(member, top):
    member.ask("take(90 * MIB)")
    assert re.search(r" 90%!", line_of(top("--once"), member.pid))
    assert "near" in seen(top("--json"), member.pid)["marks"]
    # What is idle is given up before anything is refused.
    member.ask("blocks.pop().release()")
    assert re.search(r" 90% ", line_of(top("--once"), member.pid))
    member.tell("[take(101 * MIB) for _ in iter(int, 1)]")
    text = top("--interval", 0.2)
    assert re.search(r" \d[\d.]*k?\+ .* refused ", line_of(text, member.pid))
    assert re.search(r", 1 refused", text)


def test_two_looks_tell_what_grew(member, top):
    member.ask("take(MIB)")
    assert seen(top("--json"), member.pid)["rates"] is None
    member.tell("[time.sleep(0.01) or take(4096 * 8) for _ in range(1500)] and 1")
    row = seen(top("--json", "--interval", 1), member.pid)
    assert {"footprint", "active"} <= set(row["grew"])
    assert 0 < row["rates"]["active"] <= 4096 * 8 * 100
    assert "Mi+" in line_of(top("--once", "--interval=0.5"), member.pid)


def test_one_of_a_pool_waits_and_since_when(folder, top):
    memlimits.pools.create("p", LIMIT)
    with members(folder, 2) as (first, second):
        first.join()
        second.join(policy="wait", timeout=100)
        first.ask("take(50 * MIB)")
        second.tell("take(20 * MIB)")
        until(lambda: seen(top("p", "--json"), second.pid)["waiting_since"])
        text = top("p", "--json")
        row = seen(text, second.pid)
        assert row["marks"] == ["waits"]
        assert row["waiting_for"] == 20 * MIB
        (pool,) = json.loads(text)["pools"]
        assert (pool["name"], pool["limit"], pool["waits"]) == ("p", LIMIT, 1)
        assert pool["of_limit"] == sum(m["used"] for m in pool["members"]) / LIMIT
        assert {row["pid"] for row in json.loads(text)["processes"]} == {first.pid, second.pid}
        text = top("p")
        assert re.search(r"^p: 5\d.*Mi of 64Mi \d\d%.*, 1 waiting for 20Mi since ", text, re.M)
        assert re.search(r" waits +20Mi \d", line_of(text, second.pid))
        # Of all that there is it is a part, too.
        assert "\np: 5" in top()
        assert seen(top("--json"), first.pid)["pool"] == "p"
        first.ask("blocks.pop().release()")
        assert second.hear() == "ok"
        assert line_of(top("p"), second.pid).split()[12] == "sleeps"


def switches(pid):
    """How often each thread of a process gave up its processor by itself."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            found[thread] = int(
                re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M)[1]
            )
    return found


def rests(pid):
    before = switches(pid)
    time.sleep(0.1)
    return switches(pid) == before


def test_members_are_asked_nothing(folder, top):
    memlimits.pools.create("p", LIMIT)
    with members(folder, 1) as (one,):
        one.join()
        one.ask("take(20 * MIB)")
        until(lambda: len(switches(one.pid)) == 2)  # Whom others ring for listens.
        until(lambda: memlimits.pools.get("p") and max(switches(one.pid).items())[1])
        until(lambda: rests(one.pid))
        before = switches(one.pid)
        for _ in range(3):
            top("p"), top(), top(one.pid)
        assert switches(one.pid) == before
        memlimits.pools.get("p")
        until(lambda: switches(one.pid) != before)


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_program_and_what_it_started(folder, top):
    """Also where what lies between knows nothing of memlimits."""
    with ExitStack() as stack:
        outer = Member(folder, "sh", "-c", '"$@"; :', "sh")
        stack.callback(outer.end)
        outer.ask("take(3 * MIB)")
        (program,) = json.loads(top(outer.pid, "--json"))["processes"]
        assert (program["parent"], program["footprint"]) == (outer.pid, 3 * MIB)
        stack.callback(kill, program["pid"])
        child = outer.ask("os.fork() or (os.close(1), take(2 * MIB), time.sleep(1000))")
        stack.callback(kill, child)
        until(lambda: len(json.loads(top(outer.pid, "--json"))["processes"]) == 2)
        assert seen(top(outer.pid, "--json"), child)["parent"] == program["pid"]
        # One whose parents ended is not below them any more, but was.
        family = Family(outer.pid)
        assert len(family.find()[0]) == 2
        os.kill(program["pid"], signal.SIGKILL)
        outer.process.wait()
        rows, _ = family.find()
        assert [row["pid"] for row in rows] == [child]
        assert family.note.startswith(f"process {outer.pid} ended at ")


def test_what_is_not_there_has_a_sentence_and_a_status(folder, top):
    with members(folder, 1) as (one,):
        one.ask("take(MIB)")
        one.process.kill()
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        # Nobody has taken note of its end.
        assert f"there is no process {one.pid}" in top(one.pid, "--once", code=1)
        assert str(one.pid) not in top()
    with subprocess.Popen(["sleep", "60"]) as other:
        assert "does not use memlimits, or has not asked" in top(other.pid, code=1)
        other.kill()


def test_a_number_is_a_process(folder, top):
    memlimits.pools.create("1000000000", LIMIT)
    text = top("1000000000", code=1)
    assert text == (
        "memlimits: there is no process 1000000000; --pool 1000000000 is the pool of that name\n"
    )
    assert "1000000000: 0 of 64Mi" in top("--pool", "1000000000")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["nope"], 1, "there is no pool 'nope'"),
        (["0"], 1, "there is no process 0"),
        (["-1"], 2, "invalid pool name '-1'"),
        (["a/b"], 2, "invalid pool name 'a/b'"),
        (["", "--once"], 2, "invalid pool name ''"),
        (
            ["--interval", "soon"],
            2,
            "argument --interval: invalid time 'soon': write seconds, from 0.1",
        ),
        (["--interval", "0"], 2, "argument --interval: invalid time '0'"),
        (["--interval", "nan"], 2, "argument --interval: invalid time 'nan'"),
        (["--sort", "size"], 2, "argument --sort: invalid column 'size': write one of pid, user"),
        (["1", "--pool", "p"], 2, "argument --pool: 1 is given besides: leave out either"),
    ],
)
def test_what_is_wrong_is_said(top, words, code, error):
    assert re.search(error, top(*words, code=code))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_of_another_users_process_there_is_one_sentence(member):
    member.ask("take(MIB)")
    done = run(f"""
        from memlimits.cli import main
        assert main(["top", "--once", "--pool", "nope"]) == 1
        os.setresuid(65534, 65534, 65534)
        # Not the tests' folder, which he may be let into and may not list.
        os.environ["MEMLIMITS_POOLS"] = "/nowhere"
        assert main(["top", "--once", "{member.pid}"]) == 2
        assert main(["top", "--once"]) == 0
        """)
    said = f"memlimits: process {member.pid} is another user's: root can look at it\n"
    assert done.stderr.endswith(f"\n{said}")
    assert str(member.pid) not in done.stdout


def test_commands_are_shown_whatever_is_in_them(folder, top):
    script = "import memlimits; b = memlimits.allocate(1 << 20); print(flush=True); input()"
    words = [sys.executable, "-c", script, "日本語", "\033[31m\u202eé", "[bold]"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as program:
        program.stdout.readline()
        line = line_of(top(), program.pid)
        assert line.endswith("日本語  [31m é [bold]")
        ascii_only = environment(folder, PYTHONIOENCODING="ascii")
        assert line_of(top(env=ascii_only), program.pid).endswith(r"\u672c\u8a9e  [31m \xe9 [bold]")
        program.communicate(b"\n")


def test_once_needs_no_extra(folder):
    script = (
        "import sys; sys.modules['textual'] = None; from memlimits.cli import main; main(['top'])"
    )
    done = execute("-c", script, env=environment(folder))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"memlimits top  ")


def test_the_form_of_the_json_is_the_documented_one(member, top):
    page = ROOT / "docs" / "guides" / "top.md"
    if not page.exists():
        pytest.skip("not in a clone")
    memlimits.pools.create("p", LIMIT)
    member.ask("take(MIB)")
    text = page.read_text()
    found = json.loads(top("--json"))
    assert found["version"] == 1
    shown = [*found, *seen(json.dumps(found), member.pid), *found["pools"][0]]
    assert [name for name in shown if f"`{name}`" not in text] == []


def test_no_text_moves_the_cursor():
    """Names of processes and commands in a pool's file come as they are."""
    assert printable("a\033[2J\n\u202eb\u200b日") == "a [2J  b 日"
    assert fitted("日本", 3) == "日+"
    assert fitted("日本", 2) == "+ "
    assert fitted("e\u0301", 3) == "e\u0301  "
