"""Members of a pool that leave, fork and close files while others do."""

import os
import subprocess
import sys

import pytest

from support.cgroup import needs_namespace
from support.members import MIB, Member, facts, members
from support.patience import until
from support.places import let_everybody_in

pytestmark = pytest.mark.host


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


def test_leaving_hangs_nobody_whoever_leaves_or_forks_meanwhile(pool):
    words = [sys.executable, "-W", "ignore", "-c", LEAVING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


@needs_namespace
def test_who_was_taken_for_ended_is_in_again(pool):
    one = Member(pool, "unshare", "--pid", "--fork", "--mount-proc")
    try:
        one.join()
        one.ask("os.closerange(3, 4096)")
        assert one.ask("take(50 * MIB)") == "ok"
        # Nobody can look for it from here.
        assert facts()["members"] == []
        assert one.ask("take(20 * MIB)") == "pool"
        one.ask("take(4096)")
        # It is asked what it has by now, and may take a while to say.
        until(lambda: [m["active"] for m in facts()["members"]] == [50 * MIB + 4096])
    finally:
        one.end()


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to be two users")
def test_who_closed_all_files_is_not_taken_for_ended_by_another_user(tmp_path):
    let_everybody_in(tmp_path)
    with members(tmp_path, 2) as (one, other):
        assert one.ask("memlimits.pools.create('p', 64 * MIB, everybody=True)") is None
        # What is imported before may lie where only root can read.
        assert other.ask("memlimits.pools.names()") == ["p"]
        other.ask("os.setgid(65534) or os.setuid(65534)")
        one.join()
        other.join()
        one.ask("os.closerange(3, 4096)")
        assert one.ask("take(50 * MIB)") == "ok"
        # It cannot read what the first has mapped.
        assert other.ask("take(50 * MIB)") == "pool"


def test_who_closed_all_files_still_sees_who_ended(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("os.closerange(3, 4096)")
        other.ask("take(50 * MIB)")
        other.process.kill()
        other.process.wait()
        assert one.ask("take(50 * MIB)") == "ok"
        # And holds its own again.
        assert [m["pid"] for m in facts()["members"]] == [one.pid]
