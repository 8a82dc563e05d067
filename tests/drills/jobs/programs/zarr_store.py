"""zarr: a compressed array in memory."""

import numpy
import zarr

noise = numpy.random.default_rng(0).integers(0, 1_000_000, (3_000, 3_000))
array = zarr.create_array(zarr.storage.MemoryStore(), data=noise, chunks=(500, 500))
print(array.shape, int(array[:].sum()))
