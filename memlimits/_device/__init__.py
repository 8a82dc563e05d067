"""The device: where memory comes from, over the C library in objc/.

`mlim` is objc/mlim.h word for word; whoever makes, destroys, discards, resizes or wires a buffer
calls it, under no lock but `Residency.mutex`. `readings` are the calls that read the system's
files, under the lock that a fork takes: nobody calls those of `mlim`. `device` is the device as
Python sees it, the one place where a status becomes an exception.
"""
