"""numba: a compiled function that makes arrays of its own."""

import numba
import numpy


@numba.njit
def rows(count, length):
    made = [numpy.arange(length)]
    for number in range(1, count):
        row = numpy.empty(length, numpy.int64)
        for i in range(length):
            row[i] = made[number - 1][i] + number
        made.append(row)
    return made[-1].sum()


print(rows(200, 100_000))
