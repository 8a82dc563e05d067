# Functions as C would write them: the interpreter calls those directly.
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The documented getters, on the default allocator."""

from memlimits._bindings.allocator cimport get_default
from memlimits._engine.controls cimport core_active, core_cache_limit, core_cached, core_read
from memlimits._engine.core cimport Core


def get_memory_limit():
    """Return the memory limit, in bytes.

    After ``mlx.core.get_memory_limit``.
    """
    cdef Core *core = &get_default().core
    return core_read(core, &core.limits.memory_limit)


def get_cache_limit():
    """Return the cache limit, in bytes."""
    return core_cache_limit(&get_default().core)


def get_wired_limit():
    """Return the wired limit, in bytes."""
    cdef Core *core = &get_default().core
    return core_read(core, &core.limits.wired_limit)


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
    cdef Core *core = &get_default().core
    return core_read(core, &core.limits.peak)


def get_wired_memory():
    """Return the bytes now kept resident."""
    cdef Core *core = &get_default().core
    return core_read(core, &core.limits.wired)
