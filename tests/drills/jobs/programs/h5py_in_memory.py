"""h5py: a data set in a file in memory, written and read back in chunks."""

import h5py
import numpy

with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
    shape = (4_000, 4_000)
    data = file.create_dataset("data", shape, "f8", chunks=(500, 500), shuffle=True)
    for row in range(0, shape[0], 500):
        data[row : row + 500] = numpy.arange(row, row + 500)[:, None]
    print(data.shape, int(data[::2].sum()))
