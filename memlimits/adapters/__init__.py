"""Other libraries' memory, and other processes'.

`_numpy` is the C side of NumPy's handler, and arrays that own memlimits' memory: made over NumPy
when `govern_numpy`, `empty` or `zeros` is first used. `_python` stands in the place of CPython's
allocators; `_governing` is what ends either. `children` has Pythons that are started from here
govern themselves. `dask`, `jupyter`, over `_failed`, and `prometheus`, over `_figures` and
`_exposition`, are for the libraries that they are named after, and so is `mlx`. For pytest
(`memlimits.pytest`) `spans` are limits on what one part of a program takes, `turns` runs of it with
one request after the other refused, and `marks` what is asked for. Nothing else here but `_numpy`
imports a library that the program has not imported, and nothing in the rooms below names an
adapter.
"""

import sys

import memlimits
from memlimits import _modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def __getattr__(name: str) -> object:
    if name == "_process":
        return _modules.for_process()
    if name != "_numpy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_numpy("memlimits.adapters._numpy")
    return _modules.for_numpy()


def import_numpy(what: str) -> None:
    """Import NumPy for what needs it.

    Raises
    ------
    ImportError
        It is not installed.
    """
    error = memlimits._why_no_numpy()
    if error is not None:
        raise ImportError(f"{what} needs NumPy: pip install numpy") from error


def without_numpy(name: str) -> "Callable[..., Any]":
    """Return what stands for a function of `_numpy`'s: so the package can be looked through.

    Called, it raises an ImportError that says what to install. Once NumPy is there it does what
    it stands for.
    """

    def function(*arguments: "Any", **keywords: "Any") -> "Any":
        import_numpy(f"memlimits.{name}")
        return getattr(_modules.for_numpy(), name)(*arguments, **keywords)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "memlimits"
    function.__doc__ = f"Raise an ImportError: `{name}` needs NumPy, which is not installed."
    return function


def why_numpy_is_not_governed() -> str | None:
    """Say why what NumPy allocates here is not governed; None where it is, or without NumPy.

    Of the handlers that other libraries set, which NumPy keeps by context, it sees the caller's.
    """
    if "numpy._core._multiarray_umath" not in sys.modules:
        return None
    adapter = sys.modules.get("memlimits.adapters._numpy")
    if adapter is None or not adapter.governs(sys.modules["numpy._core._multiarray_umath"]):
        return "NumPy was imported, and is not governed: its arrays count towards no limit"
    if (name := adapter.other_handler()) is not None:
        return (
            f"NumPy's arrays here were allocated by the handler {name!r} of another library, "
            "and count towards no limit"
        )
    return None
