"""What a Python does that starts below one whose children are governed."""

import atexit
import os
import sys

import memlimits
from memlimits import _modules
from memlimits.adapters import children
from memlimits.cli import govern, record
from memlimits.cli.children import leave_tree
from memlimits.cli.modules import let_go_of_modules
from memlimits.cli.streams import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inherit(known: "frozenset[str]") -> None:
    """Govern this process, which just starts, by the settings in its environment.

    What is wrong is said in a line, and the process goes on.

    Parameters
    ----------
    known : frozenset of str
        The modules that the interpreter had imported before. Others are let go of again, but for
        the library.
    """
    try:
        settings = children.read(os.environ[children.VARIABLE])
    except ValueError as error:
        say(f"variable {children.VARIABLE}: {error}; this process is not governed")
    else:
        children.inherited = settings
        try:
            _apply(settings)
            govern.put_in_force(settings.get("level", "numpy"))
        except MemoryError:
            raise
        except Exception as error:
            say(f"this process is not governed in full: {type(error).__name__}: {error}")
    let_go_of_modules(known)


def _apply(settings: "dict[str, Any]") -> None:
    notes = _modules.for_notes()
    notes.put_on()
    notes.note_stderr()
    notes.say_at_once(not settings.get("quiet") and sys.__stderr__ is not None)
    if "count" in settings:
        memlimits.set_memory_count(settings["count"])
    if "cache_limit" in settings:
        memlimits.set_cache_limit(settings["cache_limit"])
    if "memory_limit" in settings:
        memlimits.set_memory_limit(settings["memory_limit"])
    if "policy" in settings:
        waits = settings["policy"] == "wait"
        memlimits.set_memory_policy(settings["policy"], settings.get("timeout") if waits else None)
    if settings.get("holders"):
        memlimits.set_holder_sampling(settings["holders"])
    if "record" in settings:
        record.join(settings["record"])
    if "pool" in settings:
        _join(settings["pool"])


def _join(path: str) -> None:
    try:
        memlimits.pools.join_tree(path)
    except OSError as error:
        say(f"this process has the limits for itself alone: {error}")
        return
    atexit.register(leave_tree, path)
