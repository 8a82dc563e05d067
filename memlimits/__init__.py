"""Memory, cache and wired limits for unified memory, enforced, with NumPy inside them.

PYTEST_DONT_REWRITE: below ``memlimits run`` it is imported before pytest.
"""

import sys

# ---- before all else: the interpreter ----

# t: without the GIL.
_TESTED = ("3.11", "3.12", "3.13", "3.13t", "3.14", "3.15")


def _is_main() -> bool:
    """Whether this is the main interpreter.

    The memory and its limits are the process's, and the objects of the compiled modules are those
    of one interpreter: without this the first that imports them would have them.
    """
    if sys.version_info >= (3, 12):
        from _thread import _is_main_interpreter  # type: ignore[attr-defined]

        return bool(_is_main_interpreter())
    import _signal  # type: ignore[import-not-found]

    try:
        _signal.signal(0, 0)
    except ValueError as error:
        # What runs the signals' handlers learns that there is no such signal.
        if "main interpreter" not in str(error):
            return True
    import _xxsubinterpreters  # type: ignore[import-not-found]

    return bool(_xxsubinterpreters.get_current() == _xxsubinterpreters.get_main())


def _warn_if_untested() -> None:
    kind = "t" if "t" in sys.abiflags else ""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}{kind}"
    if python in _TESTED:
        return
    import warnings

    # The first words are what a filter goes by: no category of ours is there before the import.
    warnings.warn(
        f"memlimits was not tested on Python {python}, only on {', '.join(_TESTED)}; "
        "in a clone, sh tests/run.sh does. To go without this warning: "
        '-W "ignore:memlimits was not tested"',
        RuntimeWarning,
        stacklevel=3,
    )


if not _is_main():
    raise ImportError(
        "memlimits works in the main interpreter only, since the memory and its limits are the "
        "process's: import it there, and in worker processes instead of subinterpreters"
    )

# ---- what there is ----

from memlimits import _modules
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
    get_holder_sampling,
    get_idle_action,
    get_idle_timeout,
    get_memory_count,
    get_memory_limit,
    get_memory_policy,
    get_peak_memory,
    get_wired_limit,
    get_wired_memory,
    holders,
    last_refusal,
    limits,
    refusal_snapshot,
    reserve,
    reset_peak_memory,
    set_cache_limit,
    set_holder_sampling,
    set_idle_timeout,
    set_memory_count,
    set_memory_limit,
    set_memory_policy,
    set_refusal_snapshots,
    set_wired_limit,
    snapshot,
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
    from memlimits import cuda as cuda
    from memlimits import metal as metal
    from memlimits import pools as pools
    from memlimits import processes as processes
    from memlimits import recording as recording
    from memlimits.adapters._numpy import empty, govern_numpy, zeros
    from memlimits.adapters._process import govern_malloc
    from memlimits.adapters._python import govern_python
    from memlimits.adapters.children import govern_children
    from memlimits.pools import join

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
    "get_holder_sampling",
    "get_idle_action",
    "get_idle_timeout",
    "get_include",
    "get_memory_count",
    "get_memory_limit",
    "get_memory_policy",
    "get_peak_memory",
    "get_pressure_trim",
    "get_wired_limit",
    "get_wired_memory",
    "govern_children",
    "govern_malloc",
    "govern_numpy",
    "govern_python",
    "holders",
    "join",
    "last_refusal",
    "limits",
    "refusal_snapshot",
    "reserve",
    "reset_peak_memory",
    "set_cache_limit",
    "set_holder_sampling",
    "set_idle_timeout",
    "set_memory_count",
    "set_memory_limit",
    "set_memory_policy",
    "set_pressure_trim",
    "set_refusal_snapshots",
    "set_wired_limit",
    "snapshot",
    "stats",
    "trim",
    "unwire",
    "wire",
    "would_fit",
    "zeros",
]


def get_include() -> str:
    """Return the directory of ``memlimits.h``, for a C extension.

    Cython code needs none: ``cimport memlimits`` has the same functions.

    Returns
    -------
    str
        For the include directories of the compiler.

    See Also
    --------
    allocate : the same from Python.

    Examples
    --------
    >>> import memlimits, os
    >>> os.listdir(memlimits.get_include())
    ['memlimits.h']
    """
    return f"{__path__[0]}/include"


def load_ipython_extension(shell: object) -> None:
    """Add the magics, as ``%load_ext memlimits`` asks for. Called by IPython."""
    from memlimits.adapters import jupyter

    jupyter.load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Take them out again, as ``%unload_ext memlimits`` asks for. Called by IPython."""
    from memlimits.adapters import jupyter

    jupyter.unload(shell)


_NEEDS_NUMPY = ("empty", "govern_numpy", "zeros")


def _why_no_numpy() -> "ModuleNotFoundError | None":
    """Import NumPy, if there is one, before what is made over it: no Python runs meanwhile."""
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "numpy":  # one that is there and lacks something
            raise
        return error
    return None


def _numpy_is_there() -> bool:
    return _why_no_numpy() is None


def __getattr__(name: str) -> object:
    """Import what not every program needs when it is first used.

    What is documented opens no file for that but NumPy's, and those of `memlimits.cuda` and
    `memlimits.metal`.
    """
    if name == "cuda":
        import memlimits.cuda

        return memlimits.cuda
    if name == "metal":
        import memlimits.metal

        return memlimits.metal
    if name == "processes":
        import memlimits.processes

        return memlimits.processes
    if name == "recording":
        import memlimits.recording

        return memlimits.recording
    if name in ("join", "pools"):
        import memlimits.pools

        return memlimits.pools if name == "pools" else memlimits.pools.join
    if name in ("_bindings", "_device"):  # their modules are there: this is for who looks inside
        room = __import__(f"memlimits.{name}", fromlist=["*"])
        for module in _modules.MADE:
            if module.startswith(f"{name}."):
                setattr(room, module.rpartition(".")[2], sys.modules[f"memlimits.{module}"])
        return room
    if name == "govern_children":
        from memlimits.adapters import children

        globals()[name] = children.govern_children
        return globals()[name]
    if name == "govern_malloc":
        globals()[name] = _modules.for_process().govern_malloc
        return globals()[name]
    if name == "govern_python":
        globals()[name] = _modules.for_python().govern_python
        return globals()[name]
    if name not in _NEEDS_NUMPY:
        raise AttributeError(f"module 'memlimits' has no attribute {name!r}")
    if not _numpy_is_there():
        from memlimits import adapters

        return adapters.without_numpy(name)
    adapter = _modules.for_numpy()
    globals().update({needed: getattr(adapter, needed) for needed in _NEEDS_NUMPY})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(
        {*globals(), *__all__, "cuda", "metal", "pools", "processes", "recording"}
        - {"TYPE_CHECKING", "sys"}
    )


_warn_if_untested()
