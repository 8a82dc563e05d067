"""The script that has bash complete the command's words, from bash 3.2 on."""

from memlimits.cli import texts
from memlimits.cli.model import FILES, FOLDERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memlimits.cli.model import Argument, Command

_SCRIPT = """\
# shellcheck shell=bash
# Completes the words of memlimits in bash. Printed by: memlimits completion bash

# What can follow a command: its options, those of them that have a value, and other words.
_memlimits_words() {
    case $1 in
@WORDS@
    esac
}

# What can be the value of an option, or without one what stands by itself: words, or, after a
# colon, what to ask for. Nothing is said of files, which are completed where nothing else is.
_memlimits_values() {
    case "$1 $2" in
@VALUES@
    esac
}

_memlimits_ask() {
    "${COMP_WORDS[0]/#\\~/$HOME}" _names "$@" 2>/dev/null | cut -f 1
}

_memlimits() {
    local cur=$2 word index command='' value='' past='' found=''
    local options='' valued='' others=''
    COMPREPLY=()
    [[ $cur == '=' ]] && cur=''
    _memlimits_words ''
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == '=' ]]; then
            continue # between an option and its value
        elif [[ $value ]]; then
            # A module or code is a program, and what follows is its own.
            [[ $command == run && $value == -[mc] ]] && return
            value=''
        elif [[ $past ]]; then
            [[ $command == run ]] && return
        elif [[ " $valued " == *" $word "* ]]; then
            value=$word
        elif [[ $word == -- ]]; then
            past=1
        elif [[ $word == -?* ]]; then
            continue
        elif [[ $command == run ]]; then
            return
        elif [[ " $others " == *" $word "* ]]; then
            command="$command${command:+ }$word"
            options='' valued='' others=''
            _memlimits_words "$command"
        fi
    done
    if [[ ! $value && ! $past && $cur == -* ]]; then
        found=$options
    elif [[ ! $value && $others ]]; then
        found=$others
    else
        found=$(_memlimits_values "$command" "$value")
    fi
    case $found in
    files) return ;;
    folders)
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -d -- "$cur")
        compopt -o filenames 2>/dev/null
        return
        ;;
    :*)
        # shellcheck disable=SC2086 # words
        found=$(_memlimits_ask ${found#:})
        ;;
    esac
    compopt +o default 2>/dev/null
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$found" -- "$cur")
}

complete -o default -F _memlimits memlimits
"""


def script(commands: "dict[str, Command]") -> str:
    """Return the script."""
    words = [_words("", ["--help", "--version"], [], list(texts.COMMANDS))]
    values = []
    for name, command in commands.items():
        options = [flag for one in command.options for flag in one.flags]
        valued = [flag for one in command.options if one.metavar for flag in one.flags]
        if name == "run":
            options += list(texts.PYTHONS)
            valued += list(texts.PYTHONS)
            values.append(_value("run", "", "files"))
        words.append(_words(name, options, valued, list(command.below)))
        for one in command.arguments:
            if found := _found(one):
                values += [_value(name, flag, found) for flag in one.flags or ("",)]
    made = _SCRIPT.replace("@WORDS@", "\n".join(words))
    return made.replace("@VALUES@", "\n".join(values))


def _words(name: str, options: "list[str]", valued: "list[str]", others: "list[str]") -> str:
    parts = {"options": options, "valued": valued, "others": others}
    set_there = [f"        {one}='{' '.join(some)}'" for one, some in parts.items() if some]
    return "\n".join([f"    '{name}')", *set_there, "        ;;"])


def _value(name: str, flag: str, found: str) -> str:
    return f"    '{name} {flag}') echo '{found}' ;;"


def _found(one: "Argument") -> str:
    if one.values:
        return " ".join(one.values)
    if one.kinds in ((FILES,), (FOLDERS,)):
        return one.kinds[0]
    return f":{' '.join(one.kinds)}" if one.kinds else ""
