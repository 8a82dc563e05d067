"""pandas: two tables are merged and sorted."""

import numpy
import pandas

random = numpy.random.default_rng(0)
left = pandas.DataFrame({"key": random.permutation(600_000), "a": numpy.arange(600_000)})
right = pandas.DataFrame({"key": random.permutation(600_000), "b": numpy.arange(600_000.0)})
both = left.merge(right, on="key").sort_values(["b", "a"])
print(len(both), int((both.a * both.b).sum() % 1_000_003))
