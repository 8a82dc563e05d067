"""Any sequence of calls of malloc's family, from several threads at once, where it is memlimits'.

`test_interposed.py` runs this in a process of its own. Hypothesis and the interpreter allocate
there as well: what they hold is in the books (c_interface/books.c), so that all is exact.
`HYPOTHESIS_PROFILE=long` looks much further.
"""

import ctypes
import errno
import gc
import os
import traceback
import warnings
from contextlib import contextmanager
from ctypes import c_int, c_size_t, c_void_p
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import memlimits
from memlimits import memory
from support import interposed
from support.units import KIB, MIB, in_pages

WORKERS = 6
END = 256  # bytes that are written at either end of a block
PAGE = os.sysconf("SC_PAGE_SIZE")

PROFILES = {
    "default": {"max_examples": 25, "stateful_step_count": 50},
    "long": {"max_examples": 2000, "stateful_step_count": 150},
}

# As callers.c numbers them.
MALLOC, CALLOC, REALLOC, REALLOCARRAY, FREE = range(5)
MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN, VALLOC = range(5, 9)

sizes = st.one_of(
    st.sampled_from([24, 100, 5000, 40 * KIB, MIB]),  # often the same: hits
    st.integers(0, 600),
    st.integers(600, 40 * KIB),
    st.integers(40 * KIB, 600 * KIB),
    st.integers(600 * KIB, 6 * MIB),
    st.sampled_from([512, 4096, 32768, 32769, 524288, 4 * MIB, 2**63 - 1, 2**64 - 1]),
)
takers = st.one_of(
    st.tuples(st.sampled_from([MALLOC, CALLOC, REALLOC, REALLOCARRAY, VALLOC]), st.just(16)),
    st.tuples(
        st.sampled_from([MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN]),
        st.sampled_from([16, 32, 64, 512, 4096]),
    ),
)
resizers = st.sampled_from([REALLOC, REALLOCARRAY])
limits = st.one_of(st.just(0), st.integers(1, 300 * KIB), st.integers(300 * KIB, 24 * MIB))
# What can be had besides; None: all.
rooms = st.none() | st.integers(0, 8 * MIB)
policies = st.sampled_from([("strict", None), ("wait", 0.001)])


class Callers:
    """Threads of C code; to call them takes no memory of malloc's."""

    def __init__(self, path):
        library = ctypes.CDLL(path)
        library.callers_tell.argtypes = [c_int, c_int, c_void_p, c_size_t, c_size_t]
        library.callers_tell.restype = None
        library.callers_result.argtypes = [c_int, ctypes.POINTER(c_int)]
        library.callers_result.restype = c_void_p
        self._tell, self._result = library.callers_tell, library.callers_result
        self._error = c_int()
        for number in range(WORKERS):
            assert library.callers_start(number) == 0

    def at_once(self, calls):
        """What each of (worker, function, start, a, b) returned, and its errno."""
        for call in calls:
            self._tell(*call)
        return [(self._result(worker, self._error), self._error.value) for worker, *_ in calls]


CALLERS = Callers(os.environ["MEMLIMITS_TESTS_CALLERS"])
LIBC = ctypes.CDLL(None)
LIBC.malloc_usable_size.argtypes, LIBC.malloc_usable_size.restype = [c_void_p], c_size_t
LIBC.free.argtypes, LIBC.free.restype = [c_void_p], None
LIBC.malloc.argtypes, LIBC.malloc.restype = [c_size_t], c_void_p


def words(function, n, alignment=16, start=None):
    """What a function is called with, for n bytes or more in all."""
    if function in (MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN):
        return function, None, alignment, n
    if function in (CALLOC, REALLOCARRAY):
        count = 3 if n % 3 == 0 else 1
        return function, start, count, n // count
    return function, start, n, 0


