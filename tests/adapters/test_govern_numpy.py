"""`govern_numpy()`: from when to when it is on, and who may end it."""

import asyncio
import contextvars
import copy
import pickle
import threading

import numpy
import pytest

import memlimits
from support.governed import GOVERNED, PLAIN, owner, owner_here
from support.threads import in_thread, run_threads
from support.units import MIB

pytestmark = pytest.mark.usefixtures("plain_numpy")


def test_arrays_before_during_and_after():
    before = numpy.arange(1000.0)
    with memlimits.govern_numpy():
        during = numpy.arange(1000.0)
        both = before + during
        assert owner(before) == PLAIN
    after = both + 1
    assert [owner(array) for array in (during, both, after)] == [GOVERNED] * 2 + [PLAIN]
    assert after.tolist() == [2.0 * i + 1 for i in range(1000)]


def test_free_in_any_order_on_any_thread_at_any_time():
    arrays = []
    for round_ in range(6):
        arrays += [numpy.full(2**i, i + round_) for i in range(0, 18, 2)]
        with memlimits.govern_numpy():
            arrays += [numpy.full(2**i, i + round_) for i in range(1, 18, 2)]
            del arrays[:: 3 + round_]
    expected = [int(array[0]) for array in arrays]
    assert {owner(array) for array in arrays} == {PLAIN, GOVERNED}

    def drop(every):
        for i in range(every, len(arrays), 2):
            assert (arrays[i] == expected[i]).all()
            arrays[i] = None

    threads = [threading.Thread(target=drop, args=(every,)) for every in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrays == [None] * len(arrays)


def test_govern_numpy_is_on_at_once_and_close_is_idempotent():
    governing = memlimits.govern_numpy()
    assert owner_here() == GOVERNED
    with governing as entered:
        assert entered is governing
    assert owner_here() == PLAIN
    governing.close()
    governing.close()
    assert owner_here() == PLAIN


def test_nested_in_order():
    with memlimits.govern_numpy():
        with memlimits.govern_numpy():
            assert owner_here() == GOVERNED
        assert owner_here() == GOVERNED
    assert owner_here() == PLAIN


def test_closed_out_of_order():
    first, second, third = (memlimits.govern_numpy() for _ in range(3))
    for governing in (first, third, first):
        governing.close()
        assert owner_here() == GOVERNED
        assert in_thread(owner_here) == GOVERNED
    second.close()
    assert owner_here() == PLAIN
    assert in_thread(owner_here) == PLAIN


def test_opened_and_closed_often():
    for _ in range(200):
        with memlimits.govern_numpy():
            pass
    assert in_thread(owner_here) == PLAIN


def test_an_exception_passes_through_and_closes():
    def fail():
        with memlimits.govern_numpy():
            numpy.ones(10).reshape(3, 3)

    with pytest.raises(ValueError, match="reshape"):
        fail()
    assert owner_here() == PLAIN


def test_whoever_has_it_closes_it_in_whatever_thread():
    running, proceed = threading.Event(), threading.Event()
    governings = []

    def work():
        running.set()
        proceed.wait()
        governings[0].close()

    thread = threading.Thread(target=work)
    thread.start()
    running.wait()
    governings += [memlimits.govern_numpy(), in_thread(memlimits.govern_numpy)]
    proceed.set()
    thread.join()
    assert owner_here() == GOVERNED
    governings[1].close()
    assert (owner_here(), in_thread(owner_here)) == (PLAIN, PLAIN)


def test_whoever_has_it_closes_it_in_whatever_context():
    """A notebook runs each cell in a context of its own, which is gone afterwards."""

    async def cell(function):
        return function()

    async def notebook():
        governing = await asyncio.create_task(cell(memlimits.govern_numpy))
        between = owner_here()
        await asyncio.create_task(cell(governing.close))
        return governing, between, owner_here()

    governing, *owners = asyncio.run(notebook())
    assert owners == [GOVERNED, PLAIN]
    other = contextvars.Context().run(memlimits.govern_numpy)
    governing.close()
    assert owner_here() == GOVERNED
    contextvars.Context().run(other.close)


def test_threads_that_open_and_close_at_once_leave_nothing_open():
    shared = [memlimits.govern_numpy() for _ in range(200)]

    def close_shared():
        for governing in shared:
            governing.close()

    def open_and_close():
        for _ in range(200):
            with memlimits.govern_numpy():
                assert owner_here() == GOVERNED

    run_threads(close_shared, open_and_close, close_shared, open_and_close)
    assert owner_here() == PLAIN
    with memlimits.govern_numpy():
        assert owner_here() == GOVERNED


def test_it_cannot_be_copied_nor_made_otherwise(govern):
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="call the function that made it"):
            make(govern)
    made = type(govern).__new__(type(govern))
    made.close()
    assert owner_here() == GOVERNED


@pytest.mark.parametrize("size", [1, 200, 5000, 3 * MIB])
def test_a_block_of_before_becomes_governed_when_it_is_resized(size):
    array = numpy.arange(size, dtype="i4")
    active = memlimits.get_active_memory()
    array.resize(2 * size, refcheck=False)
    assert owner(array) == PLAIN
    with memlimits.govern_numpy():
        array.resize(3 * size, refcheck=False)
        assert owner(array) == GOVERNED
        assert memlimits.get_active_memory() - active >= array.nbytes
        assert array[:size].tolist() == list(range(size))
        assert not array[size:].any()
    del array
    assert memlimits.get_active_memory() == active


def test_a_refused_resize_of_a_block_of_before_leaves_it():
    array = numpy.arange(1000)
    with memlimits.govern_numpy():
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(memlimits.get_active_memory() + MIB)
        with pytest.raises(MemoryError):
            array.resize(MIB, refcheck=False)
        assert memlimits.last_refusal().requested == 8 * MIB
    assert owner(array) == PLAIN
    assert array.tolist() == list(range(1000))


def test_a_block_that_nobody_can_leave_any_more_is_left():
    """As where a signal's exception came before its first line."""
    memlimits.govern_numpy().__enter__()
    assert owner_here() == PLAIN
    governing = memlimits.govern_numpy()
    governing.__enter__()
    exit = governing.__exit__  # what the interpreter keeps for the block
    del governing
    assert owner_here() == GOVERNED
    del exit
    assert owner_here() == PLAIN
