"""`memlimits top` in a real terminal: what it shows, against what the programs themselves say."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

import memlimits
from support.children import environment
from support.members import LIMIT, members
from support.patience import until
from support.terminal import terminal

pytest.importorskip("textual")
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not there"),
]


@pytest.fixture
def screen(folder):
    with terminal() as one:

        def start(*words, **environ):
            command = [sys.executable, "-m", "memlimits", "top", *map(str, words)]
            one.start(command, environment(folder, MEMLIMITS_POOLS=str(folder), **environ))
            one.says("? keys")
            return one

        one.top = start
        yield one


@pytest.fixture
def some(folder):
    with members(folder, 3) as three:
        for one in three:
            one.ask("memlimits.set_memory_limit(100 * MIB)")
            one.ask("memlimits.set_memory_policy('strict')")
        yield three


def cells(screen, pid):
    """The words of a process's line; none where it is not seen."""
    return next((line.split() for line in screen.lines() if re.match(f" *{pid} ", line)), [])


def column(screen, title, pid):
    titles = next(line.split() for line in screen.lines() if "COMMAND" in line)
    words = cells(screen, pid)
    return words[titles.index(title)] if words else ""


def order(screen):
    return [int(found[1]) for line in screen.lines() if (found := re.match(r" *(\d+) +\S+ ", line))]


def ordered(screen, *some):
    pids = [one.pid for one in some]
    until(lambda: [pid for pid in order(screen) if pid in pids] == pids)


def quit_with(screen, key, status=0):
    screen.press(key)
    screen.says(f"[ended: {status}]")
    assert not screen.is_full_screen


def test_it_goes_with_what_programs_do(screen, some):
    first, second, third = some
    for one, size in zip(some, (30, 20, 10), strict=True):
        one.ask(f"take({size} * MIB)")
    screen.top()
    ordered(screen, first, second, third)
    assert screen.is_full_screen
    assert column(screen, "FOOTPR", first.pid) == "30Mi"
    assert column(screen, "%LIM", second.pid) == "20%"
    third.ask("take(80 * MIB)")
    ordered(screen, third, first, second)
    until(lambda: column(screen, "%LIM", third.pid) == "90%!")
    until(lambda: "near a limit" in screen.text())
    assert third.ask("take(90 * MIB)") == "limit"
    until(lambda: column(screen, "STATE", third.pid) == "refused")
    assert third.ask("memlimits.stats().refusals") == 1
    assert column(screen, "REFUS", third.pid).rstrip("+") == "1"
    first.tell("sum(range(1 << 60))")
    until(lambda: column(screen, "STATE", first.pid) == "runs")
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: column(screen, "STATE", first.pid) == "stopped")
    assert column(screen, "FOOTPR", first.pid) == "30Mi"
    second.end()
    until(lambda: column(screen, "STATE", second.pid) == "ended")
    until(lambda: cells(screen, second.pid) == [])
    quit_with(screen, "q")


def test_keys(screen, some):
    first, second, third = some
    for one, size in zip(some, (30, 20, 10), strict=True):
        one.ask(f"take({size} * MIB)")
    second.ask("blocks.pop().release()")
    screen.top()
    ordered(screen, first, second, third)
    screen.press("R")
    ordered(screen, third, second, first)
    screen.press(">", ">")  # Of these columns: FOOTPR, %LIM, ACTIVE.
    screen.says("by active ")
    ordered(screen, first, third, second)
    screen.press("<")
    screen.says("by of_limit ")
    screen.press("N")
    by_pid = sorted(some, key=lambda one: one.pid)
    ordered(screen, *by_pid)
    screen.press("N")
    ordered(screen, *reversed(by_pid))
    screen.press("F", "/")
    screen.says("find: _")
    screen.type(str(second.pid))
    screen.press("Enter")
    until(lambda: order(screen) == [second.pid])
    screen.press("Enter")
    screen.says(f"process {second.pid}  ")
    screen.says("memory limit 100Mi strict, given")
    screen.press("Escape")  # What was to be found.
    screen.press("Escape")
    ordered(screen, first, second, third)
    screen.press("?")
    screen.says("PgUp, PgDn")
    screen.press("Escape")
    until(lambda: "PgUp" not in screen.text())
    screen.press("p")
    screen.says("it is in no pool that can be seen")
    quit_with(screen, "C-c")


def test_one_program_closer(screen, some):
    one = some[0]
    one.ask("take(10 * MIB)")
    screen.top(one.pid)
    one.ask("[take(MIB) and time.sleep(0.05) for _ in range(80)] and 1")
    one.ask("[take(1 << 40) for _ in range(3)] and 1")
    stats = one.ask("memlimits.stats()._asdict()")
    screen.says("refused by  ")
    text = screen.text()
    assert re.search(rf"refusals {stats['refusals']} ", text)
    assert re.search(r"refused by  \w+ 3$", text, re.M)
    assert re.search(rf"misses {stats['misses']} ", text)
    assert re.search(r"^footprint .*[▂▃▄▅▆].*█ +0 to 90Mi$", text, re.M)
    one.end()
    screen.says(f"process {one.pid} ended at ")
    quit_with(screen, "q")


