"""Files that a command makes: whole, or not at all."""

import os
from contextlib import contextmanager, suppress

from memlimits.cli.errors import CommandError, OutputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

STANDARD = "-"


def check(name: str, *, force: bool, made_of: str) -> None:
    """Refuse a name under which nothing can be made, before anything is read.

    Raises
    ------
    CommandError
        There is something already, and it is not to be replaced: without `force`, or since it is
        what the new one is made of. Or the folder is not there.
    """
    if name == STANDARD:
        return
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{name}: there is no folder {folder}: make it before")
    if os.path.isdir(name):
        raise CommandError(f"{name}: it is a folder: write the name of a file in it")
    with suppress(OSError):
        if os.path.samefile(name, made_of):
            raise CommandError(f"{name}: it is the recording itself: write another name")
    if os.path.exists(name) and os.path.isfile(name) and not force:
        raise CommandError(f"{name}: it is there already: write --force to replace it")


@contextmanager
def output(name: str) -> "Iterator[BinaryIO]":
    """Yield a file that is there under its name once it is whole; "-" is standard output.

    Raises
    ------
    CommandError
        It cannot be written. There is nothing then, or what was there before.
    OutputError
        Standard output takes no more.
    """
    beside = None
    try:
        if name == STANDARD:
            with open(os.dup(1), "wb") as file:
                yield file
            return
        target = os.path.realpath(name)
        if os.path.exists(target) and not os.path.isfile(target):  # a device, a pipe
            with open(target, "wb") as file:
                yield file
            return
        beside = f"{target}.{os.getpid()}.tmp"
        with open(beside, "xb") as file:
            yield file
        os.replace(beside, target)
    except OSError as error:
        if name == STANDARD:
            raise OutputError(error) from None
        raise CommandError(
            f"cannot write {name}: {error.strerror or error}; name another file by -o"
        ) from None
    finally:
        if beside is not None:
            with suppress(OSError):
                os.unlink(beside)
