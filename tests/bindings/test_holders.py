"""Who holds memory, against the test's own books: exactly of long blocks, nearly of short ones."""

import ctypes
import pickle
import random
import re
import sys
import threading

import pytest

import memlimits
from support.functions import free, malloc
from support.process import run
from support.units import GIB, KIB, MIB

EVERY = 64 * KIB


@pytest.fixture(autouse=True)
def sampling():
    assert memlimits.set_holder_sampling(EVERY) is None
    yield
    memlimits.set_holder_sampling(None)


def here():
    return sys._getframe(1).f_lineno


def first(n):
    return memlimits.allocate(n), here()


def second(n):
    return memlimits.allocate(n), here()


def in_turn(n):
    return third(n)


def third(n):
    return memlimits.allocate(n), here()


def mine(limit=None):
    return [holder for holder in memlimits.holders(limit) if holder.file == __file__]


def books(held):
    """Bytes and blocks by line, of the blocks that are there."""
    found = {}
    for block, line in held:
        nbytes, blocks = found.get(line, (0, 0))
        found[line] = nbytes + block.capacity, blocks + 1
    return found


def test_long_blocks_are_told_exactly():
    rng, held = random.Random(1), []
    for _ in range(600):
        if held and rng.random() < 0.45:
            held.pop(rng.randrange(len(held)))[0].release()
        else:
            held.append(rng.choice([first, second, in_turn])(rng.randrange(EVERY, 40 * EVERY)))
        if rng.random() < 0.1:
            told = {holder.line: (holder.nbytes, holder.blocks) for holder in mine()}
            assert told == books(held)
    ranked = [holder.nbytes for holder in memlimits.holders()]
    assert ranked == sorted(ranked, reverse=True)
    assert len(memlimits.holders(2)) == 2
    for block, _ in held:
        block.release()
    assert mine() == []


def test_a_line_has_its_function_and_the_calls_that_led_there():
    held = in_turn(EVERY)
    (holder,) = mine()
    assert (holder.function, holder.line) == ("third", held[1])
    assert holder.stack[-1] == (__file__, held[1], "third")
    assert holder.stack[-2][2] == "in_turn"
    assert str(holder) == f"third ({__file__}:{held[1]}) 64 KiB in a block"


