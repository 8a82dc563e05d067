"""Refuses to be imported in another interpreter than the main one.

The memory and its limits are the process's, and the objects of the compiled modules are those of
one interpreter. Without this the first that imports them would have them, and the main one not.
"""

import sys


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


if not _is_main():
    raise ImportError(
        "memlimits works in the main interpreter only, since the memory and its limits are the "
        "process's: import it there, and in worker processes instead of subinterpreters"
    )
