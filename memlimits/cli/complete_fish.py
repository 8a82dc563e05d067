"""The script that has fish complete the command's words."""

from memlimits.cli import texts
from memlimits.cli.model import FILES, FOLDERS, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.cli.model import Argument, Command

_SCRIPT = """\
# Completes the words of memlimits in fish. Printed by: memlimits completion fish

function __memlimits_ask
    set -l words (commandline -opc)
    set -l memlimits (string replace -r '^~' $HOME -- $words[1])
    $memlimits _names $argv 2>/dev/null
end

# Print which command's words are being written, such as "pool create"; "program" where they are
# those of the program that is run.
function __memlimits_command
    set -l words (commandline -opc)
    set -l command
    set -l value
    for word in $words[2..-1]
        if test -n "$value"
            if contains -- $value -m -c
                echo program
                return
            end
            set value
        else if test -z "$command"
            string match -q -- '-*' $word; or set command $word
        else if test "$command" = run
            if contains -- $word @VALUED@
                set value $word
            else if contains -- $word - --; or not string match -q -- '-*' $word
                echo program
                return
            end
@BELOW@
        end
    end
    echo "$command"
end

complete -c memlimits -f
complete -c memlimits -n 'test (__memlimits_command) = program' -F
@LINES@
"""


def script(commands: "dict[str, Command]") -> str:
    """Return the script."""
    lines = [_line("", f"-a {name} -d {_quoted(what)}") for name, what in texts.COMMANDS.items()]
    lines += [_line("", "-s h -l help -d 'show the commands'")]
    lines += [_line("", "-l version -d 'show the version'")]
    below = []
    for name, command in commands.items():
        if command.below:
            below += [
                f'        else if test "$command" = {name}; and contains -- $word '
                f"{' '.join(command.below)}",
                f'            set command "{name} $word"',
            ]
        for last in command.below:
            text = _quoted(commands[f"{name} {last}"].description)
            lines.append(_line(name, f"-a {last} -d {text}"))
        for one in command.arguments:
            lines.append(_line(name, _argument(one)))
        if name == "run":
            lines += [_line("run", f"-s {flag[1:]} -x -d 'of Python'") for flag in texts.PYTHONS]
            lines.append(_line("run", "-F"))
    valued = [flag for one in commands["run"].options if one.metavar for flag in one.flags]
    made = _SCRIPT.replace("@VALUED@", " ".join([*valued, *texts.PYTHONS]))
    return made.replace("@BELOW@", "\n".join(below)).replace("@LINES@", "\n".join(lines))


def _line(name: str, what: str) -> str:
    return f'complete -c memlimits -n \'test "$(__memlimits_command)" = "{name}"\' {what}'


def _argument(one: "Argument") -> str:
    if not one.flags:
        return _values(one)
    words = [f"-l {flag[2:]}" if flag[1] == "-" else f"-s {flag[1:]}" for flag in one.flags]
    if one.metavar:
        words.append(f"-r {_values(one)}")
    return f"{' '.join(words)} -d {_quoted(summary(one.text))}"


def _values(one: "Argument") -> str:
    if one.values:
        return f"-f -a {_quoted(' '.join(one.values))}"
    if one.kinds == (FILES,):
        return "-F"
    if one.kinds == (FOLDERS,):
        return "-f -a '(__fish_complete_directories)'"
    return f"-f -a '(__memlimits_ask {' '.join(one.kinds)})'" if one.kinds else "-f"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
