"""multiprocessing.pool: threads that make NumPy arrays, whose results are collected."""

from multiprocessing.pool import ThreadPool

import numpy


def squares(part):
    return numpy.arange(part, part + 500_000) ** 2


with ThreadPool(4) as pool:
    parts = pool.map(squares, range(50))
print(len(parts), int(numpy.concatenate(parts).max()))
