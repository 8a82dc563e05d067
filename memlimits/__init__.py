"""Memory, cache and wired limits for unified memory, enforced, with NumPy inside them."""

from memlimits import _interpreter, _modules  # the first refuses other interpreters
from memlimits.errors import DeviceError, MemoryLimitError, WiredLimitError
from memlimits.memory import (
    Budget,
    Buffer,
    Fit,
    Reservation,
    allocate,
    budget,
    clear_cache,
    device_info,
    get_active_memory,
    get_array_buffer_size,
    get_cache_limit,
    get_cache_memory,
    get_idle_action,
    get_idle_timeout,
    get_memory_limit,
    get_memory_policy,
    get_peak_memory,
    get_wired_limit,
    get_wired_memory,
    last_refusal,
    limits,
    reserve,
    reset_peak_memory,
    set_cache_limit,
    set_idle_timeout,
    set_memory_limit,
    set_memory_policy,
    set_wired_limit,
    stats,
    unwire,
    wire,
    would_fit,
)
from memlimits.system import (
    auto_trim,
    effective_limit,
    get_pressure_trim,
    set_pressure_trim,
    trim,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits import metal as metal
    from memlimits.adapters._numpy import empty, govern_numpy, zeros

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Buffer",
    "DeviceError",
    "Fit",
    "MemoryLimitError",
    "Reservation",
    "WiredLimitError",
    "allocate",
    "auto_trim",
    "budget",
    "clear_cache",
    "device_info",
    "effective_limit",
    "empty",
    "get_active_memory",
    "get_array_buffer_size",
    "get_cache_limit",
    "get_cache_memory",
    "get_idle_action",
    "get_idle_timeout",
    "get_include",
    "get_memory_limit",
    "get_memory_policy",
    "get_peak_memory",
    "get_pressure_trim",
    "get_wired_limit",
    "get_wired_memory",
    "govern_numpy",
    "last_refusal",
    "limits",
    "reserve",
    "reset_peak_memory",
    "set_cache_limit",
    "set_idle_timeout",
    "set_memory_limit",
    "set_memory_policy",
    "set_pressure_trim",
    "set_wired_limit",
    "stats",
    "trim",
    "unwire",
    "wire",
    "would_fit",
    "zeros",
]


def get_include() -> str:
    """Return the directory of ``memlimits.h``, for the include directories of a C extension.

    Cython code needs none: ``cimport memlimits`` has the same functions.
    """
    return f"{__path__[0]}/include"


_NEEDS_NUMPY = ("empty", "govern_numpy", "zeros")


def __getattr__(name: str) -> object:
    """Import what not every program needs when it is first used.

    No file but NumPy's, and those of `memlimits.metal`, is opened for that.
    """
    if name == "metal":
        import memlimits.metal

        return memlimits.metal
    if name not in _NEEDS_NUMPY:
        raise AttributeError(f"module 'memlimits' has no attribute {name!r}")
    import numpy  # noqa: F401 - before what is made over it: no Python runs while that is

    adapter = _modules.for_numpy()
    globals().update({needed: getattr(adapter, needed) for needed in _NEEDS_NUMPY})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "metal"} - {"TYPE_CHECKING"})


_interpreter.warn_if_untested()
