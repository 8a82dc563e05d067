"""Sizes as people write them, and as they read them."""

from memlimits.errors import NO_LIMIT
from memlimits.figures import SIZES, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsIndex

__all__ = [
    "FORM", "format_exact", "format_limit", "format_size", "in_bytes", "parse_size", "show"
]  # fmt: skip

# Statistics, and facts of the device.
_IN_BYTES = SIZES | {
    "memory_size",
    "max_recommended_working_set_size",
    "max_buffer_length",
    "wired_capacity",
}

FORM = "512MiB, 2GB, 1.5GiB, 50% (of the memory size), 512M (for MiB), 2097152B, infinity or max"

# The largest signed 64-bit number.
_MAXIMUM = 2**63 - 1

# A letter alone is binary, as Docker and systemd have it.
_BYTES: "dict[str, int]" = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}i": 1024**power for power, prefix in enumerate("kmgt", start=1)},
    **{prefix: 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_DIGITS = frozenset("0123456789")
_MOST_DIGITS = 19  # No number needs more on either side of its point.
_LONGEST_SHOWN = 60


def _memory_size() -> int:
    from memlimits.memory import device_info  # which imports this

    size = device_info()["memory_size"]
    assert isinstance(size, int)
    return size


def in_bytes(size: "SupportsIndex | str", name: str) -> int:
    """Turn an argument into bytes: an integer, or a size such as ``"2GiB"``.

    Parameters
    ----------
    size : int or str
        Bytes, whatever they are; or what `parse_size` takes.
    name : str
        The argument's, for the message.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    TypeError, ValueError
        It is neither. The message names it, and shows the form.
    """
    if isinstance(size, str):
        try:
            return parse_size(size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(
            f"{name} must be an integer, in bytes, or a size such as '2GiB', not {size!r}"
        )
    return size.__index__()


def parse_size(text: str, memory_size: "Callable[[], int]" = _memory_size) -> int:
    """Turn a size such as ``1.5GiB`` into bytes.

    Parameters
    ----------
    text : str
        A number and a unit, in any case and with or without a space between them: ``B``, ``KB``,
        ``MB``, ``GB``, ``TB`` (powers of 1000), ``KiB`` or ``Ki`` or ``K``, ``MiB``, ``GiB``,
        ``TiB`` and so on (powers of 1024), ``%`` (of the memory size, at most 100), or no unit for
        bytes, of which there must be none or at least 1 MiB. Only a number of bytes must be whole.
        ``infinity`` and ``max`` bound nothing.
    memory_size : callable
        Returns what 100 % is, in bytes; called for a percentage only. By default that of
        `memlimits.device_info`.

    Returns
    -------
    int
        Bytes, rounded down: a limit never comes out above what was written.

    Raises
    ------
    ValueError
        The text is no such size, or is more than 2**63 - 1 bytes. The message shows the form.
    """
    if text.lower() in ("infinity", "max"):
        return NO_LIMIT
    whole, fraction, unit = _split(text)
    # The number is a fraction of two integers, which keeps it exact.
    number = int(whole + fraction)
    one: int = 10 ** len(fraction)
    if unit == "%":
        if number > 100 * one:
            raise _invalid(text, "more than 100%: ")
        return number * memory_size() // (100 * one)
    scale = _BYTES.get(unit or "b")
    if scale is None or (scale == 1 and fraction):
        raise _invalid(text)
    size = number * scale // one
    if size > _MAXIMUM:
        raise _invalid(text, "more than 2**63 - 1 bytes: ")
    if not unit and 0 < size < 1 << 20:
        raise ValueError(f"{text} bytes, or MiB? Write {size}B or {size}MiB")
    return size


def _split(text: str) -> "tuple[str, str, str]":
    """Return the digits before a point and after it, and the unit in small letters."""
    length = 0
    while length < len(text) and (text[length] in _DIGITS or text[length] == "."):
        length += 1
    whole, point, fraction = text[:length].partition(".")
    unit = text[length:].removeprefix(" ")
    if len(whole) > _MOST_DIGITS and "." not in fraction:
        raise _invalid(text, "more than 2**63 - 1 bytes: ")
    if (
        not whole
        or len(fraction) > _MOST_DIGITS
        or "." in fraction
        or bool(point) != bool(fraction)
        or not unit.isascii()
        or (not unit and len(text) > length)
    ):
        raise _invalid(text)
    return whole, fraction, unit.lower()


def _invalid(text: str, why: str = "") -> ValueError:
    shown = repr(text[:_LONGEST_SHOWN]) + "..." * (len(text) > _LONGEST_SHOWN)
    return ValueError(f"invalid size {shown}: {why}write it as {FORM}")


def format_limit(limit: "int | None") -> str:
    """Show a limit as `format_size` does, or that there is none."""
    return "none" if limit is None or limit >= NO_LIMIT else format_size(limit)


def format_exact(size: int) -> str:
    """Show bytes as `format_size` does, and then all of them; those of no limit as "none"."""
    if size >= NO_LIMIT:
        return "none"
    text = format_size(size)
    return text if size < 1024 else f"{text} ({size:,} bytes)"


def show(name: str, value: object) -> str:
    """Show a fact, a limit or a counter with its unit, which its name tells."""
    if value is None:
        return "never"
    if isinstance(value, int):
        return format_exact(value) if name in _IN_BYTES else f"{value:,}"
    return f"{value:g} s" if isinstance(value, float) else str(value)
