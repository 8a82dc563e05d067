"""Processes that fork: a child gets a working allocator, nothing wired; the parent keeps all."""

import multiprocessing
import subprocess
import sys
import textwrap

import pytest

import memlimits
from support.kernel import needs_lockable
from support.process import PRELUDE, run
from support.units import MIB

pytestmark = pytest.mark.host

# What the programs below may use beside the prelude. Each is a process of its own: a fork copies
# what it is made in.
FORKING = """
    warnings.simplefilter("ignore", DeprecationWarning)     # "multi-threaded, use of fork() may"

    def in_child(work, seconds=20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(seconds)       # a child that hangs is ended, and fails the test
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return pid

    def ended_well(pid):
        assert os.waitpid(pid, 0)[1] == 0
"""


def run_forking(script):
    done = run(textwrap.dedent(FORKING) + textwrap.dedent(script))
    assert done.stderr == ""


def test_a_child_owns_a_copy_of_every_block():
    run_forking("""
        sizes = [100, 5000, 40_000, 3 * MIB]
        blocks = [memlimits.allocate(n) for n in sizes]
        for block in blocks:
            memoryview(block)[:] = b"p" * len(block)
        idle = memlimits.allocate(2 * MIB)
        idle.release()
        held = sum(block.capacity for block in blocks)

        def child():
            consistent(held)
            assert all(bytes(block) == b"p" * len(block) for block in blocks)
            memoryview(blocks[0])[:] = b"c" * 100
            new = memlimits.allocate(2 * MIB, zeroed=True)
            assert bytes(new) == bytes(2 * MIB)
            consistent(held + new.capacity)
            new.release()
            blocks.pop().release()
            while blocks:
                blocks.pop().release()
            consistent(0)
            memlimits.clear_cache()
            assert memory.counters()["footprint"] == 0

        ended_well(in_child(child))
        consistent(held)
        assert all(bytes(block) == b"p" * len(block) for block in blocks)
    """)


@needs_lockable(8 * MIB)
def test_nothing_is_wired_in_a_child_and_all_still_is_in_the_parent():
    run_forking("""
        memlimits.set_wired_limit(8 * MIB)
        blocks = [memlimits.allocate(n) for n in (MIB, 2 * MIB)]
        idle = memlimits.allocate(3 * MIB)
        idle.release()
        assert proc("VmLck") == 6 * MIB

        def child():
            assert proc("VmLck") == memlimits.get_wired_memory() == 0
            assert memlimits.get_wired_limit() == 0
            more = [memlimits.allocate(MIB) for _ in range(3)]
            assert proc("VmLck") == 0
            assert memlimits.set_wired_limit(MIB) == 0
            assert proc("VmLck") == memlimits.get_wired_memory() == MIB
            assert memlimits.set_wired_limit(0) == MIB
            assert proc("VmLck") == 0
            blocks.clear()
            more.clear()
            memlimits.clear_cache()
            assert memory.counters()["footprint"] == 0

        ended_well(in_child(child))
        assert proc("VmLck") == memlimits.get_wired_memory() == 6 * MIB
        assert memlimits.get_wired_limit() == 8 * MIB
        blocks.clear()
        memlimits.clear_cache()
        assert proc("VmLck") == memlimits.get_wired_memory() == 0
    """)


def test_a_child_keeps_limits_policy_and_counters():
    run_forking("""
        memlimits.set_memory_limit(10 * MIB)
        memlimits.set_cache_limit(3 * MIB)
        memlimits.set_memory_policy("strict")
        block = memlimits.allocate(8 * MIB)
        memlimits.allocate(100)

        def child():
            assert memlimits.get_memory_limit() == 10 * MIB
            assert memlimits.get_cache_limit() == 3 * MIB
            assert memlimits.get_peak_memory() == 8 * MIB + 128
            try:
                memlimits.allocate(4 * MIB)
            except memlimits.MemoryLimitError as error:
                assert error.active == 8 * MIB
            else:
                raise AssertionError("not refused")
            assert memory.counters()["refusals"] == 1

        ended_well(in_child(child))
        assert memory.counters()["refusals"] == 0
    """)


def test_a_child_of_a_child():
    run_forking("""
        block = memlimits.allocate(MIB)

        def grandchild():
            consistent(MIB)
            block.release()
            memlimits.allocate(100)
            consistent(0)

        def child():
            ended_well(in_child(grandchild))
            consistent(MIB)
            memlimits.allocate(MIB)

        ended_well(in_child(child))
        consistent(MIB)
    """)


