"""h5py: data sets of a file are read and compared."""

import h5py

with h5py.File("grid.h5") as file:
    data = file["data"][:]
    part = file["data"][::2, ::2]
    print(data.shape, int(data.sum()), int((part - data[1::2, 1::2]).sum()))
