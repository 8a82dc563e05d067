"""What may have been meant by a word that is not known."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def meant(word: str, names: "Iterable[str]") -> str:
    """Return a question after the most similar of the names, to end a message; empty for none."""
    from difflib import get_close_matches

    # What all begin with makes none of them more similar.
    inner = {name.removeprefix("MEMLIMITS_").lstrip("-"): name for name in names}
    near = get_close_matches(word.removeprefix("MEMLIMITS_").lstrip("-"), inner, 1)
    return f" (did you mean {inner[near[0]]}?)" if near else ""
