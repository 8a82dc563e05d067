"""What a small program and its run need."""

from typing import NamedTuple


class Program(NamedTuple):
    """A source, and how it is run."""

    source: str | bytes
    options: tuple[str, ...] = ()  # the interpreter's
    words: tuple[str, ...] = ()
    stdin: bytes = b"one\ntwo\n"
    env: tuple[tuple[str, str], ...] = ()
    how: str = "script"  # or "module", "code", "stdin"; or "words", which say it all
    shell: str = ""  # what a shell does first
