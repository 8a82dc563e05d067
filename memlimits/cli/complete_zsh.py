"""The script that has zsh complete the command's words."""

from memlimits.cli import texts
from memlimits.cli.model import FILES, FOLDERS, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.cli.model import Argument, Command

_SCRIPT = """\
#compdef memlimits
# Completes the words of memlimits in zsh. Printed by: memlimits completion zsh

_memlimits_ask() {
    local -a lines
    lines=(${(f)"$("${(Q)memlimits/#\\~/$HOME}" _names "$@" 2>/dev/null)"})
    lines=(${lines//:/\\\\:})
    lines=(${lines/$'\\t'/:})
    _describe -t names name lines
}

_memlimits() {
    local curcontext=$curcontext state line memlimits=$words[1]
    typeset -A opt_args
    local -a commands
    _arguments -C \\
        '(- *)'{-h,--help}'[show the commands]' \\
        '(- *)--version[show the version]' \\
        '1:command:->command' \\
        '*::argument:->argument'
    case $state in
    command)
        commands=(
@COMMANDS@
        )
        _describe -t commands command commands
        ;;
    argument)
        curcontext=${curcontext%:*:*}:memlimits-$words[1]:
        case $words[1] in
@ARGUMENTS@
        esac
        ;;
    esac
}

# As a file of $fpath it is the function itself; read in by eval it is to be made one.
if [[ $funcstack[1] == _memlimits ]]; then
    _memlimits "$@"
else
    compdef _memlimits memlimits
fi
"""


def script(commands: "dict[str, Command]") -> str:
    """Return the script."""
    shown = [f"            {_quoted(f'{name}:{what}')}" for name, what in texts.COMMANDS.items()]
    arguments = [line for name in texts.COMMANDS for line in _case(name, commands)]
    made = _SCRIPT.replace("@COMMANDS@", "\n".join(shown))
    return made.replace("@ARGUMENTS@", "\n".join(arguments))


def _case(name: str, commands: "dict[str, Command]") -> "list[str]":
    command = commands[name]
    lines = [f"        {name})"]
    if not command.below:
        return [*lines, *_arguments(command, 12), "            ;;"]
    lines += [
        "            _arguments -C '(- *)'{-h,--help}'[show this]' \\",
        "                '1:action:->action' '*::argument:->of_action'",
        "            case $state in",
        "            action)",
        "                commands=(",
    ]
    below = [commands[f"{name} {last}"] for last in command.below]
    lines += [
        f"                    {_quoted(f'{one.name.split()[-1]}:{_escaped(one.description)}')}"
        for one in below
    ]
    lines += [
        "                )",
        "                _describe -t actions action commands",
        "                ;;",
        "            of_action)",
        "                case $words[1] in",
    ]
    for one in below:
        lines += [f"                {one.name.split()[-1]})", *_arguments(one, 20)]
        lines.append("                    ;;")
    return [
        *lines,
        "                esac",
        "                ;;",
        "            esac",
        "            ;;",
    ]


def _arguments(command: "Command", indent: int) -> "list[str]":
    specs = [spec for one in command.options for spec in _option(one)]
    stops = ""
    if command.name == "run":
        stops = " -A '-*'"
        # A module or code is a program, and what follows is its own.
        for flag, metavar in texts.PYTHONS.items():
            whose = "(-)" if flag in ("-m", "-c") else "*"
            specs.append(_quoted(f"{whose}{flag}+[of Python]:{metavar}: "))
        specs += ["'1:program:_files'", "'*:argument:_files'"]
    specs += [_other(one) for one in command.others]
    pad = " " * indent
    lines = [f"{pad}_arguments -S{stops}", *(f"{pad}    {spec}" for spec in specs)]
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _option(one: "Argument") -> "list[str]":
    text = _escaped(summary(one.text))
    if not one.metavar:
        return [_quoted(f"({' '.join(one.flags)}){flag}[{text}]") for flag in one.flags]
    value = f":{_escaped(one.metavar)}:{_action(one)}"
    return [
        _quoted(f"({' '.join(one.flags)}){flag}{'=' if flag[1] == '-' else '+'}[{text}]{value}")
        for flag in one.flags
    ]


def _other(one: "Argument") -> str:
    place = "*" if one.several else ":"
    return _quoted(f"{place}:{_escaped(one.metavar)}:{_action(one)}".replace("::", ":", 1))


def _action(one: "Argument") -> str:
    if one.values:
        return f"({' '.join(one.values)})"
    if one.kinds == (FILES,):
        return "_files"
    if one.kinds == (FOLDERS,):
        return "_files -/"
    # After a space no options of compadd's are put among the words.
    return f" _memlimits_ask {' '.join(one.kinds)}" if one.kinds else " "


def _escaped(text: str) -> str:
    for character in "\\:[]":
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
