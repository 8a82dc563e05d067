"""`govern_numpy()`: where it is on, and for how long."""

import asyncio
import concurrent.futures
import contextvars
import threading

import numpy
import pytest
from numpy._core.multiarray import get_handler_name

import memlimits
from support.governed import GOVERNED, PLAIN, handler_here
from support.threads import in_thread

pytestmark = pytest.mark.usefixtures("plain_numpy")


def test_arrays_before_during_and_after():
    before = numpy.arange(1000.0)
    with memlimits.govern_numpy():
        during = numpy.arange(1000.0)
        both = before + during
        assert get_handler_name(before) == PLAIN
    after = both + 1
    assert [get_handler_name(array) for array in (during, both, after)] == [GOVERNED] * 2 + [PLAIN]
    assert after.tolist() == [2.0 * i + 1 for i in range(1000)]


def test_free_in_any_order_on_any_thread_at_any_time():
    arrays = []
    for round_ in range(6):
        arrays += [numpy.full(2**i, i + round_) for i in range(0, 18, 2)]
        with memlimits.govern_numpy():
            arrays += [numpy.full(2**i, i + round_) for i in range(1, 18, 2)]
            del arrays[:: 3 + round_]
    expected = [int(array[0]) for array in arrays]
    assert {get_handler_name(array) for array in arrays} == {PLAIN, GOVERNED}

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
    assert handler_here() == GOVERNED
    with governing as entered:
        assert entered is governing
    assert handler_here() == PLAIN
    governing.close()
    governing.close()
    assert handler_here() == PLAIN


def test_nested_in_order():
    with memlimits.govern_numpy():
        with memlimits.govern_numpy():
            assert handler_here() == GOVERNED
        assert handler_here() == GOVERNED
    assert handler_here() == PLAIN


def test_closed_out_of_order():
    first, second, third = (memlimits.govern_numpy() for _ in range(3))
    for governing in (first, third, first):
        governing.close()
        assert handler_here() == GOVERNED
        assert in_thread(handler_here) == GOVERNED
    second.close()
    assert handler_here() == PLAIN
    assert in_thread(handler_here) == PLAIN


def test_opened_and_closed_often():
    for _ in range(200):
        with memlimits.govern_numpy():
            pass
    assert in_thread(handler_here) == PLAIN


def test_an_exception_passes_through_and_closes():
    def fail():
        with memlimits.govern_numpy():
            numpy.ones(10).reshape(3, 3)

    with pytest.raises(ValueError, match="reshape"):
        fail()
    assert handler_here() == PLAIN


def test_a_thread_started_meanwhile_is_governed_and_a_later_one_is_not():
    with memlimits.govern_numpy():
        assert in_thread(handler_here) == GOVERNED
        assert in_thread(lambda: in_thread(handler_here)) == GOVERNED
    assert in_thread(handler_here) == PLAIN


def test_a_thread_that_overrides_run():
    class Own(threading.Thread):
        def run(self):
            self.seen = handler_here()

    with memlimits.govern_numpy():
        thread = Own(daemon=True)
        thread.start()
        thread.join()
    assert thread.seen == GOVERNED


def test_a_timer(govern):
    seen = []
    timer = threading.Timer(0, lambda: seen.append(handler_here()))
    timer.start()
    timer.join()
    assert seen == [GOVERNED]


def test_a_pool_made_inside(govern):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert {pool.submit(handler_here).result() for _ in range(4)} == {GOVERNED}


def test_a_pool_made_before_governs_the_threads_that_it_starts_later():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        release = threading.Event()
        old = pool.submit(lambda: release.wait() and handler_here())
        with memlimits.govern_numpy():
            assert pool.submit(handler_here).result() == GOVERNED
            release.set()
            assert old.result() == PLAIN


def test_a_thread_that_outlives_the_governing_stays_governed():
    proceed, seen, arrays = threading.Event(), [], []

    def work():
        seen.append(handler_here())
        proceed.wait()
        seen.append(handler_here())
        arrays.append(numpy.arange(100_000))

    with memlimits.govern_numpy():
        thread = threading.Thread(target=work)
        thread.start()
    proceed.set()
    thread.join()
    assert seen == [GOVERNED, GOVERNED]
    assert get_handler_name(arrays[0]) == GOVERNED
    assert arrays.pop().sum() == 100_000 * 99_999 // 2


def test_running_threads_and_those_below_threading_are_not_governed():
    """What the documentation says is not seen."""
    import _thread

    proceed, done, seen = threading.Event(), threading.Event(), []
    running = threading.Thread(target=lambda: proceed.wait() and seen.append(handler_here()))
    running.start()
    with memlimits.govern_numpy():
        proceed.set()
        running.join()
        _thread.start_new_thread(lambda: (seen.append(handler_here()), done.set()), ())
        assert done.wait(10)
    assert seen == [PLAIN, PLAIN]


def close_elsewhere(thread_is):
    """Open here, close on another thread; what that said, and the handlers before our own close."""
    seen, proceed = [], threading.Event()

    def work():
        proceed.wait()
        own = memlimits.govern_numpy() if thread_is == "governing" else None
        try:
            governing.close()
        except RuntimeError as error:
            seen.append(str(error))
        if own:
            own.close()

    thread = threading.Thread(target=work)
    if thread_is != "governed":
        thread.start()
    governing = memlimits.govern_numpy()
    if thread_is == "governed":
        thread.start()
    proceed.set()
    thread.join()
    seen += [handler_here(), in_thread(handler_here)]
    governing.close()
    return [*seen, handler_here(), in_thread(handler_here)]


@pytest.mark.parametrize("thread_is", ["plain", "governed", "governing"])
def test_close_in_another_thread_is_an_error_and_changes_nothing(thread_is):
    said, *handlers = contextvars.copy_context().run(close_elsewhere, thread_is)
    assert "govern_numpy" in said
    assert handlers == [GOVERNED, GOVERNED, PLAIN, PLAIN]


def test_two_threads_govern_independently():
    barrier, seen = threading.Barrier(2, timeout=10), {}

    def work(name, first):
        barrier.wait()
        if not first:
            barrier.wait()
        with memlimits.govern_numpy():
            if first:
                barrier.wait()
                barrier.wait()
            else:
                barrier.wait()
        seen[name] = handler_here()

    threads = [threading.Thread(target=work, args=(name, name == "a")) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": PLAIN, "b": PLAIN}
    assert in_thread(handler_here) == PLAIN


def test_tasks_inherit_and_keep_their_own():
    async def seen():
        await asyncio.sleep(0)
        return handler_here()

    async def inside():
        with memlimits.govern_numpy():
            task = asyncio.create_task(seen())
            thread = await asyncio.to_thread(handler_here)
        return await task, thread, handler_here()

    async def main():
        other = asyncio.create_task(seen())
        return await asyncio.gather(inside(), seen(), other)

    assert asyncio.run(main()) == [(GOVERNED, GOVERNED, PLAIN), PLAIN, PLAIN]
    with memlimits.govern_numpy():
        assert asyncio.run(main()) == [(GOVERNED, GOVERNED, GOVERNED), GOVERNED, GOVERNED]


def test_close_in_another_task_is_an_error():
    async def close(governing):
        governing.close()

    async def main():
        with memlimits.govern_numpy() as governing:
            with pytest.raises(RuntimeError, match="govern_numpy"):
                await asyncio.create_task(close(governing))
            here = handler_here()
        return here, handler_here()

    assert asyncio.run(main()) == (GOVERNED, PLAIN)
