"""Processes of one user on a machine: what one was promised, no other one is given."""

import os
import stat
import subprocess
import sys

import pytest

from support.cgroup import UNIFIED, needs_namespace, recorded
from support.peers import Holder
from support.process import run

pytestmark = [pytest.mark.host, needs_namespace]

# No control group has a limit here.
MACHINE = "MemTotal: 4096000 kB\nMemAvailable: 1024000 kB"


@pytest.fixture
def words(tmp_path):
    return recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=MACHINE)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shm" / f"memlimits-{os.geteuid()}" / "running"


def test_what_another_was_promised_and_has_not_touched_is_spoken_for(words, folder):
    with Holder(words, 600) as one:
        assert one.ended == "given"
        with Holder(words, 600) as other:
            assert other.ended == "refused"
        with Holder(words, 300) as other:
            assert other.ended == "given"
    with Holder(words, 600) as other:
        assert other.ended == "given"


def test_what_was_touched_is_the_systems_to_tell(words, folder):
    with Holder(words, 600, touched=True), Holder(words, 600) as other:
        assert other.ended == "given"


def test_effective_limit_leaves_it_out(words, folder):
    program = """
        memlimits.set_memory_limit(1 << 40)
        bounds = memlimits.effective_limit().candidates
        room = next(bound.nbytes for bound in bounds if bound.kind == "system")
        assert (1000 - 33 - 400 - 33) * MIB <= room <= (1000 - 33 - 400) * MIB, room // MIB
    """
    with Holder(words, 400):
        run(program, words=words)


def test_each_has_a_file_as_long_as_it_lives(words, folder):
    with Holder(words, 1) as one, Holder(words, 1) as other:
        found = {int(name.name.split("@")[0]) for name in folder.iterdir()}
        assert found == {one.pid, other.pid}
        facts = folder.stat()
        assert stat.S_IMODE(facts.st_mode) == 0o700
        other.process.kill()
        other.process.wait()
        with Holder(words, 1) as third:
            found = {int(name.name.split("@")[0]) for name in folder.iterdir()}
            assert found == {one.pid, third.pid}
    assert list(folder.iterdir()) == []


def test_importing_makes_none(words, folder):
    run("assert memlimits.get_memory_limit()", words=words)
    assert not folder.exists()


def test_who_does_not_use_it_is_not_counted(words, folder):
    """Its pid may be another program's by now."""
    program = "import mmap, sys; held = mmap.mmap(-1, 900 << 20, flags=34); print(flush=True); "
    command = [sys.executable, "-c", program + "sys.stdin.read()"]
    with Holder(words, 1) as one:
        space = next(folder.iterdir()).name.split("@")[1]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        other.stdout.readline()
        (folder / f"{other.pid}@{space}").touch()
        (folder / f"{one.pid}@1").touch()  # of another namespace
        (folder / "anything").touch()
        with Holder(words, 600) as third:
            assert third.ended == "given"
        other.communicate()


@pytest.mark.parametrize("what", ["file", "link", "writable"])
def test_a_place_that_is_not_the_users_own_is_left_alone(words, folder, tmp_path, what):
    folder.parent.mkdir(mode=0o700)
    if what == "file":
        folder.write_text("")
    elif what == "link":
        (tmp_path / "target").mkdir()
        folder.symlink_to(tmp_path / "target")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with Holder(words, 600) as one, Holder(words, 600) as other:
        assert (one.ended, other.ended) == ("given", "given")
        assert what == "file" or list(folder.iterdir()) == []


def test_forked_children_see_each_other(words, folder):
    run(
        """
        memlimits.set_memory_limit(1 << 40)
        told, tells = os.pipe()
        pids = []
        for _ in range(3):
            pids.append(os.fork())
            if pids[-1] == 0:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
                try:
                    block = memlimits.allocate(400 * MIB)
                except memlimits.MemoryLimitError:
                    os.write(tells, b"r")
                else:
                    os.write(tells, b"g")
                time.sleep(60)
        ends = sorted(os.read(told, 1) for _ in pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert ends == [b"g", b"g", b"r"], ends
        """,
        words=words,
    )
