"""Blocks resized on several threads at once, while others allocate, wire or fork."""

import textwrap

import pytest

import memlimits
from memlimits import memory
from support.kernel import needs_lockable
from support.places import TESTS
from support.process import run
from support.threads import run_threads
from support.units import MIB, peak_bound

LONG = (11, 17)  # which of the storm's sizes


def test_the_peak_is_close_and_nothing_is_spoiled(storm):
    # Under guideline an idle block may serve that is much longer.
    memlimits.set_memory_policy("strict")
    before = memlimits.get_active_memory()
    memlimits.reset_peak_memory()
    seen = storm(3, 2000, 8, *LONG, 2**62, True)
    assert (seen["refused"], seen["spoiled"]) == (0, 0)
    peak = memlimits.get_peak_memory()
    most = before + seen["highest_high"]
    assert before + seen["highest_low"] <= peak <= peak_bound(most, threads=3)
    assert memlimits.get_active_memory() == before


def test_a_strict_limit_holds_and_is_reached(storm):
    limit = 50 * MIB
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(limit + memory.counters()["footprint"])
    seen = storm(3, 4000, 8, *LONG, limit, True)
    assert (seen["over"], seen["spoiled"]) == (0, 0)
    assert seen["refused"] > 0
    assert seen["highest_low"] > limit // 2


@needs_lockable(32 * MIB)
def test_what_is_resized_is_never_in_a_set(storm):
    """The wired limit changes while threads resize: neither looks at a block that the other has."""
    stop = []

    def wire():
        while not stop:
            for limit in (16 * MIB, 0, 8 * MIB):
                memlimits.set_wired_limit(limit)

    def resize():
        try:
            return storm(2, 300, 8, *LONG, 2**62, True)
        finally:
            stop.append(True)

    seen = []
    run_threads(wire, lambda: seen.append(resize()))
    assert (seen[0]["refused"], seen[0]["spoiled"]) == (0, 0)


# ---- in the midst of one ----

# What the programs below may use beside the prelude.
RESIZING = f"""
    sys.path.append({str(TESTS)!r})
    from contextlib import contextmanager
    from support.functions import free, malloc, realloc

    def made(n, mark=b"m"):
        address = malloc(n)
        ctypes.memset(address, mark[0], n)
        return address

    def holds(address, n, mark=b"m"):
        return ctypes.string_at(address, n) == mark * n

    gate = ctypes.CDLL(os.environ["LD_PRELOAD"])

    def of_gate(name, kind=ctypes.c_int):
        return kind.in_dll(gate, name)

    @contextmanager
    def resizing(address, n, length, after=False):
        # On another thread, held in the device call.
        of_gate("held_length", ctypes.c_size_t).value = length
        of_gate("held_after", ctypes.c_bool).value = after
        of_gate("milliseconds").value = 10_000
        results = []
        thread = threading.Thread(target=lambda: results.append(realloc(address, n)))
        thread.start()
        while not of_gate("is_held", ctypes.c_bool).value:
            assert thread.is_alive()
        yield results
        of_gate("milliseconds").value = 0
        thread.join()
"""


@pytest.fixture
def run_resizing(gate):
    def run_it(script):
        source = textwrap.dedent(RESIZING) + textwrap.dedent(script)
        run(source, words=("env", f"LD_PRELOAD={gate}"))

    return run_it


@pytest.mark.host
def test_what_is_new_is_pending_until_it_is_there(run_resizing):
    run_resizing("""
        address = made(4 * MIB)
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(200 * MIB)
        before = memory.counters()
        with resizing(address, 200 * MIB, 200 * MIB) as results:
            counters = {**before, "pending": 196 * MIB, "footprint": 200 * MIB}
            assert memory.counters() == counters, memory.counters()
        assert holds(results[0], 4 * MIB)
        counters = {**before, "footprint": 200 * MIB, "active": 200 * MIB, "peak": 200 * MIB}
        assert memory.counters() == counters, memory.counters()
    """)


