"""The command line of ``memlimits run``, read with no module that a program may replace."""

import sys

from memlimits._bindings.allocator import COUNTS, POLICIES
from memlimits.adapters import children
from memlimits.adapters.children import LEVELS, VARIABLE
from memlimits.cli.streams import put
from memlimits.errors import NO_LIMIT
from memlimits.sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, NoReturn

USAGE = """\
usage: memlimits run [options] script.py [ARGS...]
       memlimits run [options] -m module [ARGS...]
       memlimits run [options] -c code [ARGS...]
       memlimits run [options] - [ARGS...]
"""

_MOST_SECONDS = 1_000_000_000
_OF_THE_BUILD = (
    "MEMLIMITS_COVERAGE",
    "MEMLIMITS_DEBUG",
    "MEMLIMITS_DEVICE",
    "MEMLIMITS_SANITIZE",
    "MEMLIMITS_WERROR",
)
_FOLDER = "MEMLIMITS_POOLS"
_FLAGS_OF_PYTHONS = frozenset("bBdEiIOPqRsSuv")


class UsageError(Exception):
    """The command line, or a variable of the environment, is wrong."""


class VariableError(UsageError):
    """A variable of the environment is wrong."""


class Options:
    """What ``memlimits run`` is to do.

    Attributes
    ----------
    memory_limit, cache_limit, wired_limit : int or None
        Bytes.
    policy, count : str or None
    timeout : float or None
        Seconds.
    govern : str or None
        How much of the program's memory.
    holders : int or None
        Bytes from one sample of who allocates to the next; 0 for none.
    record, report : str or None
        A file's name.
    pool : str or None
        Its name.
    per_process, quiet : bool
    python : list of str
        Options for the interpreter.
    ours : list of str
        The options given, but for those.
    program : list of str
        The program's part of the command line: ``script ARGS...``, ``-m module ARGS...``,
        ``-c code ARGS...`` or ``- ARGS...``.
    """

    memory_limit: "int | None" = None
    cache_limit: "int | None" = None
    wired_limit: "int | None" = None
    policy: "str | None" = None
    count: "str | None" = None
    timeout: "float | None" = None
    govern: "str | None" = None
    holders: "int | None" = None
    record: "str | None" = None
    report: "str | None" = None
    pool: "str | None" = None
    per_process = False
    quiet = False

    def __init__(self) -> None:
        self.python: list[str] = []
        self.program: list[str] = []
        self.ours: list[str] = []
        self.given: set[str] = set()


def _no_choice(what: str, text: str, choices: "Iterable[str]") -> ValueError:
    from memlimits.cli.meant import meant

    names = tuple(choices)
    return ValueError(
        f"invalid {what} {text!r}: write one of {', '.join(names)}{meant(text, names)}"
    )


def _policy(text: str) -> str:
    if text not in POLICIES:
        raise _no_choice("policy", text, POLICIES)
    return text


def _count(text: str) -> str:
    if text not in COUNTS:
        raise _no_choice("count", text, COUNTS)
    return text


def _level(text: str) -> str:
    if text not in LEVELS:
        raise _no_choice("level", text, LEVELS)
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_SECONDS:
        raise ValueError(
            f"invalid time {text!r}: write seconds, from 0 to {_MOST_SECONDS}, such as 2.5"
        )
    return seconds


def _samples(text: str) -> int:
    size = parse_size(text)
    if size and not children.LEAST_SAMPLE <= size <= children.MOST_SAMPLE:
        raise ValueError(f"invalid size {text!r}: write 0 for nobody, or 4KiB to 1TiB")
    return size


def _file_such_as(example: str) -> "Callable[[str], str]":
    def file(text: str) -> str:
        if text in ("", "-"):
            raise ValueError(f"invalid file {text!r}: write its name, such as {example}")
        return text

    return file


def _yes(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"invalid value {text!r}: write 1 for yes, 0 for no")
    return text == "1"


_WITH_VALUE: "dict[str, Callable[[str], Any]]" = {
    "--memory-limit": parse_size,
    "--cache-limit": parse_size,
    "--wired-limit": parse_size,
    "--policy": _policy,
    "--count": _count,
    "--timeout": _seconds,
    "--govern": _level,
    "--holders": _samples,
    "--record": _file_such_as("run.rec"),
    "--report": _file_such_as("report.json or /dev/stdout"),
    "--pool": str,
}
_WITHOUT_VALUE = ("--per-process", "--quiet", "--help")
VARIABLES = {
    option: f"MEMLIMITS_{option[2:].replace('-', '_').upper()}"
    for option in (*_WITH_VALUE, "--per-process", "--quiet")
}


def read(words: "Sequence[str]", environ: "Mapping[str, str]") -> "Options":
    """Read the words after ``run``, and the variables that stand for what they leave out.

    Raises
    ------
    UsageError
        Something is wrong with them; the message says what.
    SystemExit
        Help was asked for, and is on standard output.
    """
    options = Options()
    options.program = _read_words(options, list(words))
    if not options.program:
        words = " ".join(["memlimits run", *options.ours, *options.python, "train.py"])
        raise UsageError(
            f"a script, -m and a module, -c and code, or - is missing, such as in {words}"
        )
    if options.program in (["-m"], ["-c"]):
        what = {"-m": "a module", "-c": "code"}[options.program[0]]
        example = {"-m": "-m pytest", "-c": "-c 'import this'"}[options.program[0]]
        raise UsageError(f"argument {options.program[0]}: {what} is missing, as in {example}")
    _read_environment(options, environ)
    return options


