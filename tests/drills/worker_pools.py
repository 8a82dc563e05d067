"""A program with a pool of workers: worker_pools.py KIND METHOD TASKS.

Each task holds one array, makes a second from it, and returns a megabyte of that. It says how many
came back right, how many were refused, and of the latter how many had the note.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from memlimits.errors import is_refusal

WORKERS = 4
N = 40 << 17  # numbers of 8 bytes: 40 MiB


def task(mark):
    array = np.full(N, float(mark))
    time.sleep(0.02)
    more = array + 1.0
    return bytes(more[: 1 << 17].tobytes())


def is_right(mark, result):
    return len(result) == 1 << 20 and float(np.frombuffer(result)[-1]) == mark + 1.0


def results(kind, method, tasks):
    """For each task a function that returns its result or raises. A pool that is left to the end of
    the program may leave workers behind, whatever governs them."""
    if kind == "joblib":
        import joblib

        def settled(mark):
            try:
                return task(mark)
            except MemoryError as error:
                # Pickled before anybody looked, it would have no note.
                is_refusal(error)
                return error

        def ends_in(result):
            if isinstance(result, MemoryError):
                raise result
            return result

        found = joblib.Parallel(n_jobs=WORKERS)(joblib.delayed(settled)(m) for m in range(tasks))
        yield from (lambda result=result: ends_in(result) for result in found)
        return
    context = multiprocessing.get_context(method)
    if kind == "futures":
        with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
            yield from [executor.submit(task, mark).result for mark in range(tasks)]
        return
    with context.Pool(WORKERS) as pool:
        yield from [pool.apply_async(task, (mark,)).get for mark in range(tasks)]
        pool.close()
        pool.join()


def main():
    kind, method, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    right = refused = told = 0
    for mark, result in enumerate(results(kind, method, tasks)):
        try:
            right += is_right(mark, result())
        except MemoryError as error:
            refused += 1
            told += is_refusal(error)
    print(right, refused, told)


if __name__ == "__main__":
    main()
