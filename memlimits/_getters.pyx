# Functions as C would write them: the interpreter calls those directly.
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The documented getters, on the default allocator."""

from memlimits._allocator cimport get_default
from memlimits._core cimport core_active, core_cached, core_settings
from memlimits._limits cimport Limits, limits_cache_limit


def get_memory_limit():
    """Return the memory limit, in bytes.

    After ``mlx.core.get_memory_limit``.
    """
    return core_settings(&get_default().core).memory_limit


def get_cache_limit():
    """Return the cache limit, in bytes."""
    cdef Limits limits = core_settings(&get_default().core)
    return limits_cache_limit(&limits)


def get_wired_limit():
    """Return the wired limit, in bytes."""
    return core_settings(&get_default().core).wired_limit


def get_active_memory():
    """Return the bytes in callers' hands, counted at the capacity of their blocks.

    After ``mlx.core.get_active_memory``.
    """
    return core_active(&get_default().core)


def get_cache_memory():
    """Return the idle bytes kept for reuse, which `clear_cache` would return.

    After ``mlx.core.get_cache_memory``.
    """
    return core_cached(&get_default().core)


def get_peak_memory():
    """Return the highest active memory, in bytes, since the start or `reset_peak_memory`.

    After ``mlx.core.get_peak_memory``.
    """
    return core_settings(&get_default().core).peak


def get_wired_memory():
    """Return the bytes now kept resident."""
    return core_settings(&get_default().core).wired
