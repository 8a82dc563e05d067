"""Limits for a part of a program: `memlimits.limits` against a plain model, and in bad company."""

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

import memlimits
from memlimits import memory
from support.process import run
from support.threads import in_thread, run_threads
from support.units import KIB, MIB

SETTERS = {
    "memory": memlimits.set_memory_limit,
    "cache": memlimits.set_cache_limit,
    "wired": memlimits.set_wired_limit,
    "policy": memlimits.set_memory_policy,
}


def in_force():
    return {
        "memory": memlimits.get_memory_limit(),
        "cache": memlimits.get_cache_limit(),
        "wired": memlimits.get_wired_limit(),
        "policy": memory.get_memory_policy(),
    }


values = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(0, 2**63 - 1) | st.integers(0, 4 * MIB),
        "cache": st.none() | st.integers(0, 4 * MIB),
        "wired": st.integers(0, 64 * KIB),
        "policy": st.sampled_from(["guideline", "strict", "wait"]),
    },
)
workers = st.integers(0, 2)


class Scopes(RuleBasedStateMachine):
    """Three threads that open, end and set; the model is a list of dictionaries."""

    open_ones = Bundle("open_ones")
    left = Bundle("left")

    def __init__(self):
        super().__init__()
        self.pool = [ThreadPoolExecutor(1) for _ in range(3)]
        self.base = {**in_force(), "cache": None}
        self.layers = [dict(self.base)]
        self.scopes = []

    def on(self, worker, function, *args):
        return self.pool[worker].submit(function, *args).result(30)

    def decides(self, name):
        return next(layer for layer in reversed(self.layers) if name in layer)

    def expected(self, name):
        value = self.decides(name)[name]
        return self.expected("memory") if value is None else value

    @rule(target=open_ones, given=values, worker=workers)
    def open_one(self, given, worker):
        scope = memlimits.limits(**given)
        layer = dict(given)
        return self.enter(scope, layer, worker)

    @rule(target=open_ones, one=consumes(left), worker=workers)
    def open_again(self, one, worker):
        return self.enter(*one, worker)

    def enter(self, scope, layer, worker):
        assert self.on(worker, scope.__enter__) is scope
        self.layers.append(layer)
        self.scopes.append(scope)
        return scope, layer

    @rule(target=left, one=consumes(open_ones), worker=workers)
    def end(self, one, worker):
        scope, layer = one
        self.on(worker, scope.__exit__, None, None, None)
        self.layers = [other for other in self.layers if other is not layer]
        self.scopes.remove(scope)
        return one

    @rule(one=open_ones, worker=workers)
    def enter_twice(self, one, worker):
        with pytest.raises(RuntimeError, match="in force already"):
            self.on(worker, one[0].__enter__)

    @rule(given=values, worker=workers)
    def set_plainly(self, given, worker):
        for name, value in given.items():
            expected = self.expected(name)
            assert self.on(worker, SETTERS[name], value) == expected
            self.decides(name)[name] = value

    @invariant()
    def what_is_in_force_is_the_newest(self):
        assert in_force() == {name: self.expected(name) for name in SETTERS}

    def teardown(self):
        random.shuffle(self.scopes)
        for scope in self.scopes:
            scope.__exit__(None, None, None)
        assert in_force() == {name: self.layers[0][name] or in_force()[name] for name in SETTERS}
        for name, value in self.base.items():
            SETTERS[name](value)
        for pool in self.pool:
            pool.shutdown()


