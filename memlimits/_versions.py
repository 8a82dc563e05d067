"""The Pythons that the tests pass on: a newer one is warned of, once, when it is first used."""

import sys

# t: without the GIL.
TESTED = ("3.11", "3.12", "3.13", "3.13t", "3.14", "3.15")


def warn_if_untested(tested: tuple[str, ...] = TESTED) -> None:
    kind = "t" if "t" in sys.abiflags else ""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}{kind}"
    if python in tested:
        return
    import warnings

    # The first words are what a filter goes by: no category of ours is there before the import.
    warnings.warn(
        f"memlimits was not tested on Python {python}, only on {', '.join(tested)}; "
        "in a clone, sh tests/run.sh does. To go without this warning: "
        '-W "ignore:memlimits was not tested"',
        RuntimeWarning,
        stacklevel=3,
    )
