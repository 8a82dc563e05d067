"""Metal does not survive a fork: what a child is told, and that it touches nothing.

The stand-in ends a child that sends a message, or touches memory that it does not have.
"""

import pytest

from support.metal import MAKE_QUEUE, run_with, stand_in

pytestmark = pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal")

FORKING = """
import os, sys, traceback
from contextlib import contextmanager

@contextmanager
def device_error():
    try:
        yield
    except memlimits.DeviceError as error:
        assert "Metal does not work in a forked child" in str(error), error
        assert "'spawn'" in str(error), error
    else:
        raise AssertionError("no DeviceError")

def in_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 7
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def consistent():
    values = memory.counters()
    parts = [values[name] for name in ("active", "cache", "slack", "pending")]
    assert values["footprint"] == sum(parts) and min(parts) >= 0, values
"""


def run_forking(script, settings=""):
    done = run_with(FORKING + script, settings)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_gets_an_error_and_not_a_crash():
    run_forking("""
sizes = [100, 5000, 40_000, 1 << 20]
memlimits.set_wired_limit(1 << 30)
held = [memlimits.allocate(n) for n in sizes for _ in range(3)]
held.pop(1).release()
idle = memlimits.allocate(1 << 20)
idle.release()
wired, active = memlimits.get_wired_memory(), memlimits.get_active_memory()

def child():
    assert memlimits.get_wired_memory() == memlimits.get_wired_limit() == 0
    assert memlimits.get_cache_memory() == 0
    assert memlimits.get_active_memory() == active
    assert memlimits.device_info()["backend"] == "metal"
    before = memory.counters()
    for n in (1, 5000, 40_000, 1 << 20, 4 << 20):
        with device_error():
            memlimits.allocate(n)
        with device_error():
            memlimits.allocate(n, zeroed=True)
    for limit in (1, 1 << 30):
        with device_error():
            memlimits.set_wired_limit(limit)
    for _ in range(2):
        with device_error():
            held[0].metal_buffer
    with device_error():
        memlimits.metal.attach(0x1000)
    with device_error():
        memlimits.effective_limit()
    assert memlimits.trim() == 0
    after = memory.counters()
    assert (before.pop("refusals"), after.pop("refusals")) == (0, 10)
    assert before == after
    assert memlimits.get_wired_limit() == memlimits.set_wired_limit(0) == 0
    assert len(memlimits.allocate(0)) == 0
    for block in held:
        block.release()
        consistent()
    assert memlimits.get_active_memory() == 0
    memlimits.set_cache_limit(1 << 20)
    memlimits.set_memory_limit(1)
    memlimits.clear_cache()
    consistent()
    assert memlimits.get_cache_memory() == 0
    in_child(grandchild)

def grandchild():
    with device_error():
        memlimits.allocate(100)

in_child(child)
assert memlimits.get_wired_memory() == wired
assert memlimits.get_active_memory() == active
memlimits.allocate(1 << 20)
assert memory.counters()["hits"] >= 1
""")


def test_numpy_in_a_forked_child():
    run_forking("""
import numpy
with memlimits.govern_numpy():
    arrays = [numpy.ones(n) for n in (3, 100, 1000, 100_000)]
    spare = numpy.ones(100_000)
    del spare

    def child():
        for make in (numpy.zeros, numpy.empty, numpy.ones):
            try:
                make(1000)
            except MemoryError as error:
                assert not isinstance(error, memlimits.MemoryLimitError)
            else:
                raise AssertionError
            refusal = memlimits.last_refusal()
            assert (refusal.requested, refusal.blocked_by) == (8000, "fork")
            assert "'spawn'" in str(refusal)
        for make in (memlimits.empty, memlimits.zeros):
            with device_error():
                make(1000)
        arrays.clear()
        consistent()
        assert memlimits.get_active_memory() == 0

    in_child(child)
    assert [array.sum() for array in arrays] == [3, 100, 1000, 100_000]
""")


def test_a_child_reads_what_it_inherited_where_the_system_lets_it():
    run_forking(
        """
block = memlimits.allocate(5000)
memoryview(block)[:] = b"p" * 5000

def child():
    assert bytes(block) == b"p" * 5000

in_child(child)
""",
        "fork_keeps_memory",
    )


def test_a_child_of_a_process_without_a_device_has_metal():
    run_forking("""
def child():
    memoryview(memlimits.allocate(100))[0] = 1

in_child(child)
""")


def test_a_child_has_no_queues_and_leaves_the_parents_alone():
    run_forking(
        MAKE_QUEUE
        + """
memlimits.set_wired_limit(1 << 30)
attachment = memlimits.metal.attach(queue)
before = attached_sets(queue)
assert before >= 1

def child():
    with device_error():
        memlimits.metal.attach(queue)
    with attachment:
        attachment.close()

in_child(child)
assert attached_sets(queue) == before
attachment.close()
assert attached_sets(queue) == 0
"""
    )
