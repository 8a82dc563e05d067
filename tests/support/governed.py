"""Whose memory NumPy's arrays have: NumPy itself says so."""

import numpy
import numpy.random  # else imported where first used, and its own arrays would be governed
from numpy._core.multiarray import get_handler_name

PLAIN, GOVERNED = "default_allocator", "memlimits"


def handler_here():
    """The name of the handler that new arrays get, in this thread and context."""
    return get_handler_name(numpy.empty(3))
