"""What a pool says of its members, and to them."""

import os
import re
import signal

import pytest

from support.members import MIB, facts, members
from support.patience import until

pytestmark = pytest.mark.host


def test_the_maximum_is_a_bound_of_what_can_be_had(pool):
    with members(pool, 1) as (one,):
        one.join(maximum=32 * MIB)
        one.ask("take(25 * MIB)")
        assert one.ask("memlimits.effective_limit().nbytes") == 7 * MIB


def each_takes_15_mib(processes):
    for member in processes:
        member.join()
        for _ in range(15):
            assert member.ask("take(MIB)") == "ok"


def test_what_the_own_limit_refuses_is_not_drawn(pool):
    with members(pool, 1) as (one,):
        one.join()
        one.ask("memlimits.set_memory_limit(20 * MIB)")
        assert one.ask("take(40 * MIB)") == "limit"
        assert facts(one.pid)["held"] <= 16 * MIB
        assert facts()["peak"] < MIB


def test_the_peak_is_what_was_seen_at_most(pool):
    with members(pool, 4) as processes:
        each_takes_15_mib(processes)
        assert facts()["peak"] == 60 * MIB
        for member in processes:
            member.ask("blocks.clear() or memlimits.clear_cache()")
        assert facts()["peak"] == 60 * MIB


def test_a_peak_that_nobody_saw_is_noted(pool):
    with members(pool, 4) as processes:
        each_takes_15_mib(processes)
        for member in processes:
            member.ask("blocks.clear() or memlimits.clear_cache()")
        assert facts()["peak"] == 60 * MIB


def test_a_peak_of_those_who_have_left_is_noted(pool):
    with members(pool, 2) as (one, other):
        each_takes_15_mib([one, other])
        for member in (one, other):
            member.process.communicate()
        assert facts()["members"] == []
        assert facts()["peak"] == 30 * MIB


def test_what_was_freed_since_is_told_of(pool):
    with members(pool, 1) as (one,):
        one.join()
        for _ in range(4):
            one.ask("take(5 * MIB)")
        one.ask("blocks.clear()")
        until(lambda: (facts(one.pid)["active"], facts(one.pid)["cached"]) == (0, 20 * MIB))


def test_the_minimum_is_the_parents(pool):
    program = """
        (lambda read, write: (
            os.fork() or (take(5 * MIB), os.write(write, b"x"), time.sleep(100), os._exit(0)),
            os.read(read, 1) == b"x"
        )[1])(*os.pipe())
    """
    with members(pool, 1) as (one,):
        one.join(minimum=10 * MIB)
        assert one.ask(re.sub(r"\s+", " ", program)) is True
        minimums = {m["pid"]: m["minimum"] for m in facts()["members"]}
        assert minimums.pop(one.pid) == 10 * MIB
        (child,) = minimums
        assert minimums[child] == 0
        os.kill(child, signal.SIGKILL)
