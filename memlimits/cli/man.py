"""``memlimits man``: manual pages, in roff, made of what the commands' own help is made of."""

import os

from memlimits.cli import texts
from memlimits.cli.errors import CommandError
from memlimits.cli.streams import put, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits man`` to its parser."""
    parser.description = "Print a manual page as roff, which man and mandoc show."
    parser.add_argument(
        "page",
        nargs="?",
        metavar="COMMAND",
        choices=tuple(texts.COMMANDS),
        help="whose page; that of memlimits as a whole unless given",
    )
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="write all pages there, memlimits.1 and so on; the folder is made if need be",
    )


def man(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits man`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    from memlimits.cli.roff import pages

    made = pages()
    if wanted.into is None:
        page = f"memlimits-{wanted.page}" if wanted.page else "memlimits"
        put(made[page])
        return
    if wanted.page is not None:
        raise CommandError(
            f"argument --into: it is for all pages, and {wanted.page} is one: leave either out"
        )
    try:
        os.makedirs(wanted.into, exist_ok=True)
        for name, text in made.items():
            with open(os.path.join(wanted.into, f"{name}.1"), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise CommandError(
            f"cannot write {error.filename!r}: {error.strerror}; choose another folder by --into"
        ) from None
    say(f"made {len(made)} pages in {wanted.into}")
