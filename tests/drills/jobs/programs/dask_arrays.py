"""Dask: a large array in chunks, on threads."""

import dask.array

numbers = dask.array.random.default_rng(0).random((4_000, 4_000), chunks=(1_000, 1_000))
centred = (numbers - numbers.mean(axis=0)) * 2
kept = centred.compute(scheduler="threads")
print(kept.shape, round(float(abs(kept).mean()), 3))
