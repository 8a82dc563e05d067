"""The help of the command as a whole, and that of ``memlimits run``, which argparse does not read.

The same text under every version of Python, and at most 80 columns wide.
"""

from textwrap import TextWrapper

from memlimits.cli import texts
from memlimits.cli.options import USAGE, VARIABLES

_WIDTH = 79
_COLUMN = 24


def overview() -> str:
    """Return what ``memlimits --help`` shows: less than a screen."""
    lines = ["usage: memlimits COMMAND ...", ""]
    for what, words in texts.FIRST.items():
        lines += [f"{what}:", f"  {words}"]
    width = max(map(len, texts.COMMANDS))
    lines += ["", "commands:"]
    lines += [f"  {name:<{width}}  {what}" for name, what in texts.COMMANDS.items()]
    lines += [
        "",
        "memlimits COMMAND --help tells all of one, with examples; memlimits --version.",
        f"Documentation: man memlimits (or: memlimits man), and {texts.DOCS}.",
    ]
    return "\n".join(lines) + "\n"


def of_run() -> str:
    """Return what ``memlimits run --help`` shows."""
    lines = [USAGE, *_filled(texts.RUN_ABOUT), "", "options:"]
    for name, (metavar, text) in texts.RUN_OPTIONS.items():
        lines += _option(name, metavar, text)
    lines.append("")
    for text in (texts.SIZES, variables(), *texts.RUN_NOTES):
        lines += _filled(text)
    return "\n".join(lines) + f"\n\n{texts.examples('run')}"


def variables() -> str:
    """Return a sentence on the variables that stand for options of ``memlimits run``."""
    flags = [name for name, (metavar, _) in texts.RUN_OPTIONS.items() if not metavar]
    names = [f"{name} (1)" if option in flags else name for option, name in VARIABLES.items()]
    return f"Variables stand for options that are not given: {', '.join(names)}."


def with_value(name: str) -> str:
    """Return an option, of ours or of the interpreter's, with what stands for its value."""
    metavars = {option: metavar for option, (metavar, _) in texts.RUN_OPTIONS.items()}
    return f"{name} {(metavars | texts.PYTHONS).get(name, 'VALUE')}"


def _option(name: str, metavar: str, text: str) -> "list[str]":
    short = texts.SHORT.get(name)
    head = f"  {f'{short}, ' if short else ''}{name} {metavar}".rstrip()
    wrapper = TextWrapper(
        width=_WIDTH,
        initial_indent=f"{head:<{_COLUMN}}",
        subsequent_indent=" " * _COLUMN,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return wrapper.wrap(text)


def _filled(text: str) -> "list[str]":
    return TextWrapper(width=_WIDTH, break_on_hyphens=False, break_long_words=False).wrap(text)
