"""Other libraries' memory, and other processes'.

`_numpy` is the C side of NumPy's handler, and arrays that own memlimits' memory: made over NumPy
when `govern_numpy`, `empty` or `zeros` is first used. `_python` stands in the place of CPython's
allocators; `_governing` is what ends either. `children` has Pythons that are started from here
govern themselves. `dask`, `jupyter`, over `_failed`, and `prometheus`, over `_figures` and
`_exposition`, are for the libraries that they are named after. For pytest (`memlimits.pytest`)
`spans` are limits on what one part of a program takes, `turns` runs of it with one request after
the other refused, and `marks` what is asked for. Nothing else here but `_numpy` imports a library
that the program has not imported, and nothing in the rooms below names an adapter.
"""

import sys

from memlimits import _modules


def __getattr__(name: str) -> object:
    if name == "_process":
        return _modules.for_process()
    if name != "_numpy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy  # noqa: F401 - before what is made over it

    return _modules.for_numpy()


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
