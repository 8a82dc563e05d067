"""Members that come, take, drop, give up their idle memory, leave and are killed, against a model.

The model has one rule: a block of n bytes is there for whoever asks if what all have in use, and n,
are within the limit. What a process keeps idle that is too small to have a thread for it is in the
way, and may be, and so is what a block has behind its bytes. `HYPOTHESIS_PROFILE=long` looks much
further.
"""

import os
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import memlimits
from support.members import MIB, Member

pytestmark = pytest.mark.host

LIMIT = 48 * MIB
MOST = 3
# Such a process has no thread that gives idle memory back.
SMALL = 4 * MIB


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.before = os.environ.get("MEMLIMITS_POOLS")
        self.folder = tempfile.TemporaryDirectory()
        os.environ["MEMLIMITS_POOLS"] = self.folder.name
        memlimits.pools.create("p", LIMIT)
        self.limit = LIMIT
        self.members = {}
        self.ended = 0

    def teardown(self):
        for member in self.members:
            member.end()
        if self.before is None:
            del os.environ["MEMLIMITS_POOLS"]
        else:
            os.environ["MEMLIMITS_POOLS"] = self.before
        self.folder.cleanup()

    def facts(self):
        return memlimits.pools.get("p")

    def one_of(self, data):
        return data.draw(st.sampled_from(sorted(self.members, key=lambda m: m.pid)))

    @precondition(lambda self: len(self.members) < MOST)
    @rule()
    def come(self):
        member = Member(self.folder.name)
        member.join()
        self.members[member] = []

    @precondition(lambda self: self.members)
    @rule(data=st.data(), n=st.integers(1, 32))
    def take(self, data, n):
        member = self.one_of(data)
        n *= MIB
        in_use = sum(map(sum, self.members.values()))
        in_the_way = sum(each.ask("memory.stats().slack") for each in self.members)
        for each in self.members:
            stats = each.ask("[memory.stats().footprint, memory.stats().cache]")
            if each is not member and stats[0] < SMALL:
                in_the_way += stats[1]
        answer = member.ask(f"take({n})")
        if in_use + n > self.limit:
            assert answer == "pool"
        elif in_use + in_the_way + n <= self.limit:
            assert answer == "ok"
        if answer == "ok":
            self.members[member].append(n)

    @precondition(lambda self: any(self.members.values()))
    @rule(data=st.data())
    def drop(self, data):
        member = self.one_of(data)
        if blocks := self.members[member]:
            place = data.draw(st.integers(0, len(blocks) - 1))
            del blocks[place]
            member.ask(f"blocks.pop({place}) and None")

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def clear(self, data):
        self.one_of(data).ask("memlimits.clear_cache()")

    @precondition(lambda self: self.members)
    @rule(data=st.data(), how=st.sampled_from(["kill", "end", "leave"]))
    def go(self, data, how):
        member = self.one_of(data)
        del self.members[member]
        self.ended += 1
        if how == "leave":
            member.ask("memlimits.pools.Membership('p').leave()")
        elif how == "kill":
            os.kill(member.pid, signal.SIGKILL)
        member.process.communicate()

    @rule(limit=st.integers(16, 64))
    def change(self, limit):
        in_use = sum(map(sum, self.members.values()))
        self.limit = max(limit * MIB, in_use)
        memlimits.pools.set_limit("p", self.limit)

    @invariant()
    def all_is_counted(self):
        facts = self.facts()
        by_pid = {m["pid"]: m for m in facts["members"]}
        assert by_pid.keys() == {member.pid for member in self.members}
        assert facts["ended"] == self.ended
        for member, blocks in self.members.items():
            footprint = member.ask("memory.stats().footprint")
            assert by_pid[member.pid]["used"] >= footprint >= sum(blocks)
        assert sum(map(sum, self.members.values())) <= self.limit


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=300 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 8,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
