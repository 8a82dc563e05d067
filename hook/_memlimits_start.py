"""What a Python runs as it starts, where memlimits is installed, and limits are asked for.

It lies beside the package, since to import that takes 3 ms: nobody pays them whose environment does
not ask for limits. PYTEST_DONT_REWRITE: it is there before pytest.
"""

import os
import sys

_NO_ROOM = b"memlimits: this process ends: its limits leave no room for a Python to start\n"


def main() -> None:
    """Govern this process if a Python above it had its children governed."""
    known = frozenset(sys.modules) - {__name__}
    # In a virtual environment Python 3.11 reads a .pth twice.
    if os.environ.get("MEMLIMITS_CHILDREN") and "memlimits.adapters.children" not in known:
        try:
            from memlimits.cli.inherit import inherit

            inherit(known)
        except MemoryError:
            # Where it goes on Python tells of it in hundreds of lines, and ends.
            os.write(2, _NO_ROOM)
            os._exit(1)
        except Exception as error:
            _say(error)
    sys.modules.pop(__name__, None)


def _say(error: Exception) -> None:
    """Say why this process is not governed, without what may be what failed."""
    # A subinterpreter starts like this one; the process is governed already.
    if isinstance(error, ImportError) and "main interpreter only" in str(error):
        return
    if sys.stderr is not None:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"memlimits: this process is not governed: {words}\n")
