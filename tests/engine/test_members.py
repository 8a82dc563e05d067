"""Processes in one pool: what they hold together, and what becomes of what they held."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

import memlimits
from support.members import LIMIT, MIB, Member, facts, first_to_answer, members
from support.patience import until

pytestmark = pytest.mark.host


def test_together_they_hold_no_more_than_the_limit(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        assert one.ask("take(40 * MIB)") == "ok"
        assert other.ask("take(40 * MIB)") == "pool"
        assert other.ask("take(24 * MIB)") == "ok"
        until(lambda: [m["active"] for m in facts()["members"]] == [40 * MIB, 24 * MIB])
        assert facts()["refusals"] == facts(other.pid)["refusals"] == 1


def test_a_refusal_says_what_the_others_use(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        other.ask("take(40 * MIB)")
        last = "memlimits.last_refusal()"
        assert other.ask(f"{last}.others") == 40 * MIB
        assert other.ask(f"{last}.limit") == LIMIT
        assert "all processes together" in other.ask(f"str({last})")


def test_what_is_drawn_ahead_is_given_to_who_needs_it(pool):
    with members(pool, 3) as processes:
        for member in processes:
            member.join()
            assert member.ask("take(4096)") == "ok"
        used = [m["used"] for m in facts()["members"]]
        assert all(m["held"] > m["used"] for m in facts()["members"])
        # To the last page.
        assert processes[0].ask(f"take({LIMIT - sum(used)})") == "ok"
        assert processes[1].ask("take(MIB)") == "pool"


def test_idle_memory_of_a_process_that_sleeps_goes_to_who_needs_it(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.ask("blocks.clear()")
        assert one.ask("memlimits.get_cache_memory()") == 40 * MIB
        one.tell("time.sleep(0.5)")
        assert other.ask("take(60 * MIB)") == "ok"
        one.hear()
        assert one.ask("memlimits.get_cache_memory()") == 0
        assert facts()["moved"] == facts(one.pid)["returned"] == 40 * MIB


@pytest.mark.parametrize("beside", [False, True])
def test_idle_memory_of_its_own_goes_for_what_the_pool_lacks(pool, beside):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        assert one.ask("take(14 * MIB)") == "ok"
        assert (other if beside else one).ask("take(12 * MIB)") == "ok"
        one.ask("blocks.pop(0) and None")
        assert one.ask("take(40 * MIB)") == "ok"


def test_idle_memory_of_little_priority_goes_first(pool):
    with members(pool, 3) as (low, high, asker):
        low.join(priority=1)
        high.join(priority=2)
        asker.join()
        for member in (low, high):
            member.ask("take(20 * MIB)")
            member.ask("blocks.clear()")
        assert asker.ask("take(40 * MIB)") == "ok"
        assert facts(low.pid)["returned"] == 20 * MIB
        assert facts(high.pid)["returned"] == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_who_is_killed_gives_its_room_back(pool, end):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        os.kill(one.pid, end)
        one.process.wait()
        assert other.ask("take(60 * MIB)") == "ok"
        assert (facts()["ended"], facts()["vanished"]) == (1, 1)


def test_who_ends_as_programs_do_has_left(pool):
    with members(pool, 1) as (one,):
        one.join()
        one.ask("take(40 * MIB)")
        one.process.communicate()
        assert facts()["members"] == []
        assert (facts()["ended"], facts()["vanished"]) == (1, 0)


def test_a_stopped_process_holds_up_nobody(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(20 * MIB)")
        os.kill(one.pid, signal.SIGSTOP)
        assert other.ask("take(44 * MIB)") == "ok"
        assert other.ask("take(4096)") == "pool"


def test_one_that_replaced_itself_gives_its_room_back(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.tell("os.execv('/bin/sleep', ['sleep', '100'])")
        until(lambda: os.readlink(f"/proc/{one.pid}/exe").endswith(("sleep", "coreutils")))
        assert other.ask("take(60 * MIB)") == "ok"


def test_one_that_closed_all_files_is_alive(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.ask("os.closerange(3, 4096)")
        assert other.ask("take(40 * MIB)") == "pool"
        assert one.ask("take(20 * MIB)") == "ok"


def test_a_forked_child_counts_what_it_takes_itself(pool):
    program = """[pid := os.fork(), pid or (print(repr([take(16 * MIB), take(16 * MIB)]),
        flush=True), os._exit(0)), os.waitpid(pid, 0)] and None"""
    with members(pool, 1) as (one,):
        one.join()
        one.ask("take(40 * MIB)")
        assert one.ask(re.sub(r"\s+", " ", program)) == ["ok", "pool"]
        one.hear()
        # What the child had is there again.
        assert one.ask("take(20 * MIB)") == "ok"


def test_under_wait_a_process_waits_for_others(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join(policy="wait", timeout=60)
        one.ask("take(40 * MIB)")
        started = time.time()
        other.tell("take(40 * MIB)")
        until(lambda: facts()["waits"] == 1)
        assert facts(other.pid)["waiting_for"] == 40 * MIB
        assert started - 0.1 < facts(other.pid)["waiting_since"] < time.time() + 0.1
        one.ask("blocks.clear()")
        assert other.hear() == "ok"
        assert facts(other.pid)["waiting_since"] is None


def test_who_waits_is_served_in_order_of_arrival(pool):
    with members(pool, 4) as (holder, *others):
        holder.join()
        holder.ask("take(60 * MIB)")
        for member in others:
            member.join(policy="wait", timeout=60)
            member.tell("take(40 * MIB)")
            until(lambda member=member: facts(member.pid)["waiting_for"] > 0)
        holder.ask("blocks.clear()")
        for member in others:
            assert member.hear() == "ok"
            waiting = [m["pid"] for m in facts()["members"] if m["waiting_for"]]
            assert member.pid not in waiting
            member.ask("blocks.clear()")


def test_one_that_can_be_served_passes_one_that_cannot(pool):
    """The first holds what the second would have to give back, and waits for it."""
    with members(pool, 2) as (large, small):
        for member in (large, small):
            member.join(policy="wait", timeout=60)
            assert member.ask("take(24 * MIB)") == "ok"
        large.tell("take(40 * MIB)")
        until(lambda: facts(large.pid)["waiting_for"] > 0)
        assert small.ask("take(8 * MIB)") == "ok"
        small.ask("blocks.clear()")
        assert large.hear() == "ok"


def test_nobody_begins_with_what_others_need_to_end(pool):
    """Three that hold a part each would wait for each other for the rest."""
    with members(pool, 3) as (one, other, late):
        for member in (one, other, late):
            member.join(policy="wait", timeout=10)
        assert one.ask("take(20 * MIB)") == other.ask("take(20 * MIB)") == "ok"
        late.tell("take(20 * MIB)")
        until(lambda: facts()["waits"] or facts(late.pid)["active"])
        for member in (one, other):
            answer = member.ask("take(20 * MIB)")
            if facts(late.pid)["active"] and answer == "pool":
                pytest.skip("so late that the others did not grow for long")
            assert answer == "ok"
            member.ask("blocks.clear()")
        assert late.hear() == "ok"


def test_of_those_amid_something_the_one_that_needs_least_goes_first(pool):
    """What the first needs the second may be about to give back."""
    with members(pool, 3) as (idle, more, less):
        idle.join()
        idle.ask("take(8 * MIB)")
        for member, size in ((more, 20), (less, 24)):
            member.join()
            assert member.ask(f"take({size} * MIB)") == "ok"
            member.ask("memlimits.set_memory_policy('wait', 20)")
        more.tell("take(16 * MIB)")
        until(lambda: facts()["waits"] == 1)
        assert less.ask("take(8 * MIB)") == "ok"
        less.ask("blocks.clear()")
        assert more.hear() == "ok"


def test_a_wait_ends_with_its_timeout(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join(policy="wait", timeout=0.2)
        one.ask("take(60 * MIB)")
        assert other.ask("take(40 * MIB)") == "pool"
        assert other.ask("memlimits.last_refusal().waited") >= 0.2


def test_a_killed_process_is_what_another_waits_for(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join(policy="wait", timeout=60)
        one.ask("take(60 * MIB)")
        other.tell("take(40 * MIB)")
        until(lambda: facts(other.pid)["waiting_for"] > 0)
        one.process.kill()
        before = time.monotonic()
        assert other.hear() == "ok"
        assert time.monotonic() - before < 30


def test_under_guideline_overruns_are_counted(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join(policy="guideline")
        one.ask("take(60 * MIB)")
        assert other.ask("take(40 * MIB)") == "ok"
        assert facts()["overruns"] == facts(other.pid)["overruns"] == 1
        assert one.ask("take(5 * MIB)") == "pool"


def test_a_minimum_is_always_there(pool):
    with members(pool, 2) as (one, other):
        one.join(minimum=20 * MIB)
        other.join()
        assert other.ask("take(50 * MIB)") == "pool"
        assert other.ask("take(44 * MIB)") == "ok"
        assert one.ask("take(20 * MIB)") == "ok"


def test_a_maximum_is_the_most(pool):
    with members(pool, 1) as (one,):
        one.join(maximum=20 * MIB)
        assert one.ask("take(21 * MIB)") == "pool"
        assert one.ask("take(20 * MIB)") == "ok"


def test_what_is_held_before_counts(pool):
    with members(pool, 2) as (one, other):
        one.ask("take(40 * MIB)")
        one.join()
        other.join()
        assert other.ask("take(40 * MIB)") == "pool"


def test_what_is_held_and_does_not_fit_keeps_out(pool):
    with members(pool, 1) as (one,):
        one.ask("take(66 * MIB)")
        answer = one.ask("memlimits.join('p')")
        assert re.search(rf"ValueError: pool 'p' has no room.*{LIMIT:,}.*{66 * MIB:,}", answer)
        assert one.ask("take(40 * MIB)") == "ok"
        assert facts()["members"] == []


def test_who_left_is_bound_by_its_own_limits_only(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        other.ask("take(10 * MIB)")
        other.ask("memlimits.pools.Membership('p').leave()")
        assert other.ask("take(60 * MIB)") == "ok"
        assert one.ask("take(24 * MIB)") == "ok"
        assert "not in pool" in other.ask("memlimits.pools.Membership('p').leave()")


def test_a_lowered_limit_takes_idle_memory(pool):
    with members(pool, 1) as (one,):
        one.join()
        one.ask("take(40 * MIB)")
        one.ask("take(10 * MIB)")
        one.ask("blocks.pop(0) and None")
        memlimits.pools.set_limit("p", 16 * MIB)
        until(lambda: facts(one.pid)["used"] == 10 * MIB)
        assert one.ask("take(7 * MIB)") == "pool"
        assert one.ask("take(6 * MIB)") == "ok"


def test_reservations_are_room_of_the_pool(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("globals().update(r=memlimits.reserve(30 * MIB)) or r.__enter__()")
        assert other.ask("take(40 * MIB)") == "pool"
        assert one.ask("take(30 * MIB)") == "ok"
        assert other.ask("take(34 * MIB)") == "ok"


def test_what_the_process_counts_is_what_its_slot_says(pool):
    """Random steps of all kinds; each page is counted once, and none for good."""
    program = "[take(n * MIB) for n in (1, 3, 9)] and blocks.pop(0) and None"
    with members(pool, 3) as processes:
        for member in processes:
            member.join()
        for _ in range(4):
            for member in processes:
                member.ask(program)
                used = member.ask("memory.stats().footprint")
                assert facts(member.pid)["used"] == used
        for member in processes:
            member.ask("blocks.clear() or memlimits.clear_cache()")
            assert facts(member.pid)["used"] == 0


def test_what_they_wire_is_within_what_all_may(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    memlimits.pools.create("p", LIMIT, wired_limit=3 * MIB)
    wire = "blocks.append(memlimits.allocate(2 * MIB)) or memlimits.get_wired_memory()"
    with members(tmp_path, 2) as (one, other):
        for member in (one, other):
            member.join()
            member.ask("memlimits.set_wired_limit(3 * MIB)")
        assert one.ask(wire) == 2 * MIB
        assert other.ask(wire) == 0
        unwired = "(lambda s: [s.unwired_by_limit, s.wire_failures])(memlimits.stats())"
        assert other.ask(unwired) == [2 * MIB, 0]
        assert [m["wired"] for m in facts()["members"]] == [2 * MIB, 0]
        one.ask("blocks.clear() or memlimits.clear_cache()")
        assert other.ask(wire) == 2 * MIB


def test_the_pool_is_a_bound_of_what_can_be_had(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        other.ask("take(8 * MIB)")
        bound = other.ask("str(memlimits.effective_limit())")
        assert f"nbytes={16 * MIB}, tightest='pool'" in bound
        assert other.ask("memlimits.would_fit(16 * MIB).nbytes") == 16 * MIB
        assert other.ask("bool(memlimits.would_fit(17 * MIB))") is False
        assert other.ask("take(16 * MIB)") == "ok"


def test_two_that_have_nothing_do_not_keep_each_other_from_what_is_there(pool):
    """Neither could be served twice what it asks for."""
    with members(pool, 2) as processes:
        for member in processes:
            member.join(policy="wait", timeout=60)
            member.tell("take(40 * MIB)")
        for _ in range(3):
            member = first_to_answer(processes)
            assert member.hear() == "ok"
            member.ask("blocks.clear()")
            member.tell("take(40 * MIB)")


def test_a_reservation_gets_what_others_hold_idle_and_gives_it_back(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.ask("blocks.clear()")
        other.ask("globals().update(r=memlimits.reserve(50 * MIB)) or r.__enter__()")
        assert other.ask("memory.counters()['reserved']") == 50 * MIB
        assert one.ask("take(20 * MIB)") == "pool"
        other.ask("r.__exit__(None, None, None)")
        assert one.ask("take(60 * MIB)") == "ok"


def test_a_forked_child_may_begin_with_a_reservation(pool):
    reserves = "memlimits.reserve(MIB).__enter__() and 'reserved'"
    program = f"[pid := os.fork(), pid or (print(repr({reserves}), flush=True), os._exit(0))]"
    with members(pool, 1) as (one,):
        one.join()
        assert one.ask("take(40 * MIB)") == "ok"
        assert one.ask(f"{program} and os.waitpid(pid, 0) and None") == "reserved"


def test_who_leaves_while_its_threads_wait_is_served(pool):
    with members(pool, 2) as (one, other):
        one.join()
        other.join(policy="wait", timeout=60)
        one.ask("take(60 * MIB)")
        other.ask("globals().update(threading=__import__('threading'), got=[])")
        other.ask(
            "[threading.Thread(target=lambda: got.append(take(40 * MIB))).start() "
            "for _ in range(3)] and None"
        )
        until(lambda: facts()["waits"] == 3)
        other.ask("memlimits.pools.Membership('p').leave()")
        until(lambda: other.ask("got") == ["ok"] * 3)


def test_a_refusal_has_the_maximum_and_what_is_set_aside(pool):
    program = "[globals().update(error=memlimits.last_refusal()), [error.limit, error.others]][1]"
    with members(pool, 2) as (one, other):
        one.join(maximum=32 * MIB)
        assert one.ask("take(40 * MIB)") == "pool"
        assert one.ask(program) == [32 * MIB, 0]
        other.join(minimum=40 * MIB)
        assert one.ask("take(30 * MIB)") == "pool"
        assert one.ask(program) == [32 * MIB, 40 * MIB]


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def may_say_which_pid_is_next():
    try:
        LAST_PID.write_text(LAST_PID.read_text())
    except OSError:
        return False
    return True


@pytest.mark.skipif(not may_say_which_pid_is_next(), reason="only root may, where the kernel does")
@pytest.mark.parametrize("joins", [False, True])
def test_a_pid_that_is_used_again_is_another_process(pool, joins):
    with members(pool, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.process.kill()
        one.process.communicate()
        for _ in range(200):
            LAST_PID.write_text(str(one.pid - 1))
            again = Member(pool)
            if again.pid == one.pid:
                break
            again.end()
        else:
            pytest.skip("others took the pid each time")
        try:
            if joins:
                again.join()
                assert again.ask("take(MIB)") == "ok"
            assert other.ask("take(60 * MIB)") == "ok"
            assert (facts()["ended"], facts()["vanished"]) == (1, 1)
            pids = sorted(member["pid"] for member in facts()["members"])
            assert pids == sorted([other.pid, *([one.pid] if joins else [])])
        finally:
            again.end()
