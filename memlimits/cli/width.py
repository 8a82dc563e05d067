"""Text in the cells of a terminal, of which a character takes none, one or two."""

import unicodedata


def width_of(text: str) -> int:
    """Return how many cells a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return a text in just so many cells: cut, with a "+" where that was done, or padded."""
    if width_of(text) > width:
        text = _cut(text, width - 1) + "+" if width > 0 else ""
    padding = " " * (width - width_of(text))
    return padding + text if right else text + padding


def _cut(text: str, width: int) -> str:
    taken = 0
    for place, character in enumerate(text):
        taken += _cells(character)
        if taken > width:
            return text[:place]
    return text


def _cells(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me") else 1
