"""In a pool, a limit that is on what is touched, or on the process: what cannot be had is refused.

Each ends within a moment, where one that is wrong looks again for ever.
"""

import sys

import pytest

from support.process import run

pytestmark = pytest.mark.host

START = """
    import mmap, os, signal
    from memlimits import pools

    def touch(memory):
        memoryview(memory)[::4096] = bytes(len(memoryview(memory)[::4096]))
        return memory

    def in_pool(limit):
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(limit)
        pools.make_for_tree(limit)

    def refused(n, ask=memlimits.allocate):
        try:
            ask(n)
        except memlimits.MemoryLimitError:
            return True

    signal.alarm(60)
"""


@pytest.mark.parametrize("ask", ["allocate", "reserve"])
def test_of_what_was_read_since_it_got_credit_a_short_block_has_none(ask):
    run(
        START
        + f"""
    def ask(n):
        return memlimits.allocate(n) if "{ask}" == "allocate" else memlimits.reserve(n).__enter__()

    memlimits.set_memory_count("process")
    memlimits.set_cache_limit(0)
    in_pool(memlimits.stats().process_resident + 40 * MIB)
    first = memlimits.allocate(64 << 10)
    others = touch(mmap.mmap(-1, 60 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    # This is too long by itself, whatever else the reading says.
    assert refused(200 * MIB)
    assert refused(64 << 10, ask)
    del others
    memlimits.allocate(64 << 10).release()
    """
    )


@pytest.mark.skipif("t" in sys.abiflags, reason="ends in a child whose first lock is refused")
@pytest.mark.parametrize("policy", ["strict", "wait"])
def test_what_a_child_inherits_untouched_pays_for_nothing(policy):
    run(
        START
        + f"""
    memlimits.set_memory_count("resident")
    in_pool(64 * MIB)
    with memlimits.govern_python():
        untouched = memlimits.allocate(8 * MIB)
        held = []
        try:
            while True:
                held.append(touch(memlimits.allocate(256 << 10)))
        except memlimits.MemoryLimitError:
            pass
        memlimits.set_memory_policy("{policy}", *([0.1] if "{policy}" == "wait" else []))
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(0 if refused(1100 << 10) and not memlimits.stats().waiting else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        del held
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(1 if refused(1100 << 10) else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    )
