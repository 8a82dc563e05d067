"""Limits for every Python below this one, through the environment and one hook at start-up.

The variable has ``key=value`` pairs with ``;`` between them: to import json would take as long as
all the rest. Who writes it calls `pass_on`. In a Python that starts with it the hook runs, which is
``hook/memlimits.pth`` in the sources, and `memlimits.cli.inherit` does what it says.
"""

import os
import sys

import memlimits
from memlimits import _modules
from memlimits._bindings.allocator import COUNTS, POLICIES
from memlimits.errors import NO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from typing import Any

VARIABLE = "MEMLIMITS_CHILDREN"
# Each governs what those before it do, and more.
LEVELS = ("numpy", "python", "all")
_LIBRARY = os.path.join(os.path.dirname(memlimits.__file__), "lib", "libinterpose.so")
_HOOKS = ("memlimits.pth", "memlimits.start") if sys.version_info >= (3, 15) else ("memlimits.pth",)

# What this process was started with, and governed by; None where it was not. To be set.
inherited: "dict[str, Any] | None" = None


def govern_children() -> None:
    """Have every Python that is started from here on govern itself by the limits as they are now.

    It copies the memory limit, the cache limit if it was set, the policy and its timeout, what the
    limit is on, and what is governed here, into the variable ``MEMLIMITS_CHILDREN`` of this
    process's environment. A Python that starts with that, and has memlimits installed, sets the
    same: however it is started, by ``subprocess``, multiprocessing's ``spawn`` and ``forkserver``,
    loky, ``os.exec*`` or a shell, and likewise those below it. Whatever is set here later needs
    another call, and reaches only what is started after that.

    In such a child NumPy's arrays are governed once NumPy is imported; Python's objects if they are
    here (`govern_python`), and what libraries get from malloc if that is (`govern_malloc`), for
    which ``LD_PRELOAD`` stays in the environment. A `MemoryError` there has the note that it has
    here.

    The limit is each process's own: two children have twice as much. The wired limit, budgets and
    reservations are not passed on. A forked child has what its parent has, as without this call.

    Raises
    ------
    RuntimeError
        Pythons that start do not look for memlimits: it is imported from a folder into which it was
        not installed, or this interpreter runs without `site`, as under ``-S``.

    See Also
    --------
    govern_numpy, govern_python, govern_malloc : for this process.

    Notes
    -----
    On Metal only NumPy's arrays are governed. A child in which something is wrong, such as a
    variable that it cannot read, says so in one line on standard error, and goes on.

    ``memlimits run`` does this for the program that it runs.

    Examples
    --------
    The workers of a program, each within 2 GiB::

        memlimits.set_memory_limit(2 << 30)
        memlimits.set_memory_policy("strict")
        memlimits.govern_numpy()
        memlimits.govern_python()
        memlimits.govern_children()
        with multiprocessing.get_context("spawn").Pool() as pool:
            pool.map(work, files)
    """
    if not hook_is_there():
        raise RuntimeError(
            f"a Python that starts would not be governed: {_HOOKS[-1]} is in no folder in which "
            "this interpreter looks for such files; install memlimits with pip (of a source tree: "
            "pip install -e .), and run without -S"
        )
    pass_on(_level_here())


def hook_is_there() -> bool:
    """Tell whether a Python that this interpreter starts runs the hook."""
    if sys.flags.no_site:
        return False
    return any(os.path.exists(os.path.join(folder, name)) for folder in sys.path for name in _HOOKS)


def pass_on(
    level: str, *, quiet: bool = False, pool: "str | None" = None, record: "str | None" = None
) -> None:
    """Put the settings as they are now into the environment, for what is started from here on.

    Parameters
    ----------
    level : {"numpy", "python", "all"}
        How much of a child's memory is governed.
    quiet : bool
        Write no refusals of C code to standard error there.
    pool : str, optional
        The file of the pool that they are to join.
    record : str, optional
        The file by which they are recorded.
    """
    limit = memlimits.get_memory_limit()
    policy = memlimits.get_memory_policy()
    settings = {"memory_limit": str(limit)}
    # One that follows the memory limit does so there, too.
    if (cache := memlimits.get_cache_limit()) != limit:
        settings["cache_limit"] = str(cache)
    settings["policy"] = str(policy)
    if policy == "wait":
        settings["timeout"] = repr(policy.timeout)  # type: ignore[attr-defined]
    settings["count"] = str(memlimits.get_memory_count())
    settings["holders"] = str(memlimits.get_holder_sampling() or 0)
    settings["level"] = level
    if quiet:
        settings["quiet"] = "1"
    for key, path in (("pool", pool), ("record", record)):
        if path is not None:
            settings[key] = path.replace("%", "%25").replace(";", "%3B")
    os.environ[VARIABLE] = ";".join(f"{key}={value}" for key, value in settings.items())
    if level == "all":
        preload(os.environ)


