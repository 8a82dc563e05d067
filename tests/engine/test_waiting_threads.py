"""What becomes of a wait when threads or the interpreter end, or a signal arrives."""

import gc
import signal
import sys
from contextlib import contextmanager
from functools import partial

import pytest

import memlimits
from memlimits._bindings.buffer import allocate_in
from support.process import run
from support.units import MIB
from support.waiting import waiting

pytestmark = pytest.mark.inside

WAITS = {
    "allocate": "memlimits.allocate(32 * MIB)",
    "reserve": "memlimits.reserve(32 * MIB).__enter__()",
    "numpy": "numpy.empty(32 * MIB, numpy.uint8)",
    "numpy in a budget": "memlimits.budget('b').__enter__(); numpy.empty(8000, numpy.uint8)",
}


@pytest.mark.parametrize("what", WAITS)
def test_threads_that_wait_leave_when_the_interpreter_ends(what):
    """Nothing was freed for them. What allocates after that is at the end of no queue."""
    done = run(
        f"""
        import types
        memlimits.set_cache_limit(0)
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)

        class Late:
            def __init__(self, held):
                self.held = held

            def __del__(self, counters=memory.counters, write=os.write, sleep=time.sleep,
                        clock=time.monotonic, allocate=memlimits.allocate):
                end = clock() + 20
                while counters()["waiting"] and clock() < end:
                    sleep(0.001)
                write(2, b"%d wait" % counters()["waiting"])
                del self.held[:]
                allocate(48 * MIB)
                write(2, b", %d waited" % counters()["waits"])

        def wait(array):
            ready.release()
            {WAITS[what]}

        if {"numpy" in what}:
            import numpy
            memlimits.govern_numpy()
        arrays = [numpy.empty(MIB, numpy.uint8) for _ in range(3)] if {"numpy" in what} else "abc"
        late = sys.modules["late"] = types.ModuleType("late")
        late.held = Late([])
        for size in MIB, 40 << 10, 4096:
            while memlimits.would_fit(size):
                late.held.held.append(memlimits.allocate(size))
        del late
        ready = threading.Semaphore(0)
        threading.stack_size(16 * MIB)
        for array in arrays:
            threading.Thread(target=wait, args=(array,), daemon=True).start()
            ready.acquire()
        while memory.counters()["waiting"] < 3:
            time.sleep(0.001)
        """
    )
    assert done.stderr == "0 wait, 3 waited"


@pytest.mark.host
def test_a_child_that_a_handler_forks_waits_on_by_itself():
    """Of the queue only its own requests are left, and one that a handler made goes first."""
    run("""
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        held = [memlimits.allocate(40 * MIB)]

        def other():
            memlimits.allocate(60 * MIB)

        def handler(*_):
            pids.append(os.fork())
            if pids[0] == 0:
                assert memory.counters()["waiting"] == 1
                memlimits.allocate(MIB)
            del held[:]

        pids = []
        signal.signal(signal.SIGALRM, handler)
        thread = threading.Thread(target=other)
        thread.start()
        while not memory.counters()["waiting"]:
            time.sleep(0.001)
        warnings.simplefilter("ignore", DeprecationWarning)     # threads and a fork
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        block = memlimits.allocate(30 * MIB)
        if pids[0] == 0:
            assert memory.counters()["waiting"] == 0
            consistent(30 * MIB)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 7
        block.release()
        thread.join(20)
        consistent()
    """)


# ---- signals while garbage is collected ----


class Interrupt(Exception):  # noqa: N818 - as InterruptedError, but nobody else raises it
    pass


def interrupt(*_):
    raise Interrupt


class Interrupts:
    def __call__(self, *_):
        raise Interrupt

    def method(self, *_):
        raise Interrupt


def once(number, _):
    signal.signal(number, signal.SIG_DFL)
    raise Interrupt


HANDLERS = {
    "function": interrupt,
    "partial": partial(interrupt, 1),
    "method": Interrupts().method,
    "object": Interrupts(),
    "once": once,
}


class Cycle:
    """Garbage that only the collector finds, with a finalizer."""

    def __init__(self):
        self.self = self

    def __del__(self):
        signal.raise_signal(signal.SIGALRM)


def raise_at_start(phase, info):
    if phase == "start":
        signal.raise_signal(signal.SIGALRM)


@contextmanager
def handling(handler, number=signal.SIGALRM):
    previous = signal.signal(number, handler)
    yield
    signal.signal(number, previous)


@contextmanager
def callback(function):
    gc.callbacks.append(function)
    yield
    gc.callbacks.remove(function)


@pytest.fixture
def full():
    allocator = waiting(timeout=20)
    with allocate_in(allocator, 60 * MIB):
        yield allocator
    counters = allocator.counters()
    assert counters["waiting"] == 0


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_what_a_handler_raises_in_a_finalizer_ends_the_wait(full, handler):
    hook = sys.unraisablehook
    with handling(handler):
        Cycle()
        with pytest.raises(Interrupt):
            allocate_in(full, 30 * MIB)
    assert sys.unraisablehook is hook


def test_and_in_a_callback_of_the_collectors(full):
    with handling(interrupt), callback(raise_at_start), pytest.raises(Interrupt):
        allocate_in(full, 30 * MIB)


def test_and_pythons_own_handler(full):
    def press(phase, info):
        if phase == "start":
            signal.raise_signal(signal.SIGINT)

    with (
        handling(signal.default_int_handler, signal.SIGINT),
        callback(press),
        pytest.raises(KeyboardInterrupt),
    ):
        allocate_in(full, 30 * MIB)


@pytest.mark.parametrize("scope", ["memlimits.budget('b')", "memlimits.reserve(0)"])
def test_and_in_budgets_and_reservations(scope):
    run(f"""
        class Interrupt(Exception):
            pass
        def interrupt(*_):
            raise Interrupt
        def raise_at_start(phase, info):
            if phase == "start":
                signal.raise_signal(signal.SIGALRM)

        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        signal.signal(signal.SIGALRM, interrupt)
        with {scope} as opened:
            held = []
            for size in MIB, 40 << 10, 4096:
                while memlimits.would_fit(size):
                    held.append(memlimits.allocate(size))
            active = memlimits.get_active_memory()
            gc.callbacks.append(raise_at_start)
            for ask in memlimits.allocate, lambda n: memlimits.reserve(n).__enter__():
                try:
                    ask(8000)
                except Interrupt:
                    pass
                else:
                    raise AssertionError
            gc.callbacks.clear()
            assert memlimits.get_active_memory() == active
            assert memory.counters()["waiting"] == memory.counters()["refusals"] == 0
            assert getattr(opened, "active", active) == active
    """)


def test_other_errors_of_finalizers_are_told_as_ever(full):
    """And the wait goes on."""
    told = []

    class Fails(Cycle):
        def __del__(self):
            raise OSError

    with pytest.MonkeyPatch.context() as patch, handling(interrupt):
        patch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
        Fails()
        full.set_memory_policy("wait", 0.01)
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(full, 65 * MIB)
        assert told == []
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(full, 30 * MIB)
    assert told == [OSError]
