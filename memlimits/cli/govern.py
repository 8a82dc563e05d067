"""How much of a program's memory ``memlimits run`` governs, or what starts below it."""

import os

import memlimits
from memlimits import _modules
from memlimits.adapters import children
from memlimits.cli import _imports
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Set while the command starts itself anew with more in LD_PRELOAD: the loader may look at none.
_STARTED_ANEW = "_MEMLIMITS_STARTED_ANEW"


def default() -> str:
    """Return the level where none is asked for."""
    # A forked child loses what lies in Metal's buffers.
    return "numpy" if memlimits.device_info()["backend"] == "metal" else "python"


def preloading(level: str, environ: "Mapping[str, str]") -> "dict[str, str] | None":
    """Return the variables to start anew with, for the loader to put a library before all others.

    None where it need not, or was asked to already.
    """
    if level != "all" or _STARTED_ANEW in environ or children.is_preloaded(environ):
        return None
    anew = dict(environ)
    children.preload(anew)
    return {**anew, _STARTED_ANEW: "1"} if children.is_preloaded(anew) else None


def put_in_force(level: str) -> str:
    """Have as much be governed from now on, for good; return what is."""
    os.environ.pop(_STARTED_ANEW, None)
    if level == "all":
        level = _govern_malloc()
    if level != "numpy" and not _govern_python():
        level = "numpy"
    if not _imports.when_imported(_govern_numpy, _govern_for_jax):
        _govern_numpy()
    return level


def _govern_malloc() -> str:
    why_not = _modules.for_process().take_part()
    if why_not is not None:
        say(f"malloc is not governed: {why_not}; as with --govern python")
        return "python"
    # Its own allocators go past malloc.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    return "all"


def _govern_python() -> bool:
    try:
        memlimits.govern_python()
    except RuntimeError as error:
        say(f"Python's objects are not governed: {error}")
        return False
    return True


def _govern_numpy() -> None:
    """Have NumPy, which was just imported, allocate here for good."""
    try:
        memlimits.govern_numpy()
    except Exception as error:
        say(f"NumPy is not governed: {type(error).__name__}: {error}")


def _govern_for_jax() -> None:
    """Have arrays start where JAX, which is being imported, copies them."""
    memlimits.govern_numpy(aligned=False)