@pytest.mark.host
def test_what_goes_back_is_pending_until_it_is_gone(run_resizing):
    run_resizing("""
        address = made(40 * MIB)
        before = memory.counters()
        with resizing(address, 4 * MIB, 36 * MIB):
            counters = {**before, "pending": 36 * MIB, "active": 4 * MIB}
            assert memory.counters() == counters, memory.counters()
        counters = {**before, "footprint": 4 * MIB, "active": 4 * MIB}
        assert memory.counters() == counters, memory.counters()
        assert holds(address, 4 * MIB)
    """)


@pytest.mark.host
def test_a_place_that_was_left_is_whose_it_is_then(run_resizing):
    run_resizing("""
        address = made(40 * MIB)
        others = []
        with resizing(address, 200 * MIB, 200 * MIB, after=True) as results:
            # The system gives what is free from the top. Up to 256 KiB pages are not rounded up.
            least, gap = 128 << 10, 40 * MIB
            while address not in others:
                others.append(malloc(gap if gap <= 2 * least else least))
                gap = min([other - address for other in others if other > address] + [gap])
                assert len(others) < 2000
            assert not results
        assert holds(results[0], 40 * MIB)
        for block in [*others, results[0]]:
            free(block)
        consistent()
    """)


@pytest.mark.host
@needs_lockable(16 * MIB)
def test_a_block_is_not_wired_while_it_is_resized_but_afterwards(run_resizing):
    run_resizing("""
        address = made(32 * MIB)
        with resizing(address, 8 * MIB, 24 * MIB):
            memlimits.set_wired_limit(16 * MIB)
            assert proc("VmLck") == memlimits.get_wired_memory() == 0
        assert proc("VmLck") == memlimits.get_wired_memory() == 8 * MIB
        free(address)
        memlimits.clear_cache()
        assert proc("VmLck") == memlimits.get_wired_memory() == 0
    """)


@pytest.mark.host
@pytest.mark.parametrize("nodes", [0, 1])
def test_a_block_that_has_moved_is_found_even_without_memory(run_resizing, nodes):
    """All that finding it takes is had before: with less the block stays as it was."""
    run_resizing(f"""
        address = made(4 * MIB)
        of_gate("nodes_left").value = {nodes}
        others = []
        while not {nodes} and (other := malloc(1200 * MIB)):
            others.append(other)                # until the spare node is used
        before = memory.counters()
        moved = realloc(address, 1200 * MIB)    # further away than one node reaches
        assert (moved not in (None, address)) == ({nodes} == 1)
        assert holds(moved or address, 4 * MIB)
        if not moved:
            assert memory.counters() == {{**before, "refusals": before["refusals"] + 1}}
        for block in (moved or address, *others):
            free(block)
        consistent()
    """)


@pytest.mark.host
def test_forks_while_threads_resize(run_resizing):
    """A child finds no resize half done: whatever it has, it can read, resize and free."""
    run_resizing("""
        warnings.simplefilter("ignore", DeprecationWarning)     # "multi-threaded, use of fork()"
        done = threading.Event()

        def work(seed):
            import random
            rng = random.Random(seed)
            while not done.is_set():
                address, n = malloc(4 * MIB), 4 * MIB
                while n < 40 * MIB:
                    longer = int(n * rng.uniform(1.1, 1.9))
                    address, n = realloc(address, longer), longer
                    ctypes.memset(address + n - 100, 7, 100)
                free(realloc(address, 5 * MIB))

        def child():
            consistent(memlimits.get_active_memory())
            assert holds(mine, 3 * MIB)
            longer = realloc(mine, 9 * MIB)
            assert holds(longer, 3 * MIB)
            free(longer)
            consistent(memlimits.get_active_memory())

        mine = made(3 * MIB)
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(2)]
        for thread in threads: thread.start()
        for _ in range(25):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                child()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        done.set()
        for thread in threads: thread.join()
        free(mine)
        consistent()
    """)


@pytest.mark.host
def test_a_fork_waits_for_a_resize(run_resizing):
    run_resizing("""
        warnings.simplefilter("ignore", DeprecationWarning)
        address = made(4 * MIB)
        with resizing(address, 200 * MIB, 200 * MIB) as results:
            of_gate("milliseconds").value = 100
            pid = os.fork()
            if pid == 0:
                consistent(200 * MIB)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        free(results[0])
    """)
