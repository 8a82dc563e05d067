"""Dask: lines of text in a bag, on threads."""

import dask.bag

lines = dask.bag.from_sequence(range(1_000_000), npartitions=16).map("line number {}".format)
kept = lines.map(str.upper).compute(scheduler="threads")
print(len(kept), len("".join(kept)))