def fail(message: str) -> "NoReturn":
    """Show the usage and what is wrong, and exit with status 2."""
    sys.stderr.write(f"{USAGE}memlimits run: error: {message}\n")
    raise SystemExit(2)


def _read_words(options: Options, words: "list[str]") -> "list[str]":
    """Read the options, and return the rest: the program's words."""
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if word == "-" or not word.startswith("-"):
            return [word, *words]
        if word[:2] in ("-m", "-c"):
            return [word[:2], *([word[2:]] if word[2:] else []), *words]
        if name in _WITH_VALUE:
            _set(options, name, value if equals else _next(name, words))
        elif word in ("-h", "--help"):
            from memlimits.cli.help import of_run

            put(of_run())
            raise SystemExit(0)
        elif word in ("--per-process", "--quiet"):
            setattr(options, word[2:].replace("-", "_"), True)
            options.given.add(word)
            options.ours.append(word)
        elif not word.startswith("--") or name == "--check-hash-based-pycs":
            program = _read_pythons(options, word, words)
            if program:
                return program
        else:
            raise UsageError(_unknown(word))
    return words


def _read_pythons(options: Options, word: str, words: "list[str]") -> "list[str]":
    """Read an option of the interpreter's, or several in one word; return the program's words."""
    if word.startswith("--"):
        options.python += [word] if "=" in word else [word, _next(word, words)]
        return []
    for place, letter in enumerate(word[1:], start=1):
        rest = word[place + 1 :]
        if letter in "mc":
            if place > 1:
                options.python.append(word[:place])
            return [f"-{letter}", *([rest] if rest else []), *words]
        if letter in "WX":
            options.python += [word] if rest else [word, _next(f"-{letter}", words)]
            return []
        if letter not in _FLAGS_OF_PYTHONS:
            raise UsageError(_unknown(word))
    options.python.append(word)
    return []


def _next(name: str, words: "list[str]") -> str:
    value = words.pop(0) if words else "--"
    if value == "--":
        from memlimits.cli.help import with_value

        raise UsageError(f"argument {name}: a value is missing: write {with_value(name)}")
    return value


def _set(options: Options, name: str, text: str) -> None:
    try:
        setattr(options, name[2:].replace("-", "_"), _WITH_VALUE[name](text))
    except ValueError as error:
        raise UsageError(f"argument {name}: {error}") from None
    options.given.add(name)
    options.ours.append(f"{name}={text}")


def _unknown(word: str) -> str:
    from memlimits.cli.meant import meant

    question = meant(word.partition("=")[0], (*_WITH_VALUE, *_WITHOUT_VALUE))
    return f"unknown option: {word}{question or '; memlimits run --help lists them'}"


def _read_environment(options: Options, environ: "Mapping[str, str]") -> None:
    readers = {**_WITH_VALUE, "--per-process": _yes, "--quiet": _yes}
    for name, reader in readers.items():
        attribute = name[2:].replace("-", "_")
        variable = VARIABLES[name]
        text = environ.get(variable)
        if not text or name in options.given:
            continue
        try:
            setattr(options, attribute, reader(text))
        except ValueError as error:
            raise VariableError(f"variable {variable}: {error}") from None
    if options.policy == "wait":
        return
    if "--timeout" in options.given:
        raise UsageError(
            "argument --timeout: only --policy wait takes it: give that, too, or leave it out"
        )
    options.timeout = None  # A variable says how long to wait where something waits.


def inherit(options: Options, settings: "Mapping[str, Any]") -> None:
    """Have what is not given be as it is for the process above, whose children are governed.

    Parameters
    ----------
    settings : mapping of str to object
        What `memlimits.adapters.children.read` returns.
    """
    # Each of these has a default that goes by the one before.
    policy = {} if options.memory_limit is not None else settings
    count = {} if options.govern is not None else settings
    waits = (options.policy or policy.get("policy")) == "wait" and options.policy is None
    for name, value in (
        ("count", count.get("count")),
        ("policy", policy.get("policy")),
        ("timeout", settings.get("timeout") if waits else None),
        ("memory_limit", settings.get("memory_limit")),
        ("cache_limit", settings.get("cache_limit")),
        ("govern", settings.get("level")),
        ("holders", settings.get("holders")),
    ):
        if value is None or getattr(options, name) is not None:
            continue
        setattr(options, name, value)
        options.ours.append(f"--{name.replace('_', '-')}={_as_written(value)}")


def _as_written(value: object) -> str:
    if not isinstance(value, int):
        return str(value)
    return "infinity" if value >= NO_LIMIT else f"{value}B"


def misplaced(options: Options) -> str:
    """Return an option of ours among the program's words, where none stands before; or ""."""
    ours = ("--memory-limit", "--cache-limit", "--wired-limit")
    words = [] if options.given else options.program[1:]
    return next((word for word in words if word.partition("=")[0] in ours), "")


def variables(environ: "Mapping[str, str]") -> "list[str]":
    """Return the variables that stand for options and are set."""
    return [name for name in VARIABLES.values() if environ.get(name)]


def unknown_variables(environ: "Mapping[str, str]") -> "list[str]":
    """Return a sentence on each variable that looks like one of ours and is none."""
    names = list(VARIABLES.values())
    unknown = [
        name
        for name in environ
        if name.startswith("MEMLIMITS_") and name not in (*names, *_OF_THE_BUILD, VARIABLE, _FOLDER)
    ]
    if not unknown:
        return []
    from memlimits.cli.meant import meant

    return [f"variable {name} is not known{meant(name, names)}" for name in unknown]
