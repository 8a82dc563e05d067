"""Threads whose failures are the test's."""

import threading
from contextlib import contextmanager


def run_threads(*targets):
    """Run the functions at once, and raise what any of them raised."""
    errors = []

    def guarded(target):
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def in_thread(function):
    """What the function returns on a thread of its own."""
    results = []
    run_threads(lambda: results.append(function()))
    return results[0]


@contextmanager
def meanwhile(*functions):
    """Call each on a thread of its own, over and over."""
    done = threading.Event()
    failures = []

    def repeat(function):
        try:
            while not done.is_set():
                function()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=repeat, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