def test_a_pool_and_who_waits(screen, folder):
    memlimits.pools.create("p", LIMIT)
    with members(folder, 2) as (first, second):
        first.join()
        second.join(policy="wait", timeout=100)
        first.ask("take(50 * MIB)")
        second.tell("take(20 * MIB)")
        screen.top("p")
        until(lambda: column(screen, "STATE", second.pid) == "waits")
        assert re.search(r"^p: 5\S+Mi of 64Mi .*1 waiting for 20Mi since", screen.text(), re.M)
        first.ask("blocks.pop().release()")
        assert second.hear() == "ok"
        until(lambda: column(screen, "STATE", second.pid) == "sleeps")
        until(lambda: column(screen, "FOOTPR", second.pid).rstrip("+") == "20Mi")
    memlimits.pools.remove("p")
    screen.says("removed at ")
    quit_with(screen, "q")


def shown(screen):
    """The rarest of these titles that is shown."""
    titles = next((line.split() for line in screen.lines() if "PID" in line), [])
    return next((title for title in ("PEAK", "ACTIVE", "%LIM") if title in titles), "")


def test_it_fits_into_any_terminal(screen, some):
    for one in some:
        one.ask("take(MIB)")
    screen.top()
    for width, height in ((40, 12), (80, 24), (20, 9), (200, 50)):
        screen.resize(width, height)
        screen.fills(height, "by footprint")
        ordered(screen, *sorted(some, key=lambda one: one.pid))
        assert max(map(len, screen.lines())) <= width
        until(lambda: shown(screen) == {20: "", 40: "%LIM", 80: "ACTIVE", 200: "PEAK"}[width])  # noqa: B023
    quit_with(screen, "q")


def test_characters_of_a_command_take_the_cells_that_they_take(screen, folder):
    script = "import memlimits; b = memlimits.allocate(1 << 20); print(flush=True); input()"
    (folder / "a.py").write_text(script)
    words = [sys.executable, folder / "a.py", "[b]\033[2J", "日本" * 99]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as program:
        program.stdout.readline()
        screen.top()
        for width in (100, 101, 102):
            screen.resize(width, 24)
            screen.says("a.py [b] [2J 日本")
            (line,) = [line for line in screen.lines() if re.match(f" *{program.pid} ", line)]
            assert re.search("[日本] ?[+]$", line)
            # tmux knows by itself how wide they are.
            assert screen.text().count("[2J") == 1
        program.communicate(b"\n")


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)[;m]")


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}])
def test_colours_are_left_out_where_that_is_asked(screen, some, environ):
    some[0].ask("take(90 * MIB)")
    screen.top(**environ)
    until(lambda: column(screen, "%LIM", some[0].pid) == "90%!")
    text = screen.text("-e")
    assert bool(COLOUR.search(text)) == (not environ)
    assert "\x1b[1m" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(screen, some, number):
    screen.top()
    with open(f"/proc/{screen.shell}/task/{screen.shell}/children") as file:
        os.kill(int(file.read()), number)
    screen.says(f"[ended: {128 + number}]")
    assert not screen.is_full_screen
    screen.type("echo")
    screen.says("echo")


def test_of_many_only_those_that_fit_are_seen(screen, some):
    some[0].ask("take(MIB)")
    forks = "[os.fork() or (os.close(1), take(MIB), time.sleep(1000)) for _ in range(150)]"
    pids = some[0].ask(forks)
    try:
        screen.top()
        until(lambda: screen.text().count(" 2Mi ") > 1)
        assert len(order(screen)) == 24 - 3
        first, last = min(some[0].pid, *pids), max(some[0].pid, *pids)
        screen.press("N")
        until(lambda: order(screen)[0] <= first)
        assert last not in order(screen)
        screen.press("End")
        until(lambda: order(screen)[-1] >= last)
        assert first not in order(screen)
        screen.press("PageUp", "Home")
        until(lambda: order(screen)[0] <= first)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    screen.press("Home")
    until(lambda: some[0].pid in order(screen) and not set(order(screen)) & set(pids))
    quit_with(screen, "q")


def test_without_the_extra_a_sentence_says_what_to_do(folder):
    script = "import sys; sys.modules['textual'] = None; from memlimits.cli import main; "
    with terminal() as one:
        command = [sys.executable, "-c", script + "sys.exit(main(['top']))"]
        one.start(command, environment(folder))
        one.says("[ended: 2]")
        said = "".join(one.lines())
        assert "pip install textual; memlimits top --once works without" in said


def test_a_terminal_that_can_do_nothing_gets_the_table(folder, some):
    with terminal() as one:
        # tmux sets it, whatever it is told.
        words = ["env", "TERM=dumb", sys.executable, "-m", "memlimits", "top"]
        one.start(words, environment(folder))
        one.says("[ended: 0]")
        assert one.lines()[0].startswith("memlimits top  ")
