"""Sizes as people write them, and as they read them."""

import re
from collections.abc import Callable

from memlimits.errors import NO_LIMIT
from memlimits.snapshot import SIZES

# Statistics, and facts of the device.
_IN_BYTES = SIZES | {
    "memory_size",
    "max_recommended_working_set_size",
    "max_buffer_length",
    "wired_capacity",
}

FORM = "512MiB, 2GB, 1.5GiB, 50% (of the memory size) or 1048576 (bytes)"

# The largest limit the library takes is the largest signed 64-bit number.
_MAXIMUM = 2**63 - 1

_BYTES: dict[str, int] = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}

# No number needs more than 19 digits on either side of its point.
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?([a-z]*|%)", re.ASCII | re.IGNORECASE)


def parse_size(text: str, memory_size: Callable[[], int]) -> int:
    """Turn a size such as ``1.5GiB`` into bytes.

    Parameters
    ----------
    text : str
        A number and a unit, in any case: ``B``, ``KB``, ``MB``, ``GB``, ``TB`` (powers of 1000),
        ``KiB``, ``MiB``, ``GiB``, ``TiB`` (powers of 1024), ``%`` (of the memory size, at most
        100), or no unit for bytes. Only a number of bytes must be whole.
    memory_size : callable
        Returns what 100 % is, in bytes; called for a percentage only.

    Returns
    -------
    int
        Bytes, rounded down: a limit never comes out above what was written.

    Raises
    ------
    ValueError
        The text is no such size, or is more than 2**63 - 1 bytes. The message shows the form.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise _invalid(text)
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3).lower()
    # The number is a fraction of two integers, which keeps it exact.
    number = int(whole + fraction)
    one: int = 10 ** len(fraction)
    if unit == "%":
        if number > 100 * one:
            raise _invalid(text)
        return number * memory_size() // (100 * one)
    scale = _BYTES.get(unit or "b")
    if scale is None or (scale == 1 and fraction):
        raise _invalid(text)
    size = number * scale // one
    if size > _MAXIMUM:
        raise _invalid(text)
    return size


def _invalid(text: str) -> ValueError:
    return ValueError(f"invalid size {text!r}: write it as {FORM}")


def format_size(size: int) -> str:
    """Show bytes in the binary unit that leaves at least 1 and less than 1024 of it."""
    power = 0
    while power < 6 and round(size / 1024**power, 2) >= 1024:
        power += 1
    value = f"{size / 1024**power:.2f}".rstrip("0").rstrip(".")
    return f"{value} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[power]}"


def format_limit(limit: int | None) -> str:
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