def test_any_sequence_on_three_threads():
    run_state_machine_as_test(
        Scopes,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_all_is_as_before_after_an_exception():
    memlimits.set_cache_limit(5 * MIB)
    before = in_force()
    inside = {"memory": 7 * MIB, "cache": 7 * MIB, "wired": 4096, "policy": "strict"}

    def fails():
        with memlimits.limits(**{**inside, "cache": None}):
            assert in_force() == inside
            with pytest.raises(memlimits.MemoryLimitError):
                memlimits.allocate(8 * MIB)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert in_force() == before


def test_the_cache_follows_again():
    with memlimits.limits(cache=MIB):
        pass
    memlimits.set_memory_limit(9 * MIB)
    assert memlimits.get_cache_limit() == 9 * MIB


def test_limits_act_at_once_on_the_way_in_and_on_the_way_out():
    memlimits.set_cache_limit(4 * MIB)
    with memlimits.limits(cache=64 * MIB):
        memlimits.allocate(16 * MIB).release()
        assert memlimits.get_cache_memory() >= 16 * MIB
        with memlimits.limits(memory=0):
            assert memlimits.get_cache_memory() == 0
        memlimits.allocate(16 * MIB).release()
    assert memlimits.get_cache_memory() <= 4 * MIB


def test_nothing_is_set_where_one_value_is_bad():
    before = in_force()
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    for bad, error in [
        ({"memory": -1}, ValueError),
        ({"memory": None}, TypeError),
        ({"memory": True}, TypeError),
        ({"cache": 2**64}, ValueError),
        ({"cache": "1"}, ValueError),
        ({"cache": b"1"}, TypeError),
        ({"wired": maximum + 1}, memlimits.WiredLimitError),
        ({"policy": "never"}, ValueError),
        ({"policy": None}, TypeError),
        ({"policy": "wait", "timeout": -1}, ValueError),
        ({"other": 1}, TypeError),
    ]:
        with pytest.raises(error, match=list(bad)[-1]):
            memlimits.limits(**{"memory": MIB, "cache": MIB, "policy": "strict", **bad})
        assert in_force() == before
    with pytest.raises(TypeError):
        memlimits.limits(MIB)


@pytest.mark.host
def test_nothing_is_set_where_the_warning_is_an_error():
    run("""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (MIB, MIB))
        as_nobody()
        before = memlimits.get_memory_limit()
        warnings.simplefilter("error")
        scope = memlimits.limits(memory=8 * MIB, wired=2 * MIB)
        try:
            scope.__enter__()
        except RuntimeWarning as warning:
            assert "2 MiB (2,097,152 bytes) is above" in str(warning)
        else:
            raise AssertionError
        assert memlimits.get_memory_limit() == before and memlimits.get_wired_limit() == 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with scope:
                assert memlimits.get_wired_limit() == 2 * MIB
                try:
                    scope.__enter__()
                except RuntimeError as error:
                    assert "in force already" in str(error)
        assert len(caught) == 1 and caught[0].filename == "<string>"
        assert memlimits.get_wired_limit() == 0
    """)


def test_waiting_brings_its_timeout_along():
    memlimits.set_memory_policy("wait", timeout=7)
    with memlimits.limits(policy="wait", timeout=3) as scope:
        assert memory.get_memory_policy().timeout == 3
        with memlimits.limits(policy="strict"):
            assert memory.get_memory_policy() == "strict"
        assert memlimits.set_memory_policy("wait", timeout=4).timeout == 3
    assert memory.get_memory_policy().timeout == 7
    with scope:
        assert memory.get_memory_policy().timeout == 4
    for values in ({"timeout": 3}, {"policy": "strict", "timeout": 3}):
        with pytest.raises(ValueError, match="policy 'wait'"):
            memlimits.limits(**values)


def test_a_scope_is_left_once_and_serves_again():
    before = in_force()
    scope = memlimits.limits(memory=MIB)
    references = sys.getrefcount(scope)
    with pytest.raises(RuntimeError, match="not in force"):
        scope.__exit__(None, None, None)
    for _ in range(2):
        with scope:
            assert memlimits.get_memory_limit() == MIB
        with pytest.raises(RuntimeError, match="not in force"):
            scope.__exit__(None, None, None)
    assert in_force() == before
    assert sys.getrefcount(scope) == references


def test_two_threads_at_one_scope():
    """One of them enters it, and one leaves it."""
    scope = memlimits.limits(memory=MIB)
    together = threading.Barrier(2, timeout=20)
    turns = 300
    done = {"entered": 0, "left": 0}

    def work():
        for _ in range(turns):
            together.wait()
            with suppress(RuntimeError):
                scope.__enter__()
                done["entered"] += 1
            together.wait()
            with suppress(RuntimeError):
                scope.__exit__(None, None, None)
                done["left"] += 1

    before = in_force()
    run_threads(work, work)
    assert done == {"entered": turns, "left": turns}
    assert in_force() == before


def test_no_step_finds_the_one_changed_and_not_the_other(storm):
    """What fits a high limit under "strict", and passes a low one under "guideline"."""
    memlimits.set_cache_limit(0)
    memlimits.set_memory_limit(4 * MIB)
    done = threading.Event()
    before = memory.counters()["refusals"]

    def change():
        while not done.is_set():
            with memlimits.limits(memory=64 * MIB, policy="strict"):
                pass

    def take():
        storm(2, 200, 1, 16, 17, 2**62)
        done.set()

    run_threads(change, take)
    assert memory.counters()["refusals"] == before


def test_a_scope_may_be_left_on_another_thread():
    before = in_force()
    scope = in_thread(memlimits.limits(memory=MIB).__enter__)
    assert memlimits.get_memory_limit() == MIB
    scope.__exit__(None, None, None)
    assert in_force() == before


def test_ten_thousand_deep():
    before = in_force()
    scopes = [memlimits.limits(memory=n) for n in range(10_000)]
    for scope in scopes:
        scope.__enter__()
    random.Random(1).shuffle(scopes)
    for scope in scopes:
        scope.__exit__(None, None, None)
    assert in_force() == before


def test_threads_that_overlap():
    """Where they stand still, all limits are of one scope, an open one; in the end as before."""
    before = in_force()
    count = 4
    together = threading.Barrier(count)
    opened = [set() for _ in range(count)]

    def work(seed):
        rng = random.Random(seed)
        scopes = {}
        for turn in range(400):
            for step in range(3):
                if scopes and rng.random() < 0.5:
                    number = rng.choice(list(scopes))
                    scopes.pop(number).__exit__(None, None, None)
                else:
                    number = ((turn * 3 + step) * count + seed + 1) * KIB
                    scopes[number] = memlimits.limits(
                        memory=number * 2, cache=number, policy="strict"
                    ).__enter__()
            opened[seed] = set(scopes)
            together.wait(30)
            now = in_force()
            if any(opened):
                assert now["cache"] in set().union(*opened)
                assert now["memory"] == 2 * now["cache"]
                assert now["policy"] == "strict"
            else:
                assert now == before
            together.wait(30)
        for scope in scopes.values():
            scope.__exit__(None, None, None)

    run_threads(*(lambda seed=seed: work(seed) for seed in range(count)))
    assert in_force() == before


def test_whoever_has_entered_finds_its_own_limits_or_newer_ones():
    """No thread may be left with an older value that another thread brought in late."""
    numbered = iter(range(1, 10**9))
    guard = threading.Lock()

    def ordered():
        for _ in range(1000):
            with guard:
                number = next(numbered)
                scope = memlimits.limits(memory=number * KIB).__enter__()
            assert memlimits.get_memory_limit() >= number * KIB
            scope.__exit__(None, None, None)

    run_threads(ordered, ordered, ordered)


SIGNALS = """
    base = memlimits.get_memory_limit(), memlimits.get_cache_limit(), memory.get_memory_policy()

    def state():
        return memlimits.get_memory_limit(), memlimits.get_cache_limit(), memory.get_memory_policy()

    ticks = 0
"""


def test_a_signal_handler_may_set_limits_and_wait_for_a_thread_that_does():
    run(
        SIGNALS
        + """
    def tick(*_):
        global ticks
        ticks += 1
        with memlimits.limits(memory=ticks * MIB, policy="strict"):
            assert memlimits.get_memory_limit() == ticks * MIB
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert memlimits.set_cache_limit(3 * MIB) >= 0
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    def other():
        with memlimits.limits(memory=7, cache=8):
            assert memlimits.get_memory_limit() == 7
            memlimits.set_memory_limit(9)

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    signal.signal(signal.SIGPROF, lambda *_: os._exit(3))
    signal.setitimer(signal.ITIMER_PROF, 20)
    while ticks < 200:
        with memlimits.limits(memory=5, cache=6, policy="strict"):
            with memlimits.limits(memory=4):
                assert memlimits.get_memory_limit() == 4
            assert memlimits.get_memory_limit() == 5
    signal.setitimer(signal.ITIMER_REAL, 0)
    memlimits.set_cache_limit(None)
    assert state() == base
    """
    )


def test_an_exception_from_a_signal_handler_leaves_no_scope_behind():
    run(
        SIGNALS
        + """
    class Tick(Exception):
        pass

    def tick(*_):
        raise Tick

    signal.signal(signal.SIGALRM, tick)
    ticks = 0
    while ticks < 300:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            while True:
                with memlimits.limits(memory=5, cache=6, policy="strict"):
                    with memlimits.limits(memory=4):
                        pass
        except Tick:
            ticks += 1
        assert state() == base
    """
    )


@pytest.mark.host
def test_a_forked_child_has_the_scopes_with_nothing_wired():
    run("""
        warnings.simplefilter("ignore", DeprecationWarning)
        base = memlimits.get_memory_limit()
        memlimits.set_wired_limit(8192)
        done = threading.Event()

        def hammer():
            while not done.is_set():
                with memlimits.limits(cache=MIB, wired=4096):
                    pass

        thread = threading.Thread(target=hammer, daemon=True)
        thread.start()
        for _ in range(20):
            with memlimits.limits(memory=5 * MIB):
                with memlimits.limits(wired=4096, policy="strict"):
                    child = os.fork()
                    if child == 0:
                        signal.alarm(20)
                        assert memlimits.get_memory_limit() == 5 * MIB
                        assert memory.get_memory_policy() == "strict"
                        assert memlimits.get_wired_limit() == 0
                        memlimits.set_memory_limit(6 * MIB)
                assert memory.get_memory_policy() == "guideline"
            assert memlimits.get_memory_limit() == base
            if child == 0:
                assert memlimits.get_wired_limit() == 0
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        done.set()
        thread.join()
        assert memlimits.get_wired_limit() == 8192
    """)
