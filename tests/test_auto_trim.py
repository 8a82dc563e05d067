"""One thread that gives idle memory back while the program allocates nothing."""

import gc
import math
import signal
import sys
import threading
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


def trimmer_threads():
    return [t for t in threading.enumerate() if t.name == "memlimits.auto_trim"]


def test_auto_trim_returns_what_was_idle_for_the_time():
    memlimits.set_idle_timeout(0.02, "return")
    try:
        with memlimits.auto_trim(0.01) as running:
            memlimits.allocate(8 * MIB).release()
            wait_until(lambda: memlimits.get_cache_memory() == 0)
            assert running.interval == 0.01
            assert trimmer_threads()[0].daemon
        assert running.closed
        assert trimmer_threads() == []
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
        assert len(trimmer_threads()) == 1
        with pytest.raises(RuntimeError, match="runs already, every 5 s"):
            memlimits.auto_trim(1)


def test_auto_trim_looks_every_ten_seconds_unless_told():
    with memlimits.auto_trim() as running:
        assert running.interval == 10


@pytest.mark.parametrize("interval", [0.001, 1e6, 1])
def test_the_bounds_of_the_interval(interval):
    with memlimits.auto_trim(interval) as running:
        assert running.interval == interval


def test_auto_trim_is_closed_on_its_own_thread():
    """As by an object's finalizer that runs there."""
    closing = []

    def on_the_thread(frame, event, argument):
        if running_here and not closing:
            closing.append(threading.current_thread().name)
            running_here[0].close()

    running_here = []
    threading.setprofile(on_the_thread)
    try:
        running = memlimits.auto_trim(0.001)
    finally:
        threading.setprofile(None)
    running_here.append(running)
    wait_until(lambda: not trimmer_threads())
    assert closing == ["memlimits.auto_trim"]
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
    assert trimmer_threads() == []


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


def test_a_block_that_nobody_can_leave_any_more_is_left():
    memlimits.auto_trim(1000).__enter__()
    gc.collect()
    wait_until(lambda: not trimmer_threads())
    with memlimits.auto_trim(1000):
        pass


def test_one_that_is_dropped_without_a_block_goes_on():
    memlimits.auto_trim(1000)
    gc.collect()
    with pytest.raises(RuntimeError, match="runs already"):
        memlimits.auto_trim(1)
    next(iter(system._running.values())).end()
    wait_until(lambda: not trimmer_threads())


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
    wait_until(lambda: not trimmer_threads())
    memlimits.auto_trim(1000).close()


def test_a_program_ends_while_auto_trim_runs():
    run("memlimits.set_idle_timeout(0, 'return'); memlimits.auto_trim(0.001); time.sleep(0.02)")


def test_names():
    assert set(system.__all__) - {"AutoTrim", "EffectiveLimit"} <= set(memlimits.__all__)
