"""SciPy: a singular value decomposition and a least-squares fit."""

import numpy
import scipy.linalg

matrix = numpy.random.default_rng(0).normal(size=(1_600, 1_400))
left, values, right = scipy.linalg.svd(matrix)
solution, *_ = scipy.linalg.lstsq(matrix, left[:, 0])
print(left.shape, right.shape, round(float(values[0]), 4), round(float(solution.sum()), 4))
