"""Read chunks of measurements, clean them, and keep what turns out to be too much.

For docs/guides/holders.md: under `memlimits run --memory-limit 300MiB --record run.rec` it is
refused memory at last, and the recording says which line held the most when.
"""

import time
from multiprocessing import get_context

import numpy as np

CHUNK = 4_000_000
PAUSE = 0.15


def read(seed):
    """Return what an instrument could have measured."""
    time.sleep(PAUSE)
    return np.random.default_rng(seed).normal(size=CHUNK)


def clean(chunk):
    """Return it without what is far off; a copy, for a while."""
    near = np.abs(chunk) < 3
    time.sleep(PAUSE)
    return chunk[near].astype(np.float32)


def summarise(seed):
    """Work on one chunk in a process of its own."""
    return float(clean(read(seed)).mean())


def collect(number):
    """Keep all chunks, although their means would do."""
    kept = []
    for seed in range(number):
        kept.append(read(seed))
    return kept


def main():
    with get_context("fork").Pool(2) as pool:
        pool.map(summarise, range(4))
        pool.close()
        pool.join()
    try:
        collect(20)
    except MemoryError as error:
        print(f"{type(error).__name__}: {error}")
    time.sleep(PAUSE)


if __name__ == "__main__":
    main()