@needs_lockable(8 * MIB)
def test_what_was_asked_for_goes_first_in_a_child_that_wires_again():
    run_forking("""
        memlimits.set_wired_limit(4 * MIB)
        weights = memlimits.allocate(2 * MIB, wired=True)
        scratch = memlimits.allocate(3 * MIB)
        assert weights.wired and not scratch.wired

        def child():
            assert proc("VmLck") == 0
            assert not weights.wired
            more = memlimits.allocate(MIB, wired=True)
            assert proc("VmLck") == 0
            memlimits.set_wired_limit(4 * MIB)
            assert weights.wired and more.wired and not scratch.wired
            assert proc("VmLck") == memlimits.get_wired_memory() == 3 * MIB
            memlimits.unwire(weights)
            memlimits.wire(scratch)
            assert scratch.wired and not weights.wired

        ended_well(in_child(child))
        assert weights.wired and not scratch.wired
        assert proc("VmLck") == memlimits.get_wired_memory() == 2 * MIB
    """)


@pytest.mark.parametrize("wired", [0, 4 * MIB], ids=["unwired", "wired"])
def test_forks_while_threads_allocate(wired):
    """A child must find no lock taken and no device call half done."""
    if memlimits.device_info()["wired_capacity"] < wired:
        pytest.skip("RLIMIT_MEMLOCK is too low here")
    run_forking(f"""
        done = threading.Event()
        memlimits.set_wired_limit({wired})
        memlimits.set_cache_limit(MIB)
        def work(seed):
            import random
            rng = random.Random(seed)
            held = []
            while not done.is_set():
                if len(held) < 10:
                    held.append(memlimits.allocate(int(2 ** rng.uniform(3, 20))))
                else:
                    del held[rng.randrange(10)]
                if {wired} and rng.random() < 0.02:
                    memlimits.set_wired_limit(rng.choice([0, {wired} // 2, {wired}]))
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(3)]
        for thread in threads: thread.start()

        def child():
            active = memlimits.get_active_memory()
            consistent(active)
            assert proc("VmLck") == memlimits.get_wired_memory() == 0
            blocks = [memlimits.allocate(n) for n in (64, 5000, 40_000, MIB)]
            consistent(active + sum(block.capacity for block in blocks))
            blocks.clear()
            memlimits.clear_cache()
            consistent(active)

        try:
            for _ in range(40):
                ended_well(in_child(child))
        finally:
            done.set()
        for thread in threads: thread.join()
        memlimits.clear_cache()
        consistent(0)
        assert memory.counters()["footprint"] == 0
    """)


def test_a_fork_of_arrays_that_numpy_got_from_us():
    run_forking("""
        import numpy
        with memlimits.govern_numpy():
            array = numpy.arange(MIB)

            def child():
                assert array.sum() == MIB * (MIB - 1) // 2
                other = array * 2
                assert memlimits.get_active_memory() == 16 * MIB
                assert other[-1] == 2 * (MIB - 1)

            ended_well(in_child(child))
            assert memlimits.get_active_memory() == 8 * MIB
    """)


def test_subprocesses_start_while_threads_allocate():
    """`subprocess` uses vfork, which must leave the parent's locks alone."""
    run_forking("""
        import subprocess
        done = threading.Event()
        def work():
            while not done.is_set():
                memlimits.allocate(40_000)
                memlimits.clear_cache()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for _ in range(20):
            subprocess.run(["true"], check=True)
        done.set()
        thread.join()
        consistent(0)
    """)


MULTIPROCESSING = """
    import multiprocessing

    def use(n):
        block = memlimits.allocate(n, zeroed=True)
        memoryview(block)[:] = b"w" * n
        consistent(memlimits.get_active_memory())
        return bytes(block) == b"w" * n and memlimits.get_active_memory() >= n

    if __name__ == "__main__":
        held = memlimits.allocate(MIB)
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            assert pool.map(use, [100, 40_000, MIB] * 4) == [True] * 12
        consistent(MIB)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no start method {method!r} here")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PRELUDE + FORKING + MULTIPROCESSING))
    done = subprocess.run(
        [sys.executable, str(program), method], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
