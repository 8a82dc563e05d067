"""How much idle memory adds to the most in use while a whole program is governed, and until when.

Each in a Python of its own: there it holds for all that memlimits allocates, whoever asks.
"""

import os
import textwrap
from pathlib import Path

import pytest

import memlimits
from support.process import PRELUDE, execute

LIBRARY = Path(memlimits.__file__).parent / "lib" / "libinterpose.so"

pytestmark = [pytest.mark.inside, pytest.mark.host]

BLOCKS = """
    import random
    from memlimits.adapters import _process

    def lean(peak, heaps=1):
        return peak + peak // 32 + heaps * 2 * MIB

    def come_and_go(most=8 * MIB):
        # By how much the footprint passes that at most, and a part of what was ever returned: not
        # at all, but for the time that looking elsewhere takes a thread that has to wait meanwhile.
        rng, held, over = random.Random(7), [], -1
        for n in [rng.randrange(64 << 10, most) for _ in range(300)]:
            while held and (len(held) > 16 or rng.random() < 0.5):
                held.pop(rng.randrange(len(held))).release()
            held.append(memlimits.allocate(n))
            stats = memlimits.stats()
            over = max(over, stats.footprint - lean(stats.peak) - stats.evicted // 32)
        return over
"""


def run(script, **environment):
    source = "".join(map(textwrap.dedent, [PRELUDE, BLOCKS, script, "print('done')\n"]))
    done = execute(source, env={**os.environ, **environment})
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_as_long_as_python_is_governed():
    run("""
        first, second = memlimits.govern_python(), memlimits.govern_python()
        assert come_and_go() < MIB
        first.close()
        first.close()
        assert come_and_go() < MIB
        second.close()
        assert come_and_go(most=MIB) > MIB
    """)


def test_threads_have_more_each():
    run("""
        with memlimits.govern_python():
            held = memlimits.allocate(64 * MIB)
            def work(n, ready, end):
                memlimits.allocate(n).release()
                ready.set()
                end.wait()
            end, threads = threading.Event(), []
            for n in (3 * MIB, 4 * MIB):
                ready = threading.Event()
                threads.append(threading.Thread(target=work, args=(n, ready, end), daemon=True))
                threads[-1].start()
                ready.wait()
            before = memlimits.stats().footprint
            memlimits.allocate(8 * MIB).release()
            # What is idle in their heaps stays, which would be too much in one.
            assert before + 8 * MIB > lean(memlimits.stats().peak)
            assert memlimits.stats().footprint >= before + 8 * MIB
            memlimits.allocate(20 * MIB).release()
            assert memlimits.stats().footprint < before + (8 + 20) * MIB
            assert memlimits.stats().footprint <= lean(memlimits.stats().peak, heaps=3)
            end.set()
            [thread.join() for thread in threads]
    """)


@pytest.mark.parametrize(
    ("govern", "cached"),
    [("memlimits.govern_python()", range(40)), ("contextlib.nullcontext()", range(200, 300))],
)
def test_a_long_block_that_was_returned_leaves_others_no_room_to_be_idle(govern, cached):
    run(f"""
        with {govern}:
            memlimits.allocate(200 * MIB).release()
            for n in range(1, 21):
                memlimits.allocate(n * MIB).release()
            assert memlimits.stats().peak >= 200 * MIB
            assert memlimits.get_cache_memory() // MIB in {cached}
    """)


@pytest.mark.parametrize("cleared", [False, True])
def test_what_had_to_go_widens_what_may_be_idle_until_the_cache_is_cleared(cleared):
    run(f"""
        with memlimits.govern_python():
            held = [memlimits.allocate(100 * MIB)]
            idle = [memlimits.allocate(16 * MIB) for _ in range(16)]
            [block.release() for block in idle]
            # All of it goes, one after the other: what is idle is too short.
            held += [memlimits.allocate(18 * MIB) for _ in range(16)]
            assert memlimits.stats().evicted >= 14 * 16 * MIB
            if {cleared}:
                memlimits.clear_cache()
            held.pop().release()
            held.append(memlimits.allocate(21 * MIB))
            may = lean(memlimits.stats().peak) - memlimits.stats().peak
            assert may + 3 * MIB < 18 * MIB < may + 14 * 16 * MIB // 32
            assert memlimits.get_cache_memory() // MIB == (0 if {cleared} else 18)
    """)


def test_what_the_memory_limit_has_go_widens_nothing():
    run("""
        with memlimits.govern_python():
            held = [memlimits.allocate(100 * MIB)]
            idle = [memlimits.allocate(16 * MIB) for _ in range(16)]
            [block.release() for block in idle]
            previous = memlimits.set_memory_limit(memlimits.stats().footprint + 2 * MIB)
            held += [memlimits.allocate(18 * MIB) for _ in range(12)]
            assert memlimits.stats().evicted >= 10 * 16 * MIB
            memlimits.set_memory_limit(previous)
            held += [memlimits.allocate(n * MIB) for n in (21, 22, 23, 24)]
            held.pop(-5).release()
            held.append(memlimits.allocate(25 * MIB))
            may = lean(memlimits.stats().peak) - memlimits.stats().peak
            assert may + MIB < 18 * MIB < may + 10 * 16 * MIB // 32
            assert memlimits.get_cache_memory() < MIB
    """)


@pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only")
def test_for_good_where_malloc_is_governed():
    run(
        """
        assert _process.take_part() is None and _process.take_part() is None
        with memlimits.govern_python():
            assert come_and_go() < MIB
        assert come_and_go() < MIB
        """,
        LD_PRELOAD=str(LIBRARY),
    )


def test_arrays_alone_are_left_as_much_as_before():
    pytest.importorskip("numpy")
    run("""
        with memlimits.govern_numpy():
            assert come_and_go(most=MIB) > MIB
    """)
