"""What may have been meant by a word that is not known."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def meant(word: str, names: "Iterable[str]") -> str:
    """Return a question after the most similar of the names, to end a message; empty for none."""
    from difflib import get_close_matches

    # What all begin with makes none of them more similar.
    inner = {name.removeprefix("MEMLIMITS_").lstrip("-"): name for name in names}
    plain = word.removeprefix("MEMLIMITS_").lstrip("-")
    # What is a part of the word, or begins with it, comes before what is as long.
    parts = [name for name in inner if len(name) > 2 and (name in plain or name.startswith(plain))]
    near = parts[:1] if len(plain) > 2 and parts else get_close_matches(plain, inner, 1)
    return f" (did you mean {inner[near[0]]}?)" if near else ""
