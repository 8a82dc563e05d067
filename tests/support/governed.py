"""Whose memory NumPy's arrays have. Governed ones say `default_allocator`, as NumPy's own do."""

import ctypes

import numpy
import numpy.random

import memlimits

PLAIN, GOVERNED = "NumPy's", "memlimits'"


def owner(array):
    """Who allocated an array's data."""
    first = (ctypes.c_char * 1).from_address(array.ctypes.data)
    return GOVERNED if memlimits.get_array_buffer_size(first) else PLAIN


def owner_here():
    """Who allocates the data of new arrays, in this thread and context."""
    return owner(numpy.empty(3))
