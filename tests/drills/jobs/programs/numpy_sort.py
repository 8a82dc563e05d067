"""NumPy: an array is sorted, and its unique values counted."""

import numpy

numbers = numpy.random.default_rng(0).integers(0, 1_000_000, 10_000_000)
values, counts = numpy.unique(numbers, return_counts=True)
order = numpy.argsort(numbers, kind="stable")
print(len(values), int(counts.max()), int(order[0]))
