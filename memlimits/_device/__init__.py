"""The device: where memory comes from, over the C library in objc/.

`mlim` is objc/mlim.h word for word; whoever makes, destroys, discards, resizes or wires a buffer,
or makes it purgeable, calls it, and holds none of the heaps' locks. `readings` are the calls that
read the system's files, under the lock that a fork takes: nobody else calls those of `mlim`. The
turn that a process takes in a control group (`mlim_device_claim`) is kept from a fork by
`Core.claims`. `device` is the device as Python sees it, the one place where a status becomes an
exception. `shared` is objc/shared.h: a file that processes map together, which is of no device.
`page` is objc/page.h: what a process tells others of itself.
"""