class Held:
    """A block, and what the test wrote at its ends."""

    def __init__(self, start, n, stamp, skipped=0):
        self.start = start
        self.n = n
        self.stamp = bytes([stamp])
        self.skipped = skipped  # active, and not in the books
        k = min(n, END)
        ctypes.memset(start, stamp, k)
        ctypes.memset(start + n - k, stamp, k)

    @property
    def usable(self):
        return LIBC.malloc_usable_size(self.start)

    def verify(self, kept=None, start=None):
        """Also where only so many bytes were kept, at another place."""
        start = self.start if start is None else start
        kept = self.n if kept is None else min(kept, self.n)
        k = min(kept, END, self.n)
        assert ctypes.string_at(start, k) == self.stamp * k
        if kept == self.n:
            assert ctypes.string_at(start + kept - k, k) == self.stamp * k


class MallocMachine(RuleBasedStateMachine):
    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.live = {}
        self.stamp = 0
        gc.collect()
        self.base = interposed.active()
        self.refused = memlimits.stats().refusals
        self.stayed = 0  # resized in the last step, which may count as refused besides
        self.interpreters = repr(memlimits.last_refusal())

    # ---- what the rules are made of ----

    def new(self, start, n, skipped=0):
        assert start not in self.live
        self.stamp = self.stamp % 255 + 1
        held = self.live[start] = Held(start, n, self.stamp, skipped)
        assert held.usable >= n
        return held

    def skipped(self):
        return sum(held.skipped for held in self.live.values())

    @contextmanager
    def bounded(self, room, policy):
        """Few steps of Python's, which need no memory of malloc's."""
        if room is None:
            yield
            return
        limit = memlimits.get_memory_limit()
        before = memory.counters()["footprint"]
        memlimits.set_memory_policy(*policy)
        try:
            memlimits.set_memory_limit(before + room)
            yield
            had = memlimits.get_active_memory() + memlimits.get_cache_memory()
        finally:
            memlimits.set_memory_limit(limit)
            memlimits.set_memory_policy("guideline")
        assert had <= before + room or memlimits.get_memory_count() != "given"

    def refusal(self, n, error, room):
        """Of a call that returned NULL."""
        self.refused += 1
        assert error == errno.ENOMEM
        assert room is not None or n > 2**62

    def check_alone(self, n, before, room):
        """Nobody gave back meanwhile: it did not fit."""
        if memlimits.get_memory_count() != "given":
            return
        slack = before["footprint"] - before["active"] - before["cache"]
        needed = in_pages(1.125 * n + 64) + PAGE
        assert before["active"] + slack + needed > before["footprint"] + room

    # ---- rules ----

    @rule(
        target=held,
        taken=st.lists(st.tuples(takers, sizes), max_size=2),
        resized=st.lists(st.tuples(consumes(held), resizers, sizes), max_size=2),
        given=st.lists(consumes(held), max_size=2),
        first=st.integers(0, WORKERS - 1),
        room=rooms,
        policy=policies,
    )
    def at_once(self, taken, resized, given, first, room, policy):
        """Each on a thread of its own."""
        # None where there is no block: what steps follow must not depend on what was refused.
        none = [None for held, _, _ in resized if held is None]
        resized = [step for step in resized if step[0] is not None]
        given = [held for held in given if held is not None]
        calls = [words(function, n, alignment) for (function, alignment), n in taken]
        calls += [words(function, n, start=held.start) for held, function, n in resized]
        calls += [(FREE, held.start, 0, 0) for held in given]
        calls = [((first + i) % WORKERS, *call) for i, call in enumerate(calls)]
        # Where one was another may be.
        for held in [*given, *(held for held, _, _ in resized)]:
            held.verify()
            del self.live[held.start]
        before = memory.counters()
        with self.bounded(room, policy):
            results = CALLERS.at_once(calls)
        made = []
        for (held, _, n), (start, error) in zip(resized, results[len(taken) :], strict=False):
            made.append(self.was_resized(held, n, start, error, room))
        for ((function, alignment), n), (start, error) in zip(taken, results, strict=False):
            if start is None:
                self.refusal(n, error, room)
                if len(calls) == 1 and room is not None and n < 2**62:
                    self.check_alone(n + alignment, before, room)
                made.append(None)
            else:
                assert error == 0
                assert start % max(alignment, PAGE if function == VALLOC else 16) == 0
                if function == CALLOC:
                    assert not any(ctypes.string_at(start, n))
                made.append(self.new(start, n))
        return multiple(*made, *none)

    def was_resized(self, held, n, start, error, room):
        if start is None and n:
            self.refusal(n, error, room)
            held.verify()
            self.live[held.start] = held
            return held
        assert error == 0
        if start is None:
            return None
        held.verify(n, start)
        if start == held.start and n < held.n and room is not None:
            # It is shorter in its own place, since there was none for a shorter one.
            self.stayed += 1
        return self.new(start, n, held.skipped if start == held.start else 0)

    @rule(
        target=held,
        function=st.sampled_from([MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN]),
        alignment=st.sampled_from([2 * PAGE, 64 * KIB, 2 * MIB]),
        n=sizes,
        worker=st.integers(0, WORKERS - 1),
        room=rooms,
    )
    def take_aligned_above_the_page(self, function, alignment, n, worker, room):
        with self.bounded(room, ("strict", None)):
            ((start, error),) = CALLERS.at_once([(worker, *words(function, n, alignment))])
        if start is None:
            self.refusal(n, error, room)
            return None
        assert error == 0
        assert start % alignment == 0
        skipped = interposed.active() - self.base - self.skipped()
        assert 0 <= skipped <= alignment
        return self.new(start, n, skipped)

    @rule(limit=limits)
    def set_memory_limit(self, limit):
        """Under "guideline": what is idle goes, and the interpreter goes on."""
        memlimits.set_memory_limit(limit)

    @rule(limit=st.none() | limits)
    def set_cache_limit(self, limit):
        memlimits.set_cache_limit(limit)

    @rule(seconds=st.sampled_from([None, 0, 1e-4, 1000]))
    def set_idle_timeout(self, seconds):
        memlimits.set_idle_timeout(seconds)

    @rule(count=st.sampled_from(["given", "resident", "process"]))
    def set_memory_count(self, count):
        memlimits.set_memory_count(count)

    @rule()
    def clear_cache(self):
        memlimits.clear_cache()

    @rule()
    def reset_peak(self):
        gc.collect()
        memlimits.reset_peak_memory()
        interposed.BOOKS.reset_peak()

    @rule(n=sizes)
    def fork(self, n):
        """The child has all that there was, and what it gives back is its own."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, use of fork()"
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.in_a_child(n)
                code = 7
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

    def in_a_child(self, n):
        block = LIBC.malloc(n)
        assert (block is None) == (n > 2**62)
        self.refused += block is None
        LIBC.free(block)
        self.teardown()

    # ---- what holds after each ----

    @invariant()
    def books_agree(self):
        assert interposed.active() == self.base + self.skipped()
        counters = memory.counters()
        parts = [counters[part] for part in ("active", "cache", "slack", "pending")]
        assert sum(parts) == counters["footprint"]
        assert all(0 <= value < 2**63 for value in counters.values())
        assert counters["pending"] == 0
        refusals = memlimits.stats().refusals
        interpreters = repr(memlimits.last_refusal())
        # This thread asks for nothing within the bounds but where Python makes room for small
        # objects, without which it goes on.
        if interpreters == self.interpreters:
            assert 0 <= refusals - self.refused <= self.stayed
        self.refused, self.stayed, self.interpreters = refusals, 0, interpreters

    @invariant()
    def limits_hold(self):
        assert memlimits.get_cache_memory() <= memlimits.get_cache_limit()

    @invariant()
    def contents_are_intact_and_apart(self):
        blocks = sorted(self.live.values(), key=lambda held: held.start)
        for held in blocks:
            held.verify()
        for held, following in pairwise(blocks):
            assert held.start + held.usable <= following.start

    def teardown(self):
        for held in self.live.values():
            held.verify()
            LIBC.free(held.start)
        self.live.clear()
        self.books_agree()
        memlimits.set_memory_limit(2**63)
        memlimits.set_cache_limit(None)
        memlimits.set_idle_timeout(None)
        memlimits.set_memory_count("given")


def test_machine():
    profile = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")]
    run_state_machine_as_test(
        MallocMachine,
        settings=settings(
            **profile,
            deadline=None,
            derandomize=profile is PROFILES["default"],
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