def preload(environ: "MutableMapping[str, str]") -> None:
    """Have the loader put our library before all others, after what it puts there already."""
    if may_be_preloaded() and not is_preloaded(environ):
        before = environ.get("LD_PRELOAD")
        environ["LD_PRELOAD"] = f"{before}:{_LIBRARY}" if before else _LIBRARY


def preload_no_more(environ: "MutableMapping[str, str]") -> None:
    """Take our library out of what the loader puts before all others; what else it does stays."""
    if not is_preloaded(environ):
        return
    words = [word for word in _preloaded(environ) if word != _LIBRARY]
    if words:
        environ["LD_PRELOAD"] = ":".join(words)
    else:
        del environ["LD_PRELOAD"]


def is_preloaded(environ: "Mapping[str, str]") -> bool:
    """Tell whether the loader is asked for our library."""
    return _LIBRARY in _preloaded(environ)


def _preloaded(environ: "Mapping[str, str]") -> "list[str]":
    # The loader takes spaces and colons alike.
    return environ.get("LD_PRELOAD", "").replace(":", " ").split()


def may_be_preloaded() -> bool:
    """Tell whether there is such a library, and the loader takes its path for one."""
    return os.path.exists(_LIBRARY) and " " not in _LIBRARY and ":" not in _LIBRARY


def _level_here() -> str:
    if _modules.for_process().governs():
        return "all"
    return "python" if _modules.for_python().governs() else "numpy"


# ---- in a Python that starts ----


def read(text: str) -> "dict[str, Any]":
    """Read the variable; keys that this version does not know are passed over.

    Raises
    ------
    ValueError
        It is malformed. The message has what is, the rule and the way out.
    """
    settings: dict[str, Any] = {}
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(
                f"invalid pair {pair!r}: write key=value pairs with ; between them, such as "
                "memory_limit=1073741824;policy=strict, or unset it"
            )
        if key not in _READERS:
            continue
        reader, rule = _READERS[key]
        try:
            settings[key] = reader(value)
        except ValueError:
            raise ValueError(f"invalid {key} {value!r}: write {rule}, or unset it") from None
    return settings


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2 * NO_LIMIT:
        raise ValueError
    return int(text)


# As set_holder_sampling takes them.
LEAST_SAMPLE = 1 << 12
MOST_SAMPLE = 1 << 40


def _samples(text: str) -> int:
    every = _bytes(text)
    if every and not LEAST_SAMPLE <= every <= MOST_SAMPLE:
        raise ValueError
    return every


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 1_000_000_000:
        raise ValueError
    return seconds


def _path(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError
    return text.replace("%3B", ";").replace("%25", "%")


def _one_of(words: "tuple[str, ...]") -> "tuple[Callable[[str], str], str]":
    def reader(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return reader, f"one of {', '.join(words)}"


_READERS: "dict[str, tuple[Callable[[str], Any], str]]" = {
    "memory_limit": (_bytes, "bytes, from 0 to 2**64 - 1"),
    "cache_limit": (_bytes, "bytes, from 0 to 2**64 - 1"),
    "policy": _one_of(tuple(POLICIES)),
    "timeout": (_seconds, "seconds, from 0 to 1000000000"),
    "count": _one_of(tuple(COUNTS)),
    "level": _one_of(LEVELS),
    "holders": (_samples, "0 for nobody, or bytes from 4096 to 2**40"),
    "quiet": _one_of(("0", "1")),
    "pool": (_path, "the path of a file"),
    "record": (_path, "the path of a file"),
}
