"""NumPy: products and sums of matrices."""

import numpy

matrix = numpy.arange(400 * 400, dtype=float).reshape(400, 400) % 7
powers = [matrix]
for _ in range(130):
    powers.append(powers[-1] @ matrix % 7)
print(int(numpy.stack(powers).sum()))
