"""One thread that gives idle memory back while the program allocates nothing."""

import _thread
import gc
import math
import signal
import sys
import time

import pytest

import memlimits
from memlimits import system
from support.process import run
from support.units import MIB


def wait_until(true):
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError


@pytest.fixture(autouse=True)
def ended():
    """Waits until there are as many threads as before; checked after each test, too."""
    before = _thread._count()  # of those that have begun

    def wait():
        wait_until(lambda: _thread._count() == before)

    yield wait
    wait()


def test_auto_trim_returns_what_was_idle_for_the_time():
    memlimits.set_idle_timeout(0.02, "return")
    try:
        with memlimits.auto_trim(0.01) as running:
            memlimits.allocate(8 * MIB).release()
            wait_until(lambda: memlimits.get_cache_memory() == 0)
            assert running.interval == 0.01
            assert not running.closed
        assert running.closed
    finally:
        memlimits.set_idle_timeout(None)


def test_auto_trim_without_pressure_keeps_the_cache():
    with memlimits.auto_trim(0.005):
        memlimits.allocate(8 * MIB).release()
        time.sleep(0.05)
        assert memlimits.get_cache_memory() >= 8 * MIB


def test_auto_trim_runs_once():
    with memlimits.auto_trim(1000) as first:
        with pytest.raises(RuntimeError, match="runs already, every 1000 s"):
            memlimits.auto_trim(1)
        assert "every 1000 s" in repr(first)
    first.close()
    with memlimits.auto_trim(5) as second:
        first.close()
        assert not second.closed
        with pytest.raises(RuntimeError, match="runs already, every 5 s"):
            memlimits.auto_trim(1)


def test_auto_trim_looks_every_ten_seconds_unless_told():
    with memlimits.auto_trim() as running:
        assert running.interval == 10


@pytest.mark.parametrize("interval", [0.001, 1e6, 1])
def test_the_bounds_of_the_interval(interval):
    with memlimits.auto_trim(interval) as running:
        assert running.interval == interval


def test_auto_trim_is_closed_on_its_own_thread(ended, monkeypatch):
    """As by an object's finalizer that runs there."""
    closing = []

    def trim(target):
        if here:
            closing.append(_thread.get_ident())
            here.pop().close()
        return memlimits.trim(target)

    here = []
    monkeypatch.setattr(system, "trim", trim)
    running = memlimits.auto_trim(0.001)
    here.append(running)
    wait_until(lambda: closing)
    ended()
    assert closing[0] != _thread.get_ident()
    assert running.closed
    memlimits.auto_trim(1).close()


@pytest.mark.host
def test_a_thread_that_cannot_be_started_does_not_count_as_running():
    run("""
        assert memlimits.get_pressure_trim()    # imports what nobody may not read, perhaps
        as_nobody()
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        try:
            memlimits.auto_trim(1)
        except RuntimeError as error:
            assert "can't start new thread" in str(error), error
        else:
            raise AssertionError
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
        memlimits.auto_trim(1).close()
    """)


@pytest.mark.parametrize("interval", [0, -1, 1e-9, math.nan, math.inf, "1", True, None])
def test_bad_intervals(interval):
    with pytest.raises((TypeError, ValueError), match="interval must be"):
        memlimits.auto_trim(interval)


@pytest.mark.host
def test_auto_trim_and_fork():
    run("""
        running = memlimits.auto_trim(0.001)
        time.sleep(0.01)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                assert running.closed
                running.close()
                memlimits.set_idle_timeout(0.001, "return")
                with memlimits.auto_trim(0.001):
                    memlimits.allocate(MIB).release()
                    while memlimits.get_cache_memory():
                        time.sleep(0.001)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        assert not running.closed
    """)


@pytest.mark.host
def test_a_handler_forks_while_the_end_of_the_thread_is_waited_for():
    """There is no thread in the child, which goes on all the same."""
    run("""
        from memlimits import system
        trimming = threading.Event(), threading.Event()

        def trim(target):
            trimming[0].set()
            trimming[1].wait()

        def handler(*_):
            children.append(os.fork())
            if children[0]:
                trimming[1].set()

        children = []
        system.trim = trim
        signal.signal(signal.SIGUSR2, handler)
        running = memlimits.auto_trim(0.001)
        trimming[0].wait()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        running.close()
        while not children:  # it came before the wait
            time.sleep(0.01)
        assert running.closed
        memlimits.auto_trim(1000).close()
        if children[0] == 0:
            os._exit(0)
        assert os.waitpid(children[0], 0)[1] == 0
    """)


def test_a_block_that_nobody_can_leave_any_more_is_left(ended):
    memlimits.auto_trim(1000).__enter__()
    gc.collect()
    ended()
    with memlimits.auto_trim(1000):
        pass


def test_one_that_is_dropped_without_a_block_goes_on():
    memlimits.auto_trim(1000)
    gc.collect()
    with pytest.raises(RuntimeError, match="runs already"):
        memlimits.auto_trim(1)
    next(iter(system._running.values())).end()


def test_a_handler_may_start_and_close_it_at_any_step():
    """Of those that the main thread takes for the same."""

    def handler(*_):
        stepped.append(1)
        try:
            memlimits.auto_trim(1000).close()
        except RuntimeError:
            refused.append(1)

    def step(frame, event, argument):
        if frame.f_code.co_filename == system.__file__:
            signal.raise_signal(signal.SIGUSR2)
        return step

    stepped, refused = [], []
    previous = signal.signal(signal.SIGUSR2, handler)
    trace = sys.gettrace()
    sys.settrace(step)
    try:
        memlimits.auto_trim(1000).close()
    finally:
        sys.settrace(trace)
        signal.signal(signal.SIGUSR2, previous)
    assert len(stepped) > len(refused) > 0
    memlimits.auto_trim(1000).close()


def test_a_program_ends_while_auto_trim_runs():
    run("memlimits.set_idle_timeout(0, 'return'); memlimits.auto_trim(0.001); time.sleep(0.02)")


def test_names():
    assert set(system.__all__) - {"AutoTrim", "EffectiveLimit"} <= set(memlimits.__all__)
