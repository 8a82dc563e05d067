"""What `govern_numpy()` reaches: all of the process, whatever thread or context allocates."""

import _thread
import asyncio
import concurrent.futures
import contextvars
import ctypes
import sys
import threading

import pytest

import memlimits
from support.governed import GOVERNED, PLAIN, owner_here
from support.threads import in_thread, run_threads

pytestmark = pytest.mark.usefixtures("plain_numpy")


class OwnThread(threading.Thread):
    def run(self):
        self._target(*self._args)


def in_timer(function):
    results = []
    timer = threading.Timer(0, lambda: results.append(function()))
    timer.start()
    timer.join()
    return results[0]


def in_pool(function):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def below_threading(function):
    results, done = [], threading.Event()
    _thread.start_new_thread(lambda: (results.append(function()), done.set()), ())
    assert done.wait(60)
    return results[0]


def in_subclass(function):
    results = []
    thread = OwnThread(target=lambda _: results.append(function()), args=(None,))
    thread.start()
    thread.join()
    return results[0]


def in_c_thread(function):
    """On a thread that C code started, which Python knows nothing of."""
    results, libc = [], ctypes.CDLL(None, use_errno=True)
    callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
        lambda _: results.append(function()) and None
    )
    thread = ctypes.c_void_p()
    assert libc.pthread_create(ctypes.byref(thread), None, callback, None) == 0
    assert libc.pthread_join(thread, None) == 0
    return results[0]


def in_thread_with_context(function):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(function()), context=contextvars.Context()
    )
    thread.start()
    thread.join()
    return results[0]


def in_bare_context(function):
    return contextvars.Context().run(function)


def in_task(function):
    async def task():
        return function()

    async def main():
        return await asyncio.create_task(task(), context=contextvars.Context())

    return asyncio.run(main())


KINDS = [
    in_thread, in_timer, in_pool, below_threading, in_subclass, in_c_thread, in_bare_context,
    in_task,
]  # fmt: skip
if sys.version_info >= (3, 14):
    KINDS.append(in_thread_with_context)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_thread_and_context(kind):
    assert kind(owner_here) == PLAIN
    with memlimits.govern_numpy():
        assert kind(owner_here) == GOVERNED
    assert kind(owner_here) == PLAIN


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_governing_begun_anywhere_is_on_everywhere(kind):
    governing = kind(memlimits.govern_numpy)
    assert (owner_here(), in_thread(owner_here)) == (GOVERNED, GOVERNED)
    kind(governing.close)
    assert (owner_here(), in_thread(owner_here)) == (PLAIN, PLAIN)


def test_a_thread_that_was_running_already():
    wake, seen = threading.Semaphore(0), []
    answered = threading.Semaphore(0)

    def work():
        for _ in range(3):
            wake.acquire()
            seen.append(owner_here())
            answered.release()

    def ask():
        wake.release()
        answered.acquire()

    def main():
        ask()
        with memlimits.govern_numpy():
            ask()
        ask()

    run_threads(work, main)
    assert seen == [PLAIN, GOVERNED, PLAIN]


def test_a_task_that_was_made_before():
    async def main():
        begun, proceed = asyncio.Event(), asyncio.Event()

        async def early():
            begun.set()
            await proceed.wait()
            return owner_here(), await asyncio.to_thread(owner_here)

        task = asyncio.create_task(early())
        await begun.wait()
        with memlimits.govern_numpy():
            proceed.set()
            return await task

    assert asyncio.run(main()) == (GOVERNED, GOVERNED)


def test_nothing_of_threadings_is_replaced(govern):
    def functions():
        return dict(vars(threading.Thread))

    before = functions()
    with memlimits.govern_numpy():
        assert functions() == before
