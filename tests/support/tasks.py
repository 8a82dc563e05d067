"""What workers of Dask are given to do, which they import from here by name."""


def filled(nbytes):
    import numpy

    return int(numpy.ones(nbytes, "u1").sum(dtype="u8"))


def too_much(_mark):
    """Take 16 MiB and 16 more, as a task that does not end."""
    import numpy

    parts = []
    while True:
        parts.append(numpy.ones(16 << 20, "u1"))


def in_little_parts(mark):
    """Until there is nothing left for whoever else needs an array."""
    import numpy

    parts = []
    while True:
        parts.append(numpy.ones(100_000 + mark, "u1"))


def beside_objects(mark):
    """Past the limit by what is not refused, and no idle block is as long as the array."""
    import numpy

    held = b"x" * (120 << 20)
    return numpy.ones(30_000_000 + mark + len(held) % 2, "u1")


def pid():
    import os

    return os.getpid()


def settings():
    import memlimits

    return (
        memlimits.get_memory_limit(),
        str(memlimits.get_memory_policy()),
        memlimits.get_memory_count(),
    )


def idle_after(nbytes):
    import numpy

    import memlimits

    numpy.ones(nbytes, "u1")
    return memlimits.get_cache_memory()
