"""``memlimits run``: a program inside its limits."""

import atexit
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence

import memlimits
from memlimits.cli import program
from memlimits.cli.errors import CommandError
from memlimits.cli.jsonfile import JSONFile
from memlimits.cli.report import Report
from memlimits.cli.signals import tell_when_asked
from memlimits.cli.streams import say


def run(options: Namespace, words: Sequence[str]) -> None:
    """Run a program under the options' limits, and leave as it leaves.

    Parameters
    ----------
    options : argparse.Namespace
        ``memory_limit``, ``cache_limit``, ``wired_limit`` (bytes), ``policy``, ``timeout`` (s) and
        ``report`` (a file name); each may be None.
    words : sequence of str
        The program's part of the command line.

    Raises
    ------
    CommandError
        The program was not started.
    """
    found = _find(words)
    _set_limits(options)
    report = Report(words, _open(options.report))
    program.adopt(found)
    _govern_numpy()
    # Last in, first out: every atexit callback of the program runs before the report.
    atexit.register(report.write)
    tell_when_asked()
    program.run(found)


def _find(words: Sequence[str]) -> program.Program:
    try:
        return program.find(words)
    except OSError as error:
        raise CommandError(
            f"can't open file {error.filename!r}: [Errno {error.errno}] {error.strerror}"
        ) from None


def _open(report: str | None) -> JSONFile | None:
    try:
        return None if report is None else JSONFile(report)
    except OSError as error:
        raise CommandError(f"cannot write the report to {report!r}: {error.strerror}") from None


def _set_limits(options: Namespace) -> None:
    if options.memory_limit is not None:
        memlimits.set_memory_limit(options.memory_limit)
    if options.cache_limit is not None:
        memlimits.set_cache_limit(options.cache_limit)
    if options.wired_limit is not None:
        _set_wired_limit(options.wired_limit)
    if options.policy is not None or options.memory_limit is not None:
        memlimits.set_memory_policy(options.policy or "strict", options.timeout)


def _set_wired_limit(limit: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            memlimits.set_wired_limit(limit)
        except memlimits.WiredLimitError as error:
            raise CommandError(str(error)) from None
    for warning in caught:
        say(f"warning: {warning.message}")


def _govern_numpy() -> None:
    try:
        governing = memlimits.govern_numpy()
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise CommandError(
            f"`memlimits run` needs NumPy, and {sys.executable} has none. "
            f"Install it: {sys.executable} -m pip install numpy"
        ) from None
    # Never closed: the program's threads and atexit callbacks allocate after run() has been left.
    governing.__enter__()
