"""``memlimits run``: a program inside its limits."""

import atexit
import os
import sys

import memlimits
from memlimits import _modules, pools
from memlimits.adapters import children
from memlimits.cli import govern, options, program, record
from memlimits.cli.errors import CommandError
from memlimits.cli.jsonfile import JSONFile
from memlimits.cli.members import in_use
from memlimits.cli.report import Report, held
from memlimits.cli.signals import tell_when_asked
from memlimits.cli.streams import say
from memlimits.errors import NO_LIMIT
from memlimits.sizes import format_exact, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memlimits.cli.options import Options


def run(argv: "Sequence[str]", known: "Iterable[str] | None") -> None:
    """Run a program under limits, and leave as it leaves.

    Parameters
    ----------
    argv : sequence of str
        What follows ``run`` on the command line.
    known : iterable of str, optional
        The modules that the interpreter had imported before the command; by default those up to
        `site`.

    Raises
    ------
    CommandError
        The program was not started.
    memlimits.cli._start.Start
        It is to start, now.
    """
    known = _known_up_to_site() if known is None else frozenset(known)
    try:
        wanted = options.read(argv, os.environ)
    except options.VariableError as error:
        raise CommandError(str(error)) from None
    except options.UsageError as error:
        options.fail(str(error))
    # Where a command above this one governs it: what it says comes in the place of that.
    if children.inherited is not None:
        options.inherit(wanted, children.inherited)
    level = wanted.govern or govern.default()
    environ = {name: text for name, text in os.environ.items() if name != children.VARIABLE}
    preloading = govern.preloading(level, environ)
    if wanted.python or preloading or children.inherited is not None:
        _restart(wanted, argv, {**(preloading or environ), **_above()})
    for sentence in options.unknown_variables(os.environ):
        say(f"warning: {sentence}")
    if word := options.misplaced(wanted):
        say(f"warning: {word} stands behind the program, and is its own: ours stand before it")
    _set_limits(wanted, level)
    above = {key: os.environ.pop(variable, None) for key, variable in _ABOVE.items()}
    pool = _join(wanted, above["pool"])
    file = _open(wanted.report)
    report = Report(wanted.program, file, quiet=wanted.quiet, pool=pool)
    found = _find(wanted.program)
    if file is not None:
        _clear(file)
    recording = record.begin(wanted.record, wanted.program, pool, above["record"])
    # Last in, first out: every atexit callback of the program runs before the report.
    atexit.register(report.write)
    tell_when_asked(pool)
    notes = _modules.for_notes()
    notes.put_on()
    notes.note_stderr()
    notes.say_at_once(not wanted.quiet and sys.__stderr__ is not None)
    report.level = govern.put_in_force(level)
    memlimits.set_memory_count(wanted.count or _COUNTS[report.level])
    if report.level != "all":
        children.preload_no_more(os.environ)
    children.pass_on(report.level, quiet=wanted.quiet, pool=pool, record=recording)
    orig_argv = [*_interpreters_words(argv), *wanted.program]
    program.start(found, lambda: program.adopt(found, orig_argv, known))


# What a command above this one shares, while this one starts the interpreter anew.
_ABOVE = {"pool": "_MEMLIMITS_POOL", "record": "_MEMLIMITS_RECORD"}


def _above() -> "dict[str, str]":
    inherited = children.inherited or {}
    return {variable: inherited[key] for key, variable in _ABOVE.items() if key in inherited}


