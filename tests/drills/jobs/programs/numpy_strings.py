"""NumPy: strings of any length (StringDType)."""

import numpy

words = [f"a rather long word with the number {number}" for number in range(400_000)]
array = numpy.array(words, numpy.dtypes.StringDType())
upper = numpy.strings.upper(numpy.concatenate([array, array]))
print(len(upper), int(numpy.strings.str_len(upper).sum()))
