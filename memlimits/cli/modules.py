"""The modules that a program finds when it starts."""

import sys


def let_go_of_modules(known: "frozenset[str]") -> None:
    """Forget what was imported for us, so that the program gets its own modules of such names.

    The library stays: there is one allocator a process.

    Parameters
    ----------
    known : frozenset of str
        The modules that the interpreter had imported before.
    """
    for name in sys.modules.keys() - known:
        stays = name.startswith(_LIBRARY) and not name.startswith("memlimits.cli")
        if not stays and name not in sys.builtin_module_names:
            del sys.modules[name]


# And what Cython's modules share.
_LIBRARY = ("memlimits", "_cython_", "cython_runtime")
