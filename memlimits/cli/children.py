"""What can be told of child processes when the program has ended."""

import os
import sys

# Each is imported when the first process is started that way.
_STARTED_ANEW = (
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.popen_forkserver",
    "loky.backend.popen_loky_posix",
)


def why_children_are_not_governed() -> "str | None":
    """Say that Pythons were not governed which were started below this one, or may have been.

    A forked child is governed. None where no other has run, as far as can be told: a child that
    took next to no time, or runs on, is not seen.
    """
    if any(name.endswith(_STARTED_ANEW) for name in sys.modules):
        return "worker processes were started anew (spawn, forkserver, loky), not governed"
    times = os.times()
    # Without this one a program can but fork, or use os.system and the like.
    if "_posixsubprocess" in sys.modules and times.children_user + times.children_system > 0:
        return "child processes ran: a Python among them that was not forked was not governed"
    return None
