"""Threads whose failures are the test's."""

import threading


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
