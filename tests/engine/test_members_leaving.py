"""Members of a pool that leave, fork and close files while others do."""

import subprocess
import sys

import pytest

import memlimits
from support.members import MIB, members

pytestmark = pytest.mark.host


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    memlimits.pools.create("p", 64 * MIB)
    return tmp_path


LEAVING = """
import faulthandler, os, sys, threading, time
import memlimits

faulthandler.dump_traceback_later(60, exit=True)
ends = time.monotonic() + 3
memlimits.pools.create("q", 1 << 28)

def joins_and_leaves():
    while time.monotonic() < ends:
        try:
            with memlimits.join("q"):
                memlimits.allocate(6 << 20).release()
        except (RuntimeError, ValueError, MemoryError):    # another thread did, or has the room
            pass

def asks():
    while time.monotonic() < ends:
        try:
            memlimits.allocate(1 << 28)
        except MemoryError:
            pass

threads = [threading.Thread(target=target) for target in (joins_and_leaves, joins_and_leaves, asks)]
for thread in threads:
    thread.start()
while time.monotonic() < ends:
    child = os.fork()
    if child == 0:
        try:
            memlimits.pools.Membership("q").leave()
        except RuntimeError:
            pass
        os._exit(0)
    os.waitpid(child, 0)
for thread in threads:
    thread.join()
"""


def test_leaving_hangs_nobody_whoever_leaves_or_forks_meanwhile(folder):
    words = [sys.executable, "-W", "ignore", "-c", LEAVING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_closed_all_files_still_sees_who_ended(folder):
    with members(folder, 2) as (one, other):
        one.join()
        other.join()
        one.ask("os.closerange(3, 4096)")
        other.ask("take(50 * MIB)")
        other.process.kill()
        other.process.wait()
        assert one.ask("take(50 * MIB)") == "ok"
        # And holds its own again.
        assert [m["pid"] for m in memlimits.pools.get("p")["members"]] == [one.pid]
