"""Take arrays of 64 MiB until there are 1 GiB, all written; where one is refused, go on with half.

docs/comparison.md runs it under one limit after the other. --mlx takes MLX's arrays, under MLX's
own limit of 512 MiB, instead of NumPy's.
"""

import sys

import numpy as np

MIB = 1 << 20
ARRAYS, LENGTH = 16, 64 * MIB


def ones():
    return np.ones(LENGTH, np.uint8)


if "--mlx" in sys.argv[1:]:
    import mlx.core as mx

    mx.set_memory_limit(512 * MIB)

    def ones():
        array = mx.ones(LENGTH, mx.uint8)
        mx.eval(array)
        return array


arrays = []
try:
    while len(arrays) < ARRAYS:
        arrays.append(ones())
except MemoryError as error:
    print(f"refused after {len(arrays) * 64} MiB: {error}")
    print(*getattr(error, "__notes__", ["no note"]), sep="\n")
    del arrays[len(arrays) // 2 :]
taken = sum(int(array[::MIB].sum()) for array in arrays)
print(f"ended in order with {taken} MiB")
