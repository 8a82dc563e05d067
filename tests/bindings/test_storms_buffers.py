"""Many threads at one Buffer, and at the Buffers that are made of others."""

import gc
import itertools
import sys

import numpy as np
import pytest

import memlimits
from support import interposed
from support.process import run
from support.storms import ROUNDS, Ledger, allowed, storm

pytestmark = [pytest.mark.inside, pytest.mark.core]

THREADS = 4
N = 1000


def stamp(buffer, value):
    memoryview(buffer).cast("Q")[:4] = memoryview(bytes(value.to_bytes(8, "little") * 4)).cast("Q")


def stamped(buffer):
    """The one value that was written into it."""
    (value,) = set(memoryview(buffer).cast("Q")[:4])
    return value


def test_no_block_has_two_owners():
    numbers = itertools.count(1)

    def own():
        number = next(numbers)
        blocks = [memlimits.allocate(N) for _ in range(3)]
        for i, block in enumerate(blocks):
            stamp(block, 3 * number + i)
        for i, block in enumerate(blocks):
            assert stamped(block) == 3 * number + i

    active = interposed.active()
    storm(*[own] * THREADS)
    assert interposed.active() == active


def test_buffers_dropped_by_other_threads_than_made_them():
    """What a thread drops is made of another thread's, and the other way round."""
    numbers = itertools.count(1)
    passed_on = Ledger()

    def give():
        number = next(numbers)
        block = memlimits.allocate(N)
        stamp(block, number)
        passed_on.add((block, number))

    def drop():
        given = passed_on.take()
        if given is not None:
            block, number = given
            assert (len(block), stamped(block)) == (N, number)

    active = interposed.active()
    storm(give, give, drop, drop)
    passed_on.values.clear()
    gc.collect()
    assert interposed.active() == active


def test_buffers_of_threads_that_ended_are_used_again():
    """Threads that come and go leave nothing behind, but what the next ones use."""

    def come_and_go(count):
        for _ in range(count):
            storm(*[lambda: memlimits.allocate(N)] * THREADS, rounds=100, seconds=0)
        gc.collect()
        return sys.getallocatedblocks()

    come_and_go(5)
    before = come_and_go(1)
    assert come_and_go(20) < before + 20 * THREADS


def test_every_view_is_counted_once():
    block = memlimits.allocate(N)

    def view():
        memoryview(block).release()

    storm(*[view] * THREADS)
    view = memoryview(block)
    with pytest.raises(BufferError, match=r"1 view\(s\)"):
        block.release()
    view.release()
    block.release()
    with pytest.raises(ValueError, match="was released"):
        memoryview(block)


def leave(block):
    block.__exit__(None, None, None)


class Newest:
    """A Buffer with a stamp of its own, and the next one in its place."""

    def __init__(self, **how):
        self.how, self.numbers = how, itertools.count(1)
        self.make()

    def make(self):
        block, number = memlimits.allocate(N, **self.how), next(self.numbers)
        stamp(block, number)
        self.made = block, number

    @property
    def block(self):
        return self.made[0]


@pytest.mark.parametrize("end", [memlimits.Buffer.release, leave], ids=["release", "leave"])
def test_a_block_goes_back_once(end):
    active = interposed.active()
    newest = Newest()
    storm(newest.make, *[lambda: end(newest.block)] * 3)
    end(newest.block)
    assert interposed.active() == active
    again = [memlimits.allocate(N) for _ in range(1000)]
    assert len({block.ptr for block in again}) == 1000


@pytest.mark.parametrize("end", [memlimits.Buffer.release, leave], ids=["release", "leave"])
def test_what_a_view_sees_stays_until_it_ends(end):
    """One ends it, others look, and one would take its block."""
    active = interposed.active()
    newest = Newest()

    def look():
        block, number = newest.made
        with allowed(ValueError, "was released"), memoryview(block) as view:
            assert [stamped(view) for _ in range(5)] == [number] * 5

    def finish():
        with allowed(BufferError, "in use"):
            end(newest.block)

    storm(newest.make, look, look, finish, lambda: stamp(memlimits.allocate(N), 1 << 63))
    newest.block.release()
    assert interposed.active() == active


def test_what_a_buffer_says_while_it_is_released():
    newest = Newest(wired=True)

    def ask():
        block = newest.block
        assert (len(block), block.nbytes) == (N, N)
        assert block.capacity >= N
        assert block.wired in (False, True)
        assert repr(block).startswith("<memlimits.Buffer of 1000 bytes")
        with allowed((AttributeError, ValueError), "no Metal here|was released"):
            assert len(block.metal_buffer) == 2
        with allowed(ValueError, "was released"):
            assert block.ptr % 64 == 0

    storm(newest.make, ask, ask, lambda: newest.block.release())