@pytest.mark.parametrize("n", [16, 100, 1000, 10_000, 33_000])
def test_short_blocks_are_told_nearly(n):
    """By 4,000 samples and more: off by a tenth at most, six times what is usual."""
    memlimits.set_holder_sampling(4096)
    held = [first(n) for _ in range(max(4000, 20 * MIB // n))]
    ((nbytes, blocks),) = books(held).values()
    (holder,) = mine()
    assert 0.9 < holder.nbytes / nbytes < 1.1
    assert 0.9 < holder.blocks / blocks < 1.1
    for block, _ in held[::2]:
        block.release()
    (holder,) = mine()
    assert 0.85 < 2 * holder.nbytes / nbytes < 1.15
    held.clear()
    assert mine() == []


def test_sizes_that_keep_step_with_the_samples_are_told_nearly():
    """A long pair of short blocks, as long as the bytes between two samples: each has its part."""
    memlimits.set_holder_sampling(4096)
    held = []
    for _ in range(4000):
        held += [first(3072), second(1024)]
    shares = {holder.line: holder.nbytes for holder in mine()}
    for line, (nbytes, _) in books(held).items():
        assert 0.85 < shares[line] / nbytes < 1.15


def test_what_was_there_before_is_nobodys_and_what_is_noted_stays():
    memlimits.set_holder_sampling(None)
    before, _ = first(EVERY)
    assert mine() == []
    memlimits.set_holder_sampling(EVERY)
    after, line = first(EVERY)
    assert memlimits.set_holder_sampling(None) == EVERY
    assert [holder.line for holder in mine()] == [line]
    after.release()
    assert mine() == []
    before.release()


def test_arrays_and_what_they_grow_to():
    numpy = pytest.importorskip("numpy")
    with memlimits.govern_numpy():
        array = numpy.zeros(EVERY, "u1")
        (holder,) = mine()
        assert (holder.nbytes, holder.blocks) == (EVERY, 1)
        for n in (8 * EVERY, 64 * EVERY, 5 * EVERY, 3 * EVERY + 1):
            array.resize(n, refcheck=False)
            (holder,) = mine()
            assert holder.blocks == 1
            assert n <= holder.nbytes < 2 * n
        short = numpy.empty(1000, "u1")
        for n in (EVERY // 2, 2 * EVERY, 40 * EVERY):
            short.resize(n, refcheck=False)
        assert sum(holder.nbytes for holder in mine()) >= 40 * EVERY
        del array, short
    assert mine() == []


LIBRARY = """import memlimits
def make(n):
    return memlimits.allocate(n)
def hold(n):
    kept.append(memlimits.allocate(n))
kept = []
"""


@pytest.mark.host
def test_a_long_block_that_became_short_counts_for_what_it_is():
    numpy = pytest.importorskip("numpy")
    memlimits.set_holder_sampling(4 * MIB)
    with memlimits.govern_numpy():
        array = numpy.zeros(40 * MIB, "u1")
        array.resize(MIB, refcheck=False)
        (holder,) = mine()
        assert (holder.nbytes, holder.blocks) == (MIB, 1)
        del array


def test_a_line_of_the_program_and_not_of_its_libraries(tmp_path, monkeypatch):
    library = tmp_path / "site-packages" / "library_of_arrays.py"
    library.parent.mkdir()
    library.write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(library.parent))
    import library_of_arrays

    block, line = library_of_arrays.make(EVERY), here()
    (holder,) = mine()
    assert holder.line == line
    assert holder.stack[-1] == (str(library), 3, "make")
    block.release()
    # Where there is no other.
    thread = threading.Thread(target=library_of_arrays.hold, args=(EVERY,))
    thread.start()
    thread.join()
    (holder,) = memlimits.holders()
    assert (holder.file, holder.line, holder.function) == (str(library), 5, "hold")
    library_of_arrays.kept.clear()


def test_a_refusal_says_who_holds_most():
    held = [first(12 * MIB), second(20 * MIB), in_turn(8 * MIB), first(MIB), first(MIB)]
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(64 * MIB)
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        memlimits.allocate(GIB)
    error = caught.value
    functions = [(holder.function, holder.nbytes, holder.blocks) for holder in error.holders]
    assert functions == [("second", 20 * MIB, 1), ("first", 14 * MIB, 3), ("third", 8 * MIB, 1)]
    assert f"Held by second ({__file__}:{held[1][1]}) 20 MiB in a block; first (" in str(error)
    assert memlimits.last_refusal().holders == error.holders
    copied = pickle.loads(pickle.dumps(error))
    assert copied.holders == error.holders
    assert str(copied) == str(error)
    memlimits.set_holder_sampling(None)


def test_so_does_numpys_error():
    numpy = pytest.importorskip("numpy")
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(64 * MIB)
    held, line = first(40 * MIB)
    with memlimits.govern_numpy(), pytest.raises(MemoryError) as caught:
        numpy.empty(GIB, "u1")
    (note,) = caught.value.__notes__
    assert note.endswith(f"; held by first (test_holders.py:{line}) 40 MiB")
    held.release()


def test_blocks_of_a_budget_are_noted_as_well():
    with memlimits.budget("some", limit=8 * MIB) as budget:
        held = [first(1000) for _ in range(2000)] + [second(4 * EVERY)]
        charged = budget.active
        assert charged == sum(block.capacity for block, _ in held)
        told = {holder.function: holder.nbytes for holder in mine()}
        assert told["second"] == 4 * EVERY
        assert 0.3 * MIB < told["first"] < 8 * MIB  # by some 30 samples
        for block, _ in held:
            block.release()
        assert budget.active == 0
    assert mine() == []


def test_more_places_than_there_is_room_for_are_told_as_their_callers():
    """70,000 stacks, by two lines on each of 17 levels: the table is the process's own for good."""
    run("""
        def deep(way, level):
            if level == 0:
                held.append(memlimits.allocate(4096))
            elif way & 1:
                deep(way >> 1, level - 1)
            else:
                deep(way >> 1, level - 1)

        memlimits.set_holder_sampling(4096)
        held = []
        for way in range(70_000):
            deep(way, 17)
        told = memlimits.holders(None)
        assert sum(holder.blocks for holder in told) == len(held)
        assert sum(holder.nbytes for holder in told) == sum(block.capacity for block in held)
        assert told[0].function == "deep"
    """)


@pytest.mark.host
@pytest.mark.skipif("t" in sys.abiflags, reason="objects are mimalloc's")
def test_pythons_objects_are_held_by_who_made_them():
    run("""
        import sys
        def strings():
            return [bytes(3000) for _ in range(10_000)]
        def numbers():
            return list(range(2_000_000))
        with memlimits.govern_python():
            memlimits.set_holder_sampling(64 << 10)
            held = strings(), numbers()
            told = {holder.function: holder.nbytes for holder in memlimits.holders()}
            # Of 29 MiB, by 470 samples; six times what is usual.
            assert 21 * MIB < sum(n for name, n in told.items() if "strings" in name) < 38 * MIB
            # What the list is, and its numbers' arenas.
            assert 70 * MIB < told["numbers"] < 90 * MIB
            del held
            assert sum(holder.nbytes for holder in memlimits.holders()) < 8 * MIB
    """)


def test_a_name_moves_no_cursor_and_begins_no_line():
    source = "def take(n):\n    return memlimits.allocate(n)\n"
    names = {"memlimits": memlimits}
    exec(compile(source, "evil\x1b]0;x\x07\nmemlimits: forged.py", "exec"), names)
    block = names["take"](3 * MIB)
    told = [str(holder) for holder in memlimits.holders(None) if holder.nbytes == 3 * MIB]
    assert told == ["take (evil ]0;x  memlimits: forged.py:2) 3 MiB in a block"]
    with (
        pytest.raises(memlimits.MemoryLimitError) as caught,
        memlimits.limits(memory=4 * MIB, policy="strict"),
    ):
        names["take"](400 * MIB)
    assert str(caught.value).isprintable()
    del block


def test_a_thread_that_runs_no_python_is_told_as_such():
    libc, thread, block = ctypes.CDLL(None), ctypes.c_void_p(), ctypes.c_void_p()
    ask = ctypes.cast(malloc, ctypes.c_void_p)
    assert libc.pthread_create(ctypes.byref(thread), None, ask, ctypes.c_void_p(3 * MIB)) == 0
    assert libc.pthread_join(thread, ctypes.byref(block)) == 0
    found = [holder for holder in memlimits.holders(None) if not holder.file]
    free(block)
    [held] = [holder for holder in found if holder.nbytes >= 3 * MIB]
    assert str(held) == "code without Python 3 MiB in a block"
    assert [one for one in memlimits.holders(None) if one.nbytes == 3 * MIB] == []


def test_threads_take_free_and_ask_at_once():
    """Each gives some of its blocks to the next, and all are gone in the end."""
    memlimits.set_holder_sampling(4096)
    shared, errors = [], []

    def work(seed):
        rng = random.Random(seed)
        held = []
        try:
            for step in range(3000):
                held.append(memlimits.allocate(rng.choice([64, 500, 3000, 9000, 40_000, 200_000])))
                if rng.random() < 0.5:
                    held.pop(rng.randrange(len(held))).release()
                if rng.random() < 0.1:
                    shared.append(held.pop() if held else memlimits.allocate(100))
                    shared.pop(0).release()
                if len(held) > 100:
                    held.clear()
                if step % 500 == 0:
                    for holder in memlimits.holders(None):
                        assert holder.nbytes > 0
                        assert holder.stack
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert errors == []
    shared.clear()
    assert mine() == []


@pytest.mark.parametrize(
    ("nbytes", "error", "says"),
    [
        (0, ValueError, "nbytes must be from 4096 to 2**40, or None for no samples, not 0"),
        (4095, ValueError, "not 4095"),
        (2**41, ValueError, "not 2199023255552"),
        (-1, ValueError, "not -1"),
        (2**70, ValueError, "2**63 - 1 bytes"),
        (True, TypeError, "nbytes"),
        ("64 KB.", ValueError, "nbytes: invalid size '64 KB.'"),
        (1e6, TypeError, "1000000.0"),
    ],
)
def test_bad_distances(nbytes, error, says):
    with pytest.raises(error, match=re.escape(says)):
        memlimits.set_holder_sampling(nbytes)
    assert memlimits.get_holder_sampling() == EVERY


def test_a_distance_is_rounded_up_to_a_power_of_two():
    memlimits.set_holder_sampling(100_000)
    assert memlimits.get_holder_sampling() == 128 * KIB
    assert memlimits.set_holder_sampling(None) == 128 * KIB
    assert memlimits.get_holder_sampling() is None


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), ("3", TypeError), (True, TypeError)]
)
def test_bad_limits(limit, error):
    with pytest.raises(error, match="limit"):
        memlimits.holders(limit)
    assert memlimits.holders(0) == []
