"""Manual pages in roff, with the macros of man(7)."""

import re
import textwrap

from memlimits.cli import texts
from memlimits.cli.help import variables
from memlimits.cli.model import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.cli.model import Argument, Command


def pages() -> "dict[str, str]":
    """Return all manual pages, by their names without the section.

    They have no date and no version: as long as the command says the same, they are the same.
    """
    found = commands()
    names = ["memlimits", *(f"memlimits-{name}" for name in texts.COMMANDS)]
    made = {"memlimits": _first(names)}
    for name in texts.COMMANDS:
        inner = [found[f"{name} {last}"] for last in found[name].below]
        lines = _head(f"memlimits-{name}", texts.COMMANDS[name])
        lines += _of_run(found[name]) if name == "run" else _of_one(found[name], inner)
        lines += _examples(name) + _status(name) + _see_also(f"memlimits-{name}", names)
        made[f"memlimits-{name}"] = "\n".join(lines) + "\n"
    return made


def _first(names: "list[str]") -> str:
    lines = _head("memlimits", "memory limits for Python programs")
    lines += [".SH SYNOPSIS", ".B memlimits", r"\fICOMMAND\fR ..."]
    lines += [".SH DESCRIPTION", "What people want first:"]
    for what, words in texts.FIRST.items():
        lines += [".TP", _plain(f"{what[0].upper()}{what[1:]}"), *_typed(words)]
    lines.append(".SH COMMANDS")
    for name, what in texts.COMMANDS.items():
        lines += [".TP", rf"\fBmemlimits\-{name}\fR(1)", _plain(f"{what[0].upper()}{what[1:]}.")]
    options = {"--help": "Show the commands.", "--version": "Show the version."}
    lines += [
        ".SH OPTIONS",
        *_list({rf"\fB{_plain(name)}\fR": text for name, text in options.items()}),
    ]
    lines += _see_also("memlimits", names)
    return "\n".join(lines) + "\n"


def _of_run(run: "Command") -> "list[str]":
    lines = [".SH SYNOPSIS"]
    for usage in texts.RUN_USAGES:
        lines += [rf"\fBmemlimits run\fR [\fIoptions\fR] {_plain(usage)}", ".br"]
    lines[-1:] = [".SH DESCRIPTION", *_filled(run.description)]
    for text in (texts.SIZES, *texts.RUN_NOTES):
        lines += [".PP", *_filled(text)]
    lines += [".SH OPTIONS", *_options(run), ".SH ENVIRONMENT", *_filled(variables())]
    return lines


def _of_one(command: "Command", inner: "list[Command]") -> "list[str]":
    lines = [".SH SYNOPSIS"]
    for one in inner or [command]:
        lines += [_synopsis(one), ".br"]
    lines[-1:] = [".SH DESCRIPTION", *_filled(command.description)]
    for one in inner:
        lines += [_section("SS", one.name), _plain(one.description), *_options(one)]
    if not inner:
        lines += [".SH OPTIONS", *_options(command)]
    if command.notes:
        title, _, rest = command.notes.partition(":\n")
        lines += [_section("SH", title.upper()), ".nf", *map(_plain, rest.split("\n")), ".fi"]
    return lines


def _section(macro: str, title: str) -> str:
    return f'.{macro} "{_plain(title)}"' if " " in title else f".{macro} {_plain(title)}"


def _synopsis(command: "Command") -> str:
    words = [rf"\fBmemlimits {command.name}\fR [\fIoptions\fR]"]
    words += [
        rf"\fB{_plain(one.flags[-1])}\fR \fI{_plain(one.metavar)}\fR"
        for one in command.options
        if one.required
    ]
    for one in command.others:
        name = rf"\fI{_plain(one.metavar)}\fR" + (" ..." if one.several else "")
        words.append(name if one.required and not one.several else f"[{name}]")
    return " ".join(words)


def _options(command: "Command") -> "list[str]":
    arguments = (*command.others, *command.options)
    return _list({_term(one): _with_values(one) for one in arguments})


def _term(one: "Argument") -> str:
    flags = ", ".join(rf"\fB{_plain(flag)}\fR" for flag in one.flags)
    value = rf"\fI{_plain(one.metavar)}\fR" if one.metavar else ""
    return f"{flags} {value}".strip()


def _with_values(one: "Argument") -> str:
    text = f"{one.text[0].upper()}{one.text[1:]}."
    named = [value for value in one.values if re.search(rf"\b{re.escape(value)}\b", one.text)]
    if one.values and named != list(one.values):
        text += f" One of {', '.join(one.values)}."
    return text


def _list(terms: "dict[str, str]") -> "list[str]":
    return [line for term, text in terms.items() for line in (".TP", term, *_filled(text))]


def _examples(command: str) -> "list[str]":
    lines = [".SH EXAMPLES"]
    for words, what in texts.EXAMPLES[command].items():
        lines += [".TP", _plain(f"{what[0].upper()}{what[1:]}:"), *_typed(words)]
    return lines


def _typed(words: str) -> "list[str]":
    return [".nf", rf"\fB{_plain(words)}\fR", ".fi"]


def _status(command: str) -> "list[str]":
    return [".SH EXIT STATUS", _plain(texts.STATUS.get(command, texts.STATUS_OF_OTHERS))]


def _head(name: str, what: str) -> "list[str]":
    title = f'.TH {_plain(name.upper())} 1 "" memlimits "User Commands"'
    return [title, ".SH NAME", rf"{_plain(name)} \- {_plain(what)}"]


def _see_also(own: str, names: "list[str]") -> "list[str]":
    others = [rf"\fB{_plain(name)}\fR(1)" for name in names if name != own]
    return [
        ".SH SEE ALSO",
        *textwrap.wrap(", ".join(others), 79, break_on_hyphens=False),
        ".PP",
        _plain(f"The documentation: {texts.DOCS}."),
    ]


def _filled(text: str) -> "list[str]":
    return [_plain(line) for line in textwrap.wrap(text, 66, break_on_hyphens=False)]


def _plain(text: str) -> str:
    """Have roff show a text as it is: what is typed can be copied from the page."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    text = text.replace("^", r"\(ha").replace("~", r"\(ti").replace('"', r"\(dq")
    return rf"\&{text}" if text.startswith(".") else text