def test_dlpack_consumers():
    """Each makes an array and drops it, some of a copy, while another would release the block."""
    active = interposed.active()
    block = memlimits.allocate(N)
    stamp(block, 77)

    def consume(**how):
        array = np.from_dlpack(block, **how)
        assert (array.view("u8")[:4] == 77).all()

    def release():
        with pytest.raises(BufferError):
            block.release()

    with memoryview(block):
        copying = {"copy": True} if np.__version__ >= "2.1" else {}
        storm(consume, consume, lambda: consume(**copying), release)
    gc.collect()
    block.release()
    assert interposed.active() == active


def test_allocating_in_finalizers():
    """A finalizer runs wherever the last reference goes, or where the collector comes by."""
    seen = Ledger()

    class Finalized:
        def __init__(self):
            self.itself = self if next(numbers) % 4 == 0 else None
            self.block = memlimits.allocate(N)
            stamp(self.block, id(self))

        def __del__(self):
            other = memlimits.allocate(N)
            stamp(other, 1)
            if stamped(self.block) != id(self) or stamped(other) != 1:
                seen.add(self)

    numbers = itertools.count()
    active = interposed.active()
    storm(*[Finalized] * THREADS)
    gc.collect()
    assert seen.values == []
    assert interposed.active() == active


def test_wires_and_unwires_even_out():
    block = memlimits.allocate(64 << 10)
    memlimits.set_wired_limit(1 << 20)

    def both():
        memlimits.wire(block)
        memlimits.unwire(block)

    storm(*[both] * THREADS, lambda: block.wired, rounds=ROUNDS // 4)
    with pytest.raises(ValueError, match="not asked"):
        memlimits.unwire(block)
    assert memlimits.stats().wired_requested == 0


def test_arrays_of_ours_and_of_a_governed_numpy():
    numbers = itertools.count(1)

    def check(make):
        number = float(next(numbers))
        arrays = [make((10, 13)) for _ in range(3)]
        for i, array in enumerate(arrays):
            array.fill(number + i)
        for i, array in enumerate(arrays):
            assert (array == number + i).all()

    active = interposed.active()
    with memlimits.govern_numpy():
        storm(
            *[
                lambda make=make: check(make)
                for make in (memlimits.empty, memlimits.zeros, np.empty, np.ones)
            ]
        )
    gc.collect()
    assert interposed.active() == active


@pytest.mark.parametrize("first", [
    "memlimits.allocate(100)", "memlimits.get_memory_limit()", "memlimits.stats()",
    "memlimits.limits(memory=1).__enter__", "memlimits.empty(10)",
])  # fmt: skip
def test_the_first_use_by_many_threads_at_once(first):
    """They find one allocator: a block that one allocates another counts."""
    done = run(f"""
        from memlimits._bindings.allocator import default_allocator
        together, found, held = threading.Barrier(8), [], []
        def use():
            together.wait()
            {first}
            found.append(id(default_allocator()))
            held.append(memlimits.allocate(100))
        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(set(found)) == 1 and len(found) == 8
        consistent(8 * held[0].capacity)
        assert len({{block.ptr for block in held}}) == 8
    """)
    assert done.stderr == ""


@pytest.mark.host
def test_a_fork_while_threads_allocate():
    """The child has what it had when it was made, and goes on by itself."""
    run("""
        warnings.simplefilter("ignore", DeprecationWarning)     # of threads and a fork
        stop = threading.Event()
        def churn():
            while not stop.is_set():
                with memlimits.budget("b", 1 << 30):
                    blocks = [memlimits.allocate(n) for n in (100, 5000, 100_000)]
                with memlimits.limits(memory=1 << 33):
                    del blocks
        threads = [threading.Thread(target=churn, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        mine = memlimits.allocate(1000)
        memoryview(mine)[:] = b"m" * 1000
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                other = [memlimits.allocate(1000) for _ in range(100)]
                assert bytes(mine) == b"m" * 1000
                assert len({block.ptr for block in other} | {mine.ptr}) == 101
                counters = memory.counters()
                parts = sum(counters[p] for p in ("active", "cache", "slack", "pending"))
                assert counters["footprint"] == parts
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        assert bytes(mine) == b"m" * 1000
        consistent(mine.capacity)
    """)
