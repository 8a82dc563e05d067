"""Whose memory NumPy's arrays have. Governed ones say `default_allocator`, as NumPy's own do."""

import numpy
import numpy.random

from memlimits.adapters import _numpy

PLAIN, GOVERNED = "NumPy's", "memlimits'"


def owner(array):
    """Who allocated an array's data."""
    return GOVERNED if _numpy.has_our_memory(array) else PLAIN


def owner_here():
    """Who allocates the data of new arrays, in this thread and context."""
    return owner(numpy.empty(3))
