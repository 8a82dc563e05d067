"""Refuses another interpreter than the main one, and warns of a Python that was not tested.

The memory and its limits are the process's, and the objects of the compiled modules are those of
one interpreter. Without this the first that imports them would have them, and the main one not.
"""

import sys

# t: without the GIL.
TESTED = ("3.11", "3.12", "3.13", "3.13t", "3.14", "3.15")


def _is_main() -> bool:
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


def warn_if_untested(tested: tuple[str, ...] = TESTED) -> None:
    """Warn, once, when the package is imported."""
    kind = "t" if "t" in sys.abiflags else ""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}{kind}"
    if python in tested:
        return
    import warnings

    # The first words are what a filter goes by: no category of ours is there before the import.
    warnings.warn(
        f"memlimits was not tested on Python {python}, only on {', '.join(tested)}; "
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