def _join(wanted: "Options", above: "str | None") -> "str | None":
    """Have the limit be one for all processes below; return the path of their pool, if any.

    Below another command its pool stays the one, and the limit is each process's own.
    """
    try:
        if above is not None:
            if wanted.pool is not None:
                say(
                    f"warning: --pool {wanted.pool}: a command above this one has a pool already, "
                    "which this program is in: leave --pool out"
                )
            pools.join_tree(above)
            return above
        if wanted.pool is not None:
            path = pools.join_by_name(wanted.pool)
            _refuse_one_that_is_full(wanted.pool)
            return path
        limit = memlimits.get_memory_limit()
        # Who waits, waits for the others, whoever set the limit.
        shared = wanted.memory_limit is not None or wanted.policy == "wait"
        if not shared or wanted.per_process or limit >= NO_LIMIT:
            return None
        return pools.make_for_tree(limit)
    except (LookupError, ValueError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        if wanted.pool is not None and above is None:
            raise CommandError(str(error)) from None
        say(f"warning: the memory limit is each process's own: {error}")
        return None


def _refuse_one_that_is_full(name: str) -> None:
    """No Python could start there."""
    facts = pools.get(name)
    used = in_use(facts)
    if used + _START > facts["limit"] and memlimits.get_memory_policy() == "strict":
        raise CommandError(
            f"pool {name!r} has no room for a program: its members use {format_size(used)} of "
            f"{format_size(facts['limit'])}. Wait for them (--policy wait), or raise its limit "
            f"(memlimits pool set {name})"
        )


def _known_up_to_site() -> "frozenset[str]":
    """Return what was imported before the command: it is in the order in which imports ended."""
    names = list(sys.modules)
    return frozenset(names[: names.index("site") + 1] if "site" in names else names)


def _interpreters_words(argv: "Sequence[str]") -> "list[str]":
    """Return the interpreter's own words of the command line: its name and its options."""
    words = sys.orig_argv[: -len(argv) - 1]  # Without `run` and what follows it.
    last = words.pop()  # A file, or `-m memlimits`, in one word or two.
    if words and last == "memlimits":
        last = words.pop() + last
    if words and last.startswith("-"):
        options = last.removesuffix("mmemlimits")
        words += [options] if options != "-" else []
    return words


def _restart(wanted: "Options", argv: "Sequence[str]", environ: "Mapping[str, str]") -> None:
    """Start the interpreter anew as the command asks for, and the command again without that."""
    boot = os.path.join(os.path.dirname(__file__), "_boot.py")
    words = [*_interpreters_words(argv)[1:], *wanted.python, boot, "run", *wanted.ours]
    try:
        os.execve(sys.executable, [sys.executable, *words, "--", *wanted.program], environ)
    except OSError as error:
        raise CommandError(
            f"cannot start {sys.executable!r}: {error.strerror}; run PYTHON -m memlimits with "
            "one that can be"
        ) from None


def _find(words: "Sequence[str]") -> program.Program:
    try:
        return program.find(words)
    except OSError as error:
        message = f"can't open file {error.filename!r}: [Errno {error.errno}] {error.strerror}"
        hint = program.what_is_meant_by(words[0]) if isinstance(error, FileNotFoundError) else ""
        raise CommandError(message + hint) from None


def _open(report: "str | None") -> "JSONFile | None":
    try:
        return None if report is None else JSONFile(report)
    except OSError as error:
        raise CommandError(
            f"cannot write the report to {report!r}: {error.strerror}; name another file by "
            "--report"
        ) from None


def _clear(file: JSONFile) -> None:
    try:
        file.clear()
    except OSError as error:
        raise CommandError(
            f"cannot write the report to {file.path!r}: {error.strerror}; name another file by "
            "--report"
        ) from None


# What the memory limit is on unless --count says it, by how much is governed.
_COUNTS = {"numpy": "given", "python": "given", "all": "resident"}


def _set_limits(wanted: "Options", level: str) -> None:
    if wanted.memory_limit is not None:
        memlimits.set_memory_limit(wanted.memory_limit)
    if wanted.cache_limit is not None:
        memlimits.set_cache_limit(wanted.cache_limit)
    if wanted.wired_limit is not None:
        _set_wired_limit(wanted.wired_limit)
    if any(given is not None for given in (wanted.policy, wanted.memory_limit, wanted.pool)):
        memlimits.set_memory_policy(wanted.policy or "strict", wanted.timeout)
    memlimits.set_memory_count(wanted.count or "given")
    if holders := _holders(wanted):
        memlimits.set_holder_sampling(holders)
    _refuse_one_that_is_too_low(level)


_OF_RECORDINGS = 1 << 20


def _holders(wanted: "Options") -> int:
    if wanted.holders is not None:
        return wanted.holders
    return 0 if wanted.record is None else _OF_RECORDINGS


# What the interpreter takes besides until it runs the program.
_START = 1 << 20


def _refuse_one_that_is_too_low(level: str) -> None:
    """Where Python's objects count, or all of the process, the program could not even start."""
    stats = memlimits.stats()
    has = held(stats)
    if stats.memory_count == "process":
        has += _START
    # An interpreter has pages of files. Without /proc all that is known is a peak, which may be
    # that of the program that started this one.
    if stats.process_files == 0 or stats.policy == "guideline" or stats.memory_limit > has:
        return
    if stats.memory_count == "process":
        raise CommandError(
            f"a memory limit of {format_exact(stats.memory_limit)} that counts the process is "
            f"below what that holds, and needs, before the program, {format_exact(has)}: give "
            "more, or --count resident, under which only what is governed counts"
        )
    if level != "numpy":
        raise CommandError(
            f"a memory limit of {format_exact(stats.memory_limit)} is below what the interpreter "
            f"holds before the program, {format_exact(has)}: give more, or --govern numpy, under "
            "which only arrays count"
        )


def _set_wired_limit(limit: int) -> None:
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            memlimits.set_wired_limit(limit)
        except memlimits.WiredLimitError as error:
            wanted = "infinity" if limit >= NO_LIMIT else format_exact(limit)
            raise CommandError(
                f"a wired limit of {wanted} is above the system's {format_exact(error.maximum)} "
                "(max_recommended_working_set_size): give that, or less"
            ) from None
    for warning in caught:
        say(f"warning: {warning.message}")
