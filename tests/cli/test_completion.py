"""`memlimits completion`, in the shells that it is for."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from memlimits.cli import columns, convert, texts
from support.commands import execute
from support.members import members
from support.patience import until
from support.terminal import terminal

FILES = {"a.rec", "train.py"}
POOLS = ["gpu0", "gpu1"]
COMMANDS = list(texts.COMMANDS)
RUN = [*texts.RUN_OPTIONS]

# What was written, and all that it can go on with; FILES where files are meant.
CASES = [
    ("", COMMANDS),
    ("co", ["convert", "completion"]),
    ("--v", ["--version"]),
    ("run --p", ["--per-process", "--pool", "--policy"]),
    ("run --policy ", ["guideline", "strict", "wait"]),
    ("run --policy s", ["strict"]),
    ("run --count ", ["given", "resident", "process"]),
    ("run --govern ", ["numpy", "python", "all"]),
    ("run --memory-limit ", []),
    ("run --memory-limit 1GiB --quiet --wir", ["--wired-limit"]),
    ("run --pool ", POOLS),
    ("run --pool gpu1 --pol", ["--policy"]),
    ("run --record ", FILES),
    ("run ", FILES),
    ("run --memory-limit 1GiB ", FILES),
    ("run --policy=wait ", FILES),
    ("run train.py ", FILES),
    ("run train.py --", []),
    ("run train.py run --", []),
    ("run -- --", []),
    ("run -X dev --qui", ["--quiet"]),
    ("run -m json.tool ", FILES),
    ("run -m json.tool --", []),
    ("run -c 1 --", []),
    ("top --sort ", columns.NAMES),
    ("top --pool gpu0 --on", ["--once"]),
    ("top --pool ", POOLS),
    ("pool ", ["create", "list", "set", "remove"]),
    ("pool s", ["set"]),
    ("pool set ", POOLS),
    ("pool set --li", ["--limit"]),
    ("pool create ", []),
    ("pool create gpu2 --e", ["--everybody"]),
    ("pool list --js", ["--json"]),
    ("convert ", FILES),
    ("convert a.rec --to ", list(convert.FORMATS)),
    ("convert --to csv --table ", list(convert.TABLES)),
    ("convert --to csv a.rec -o ", FILES),
    ("convert a.rec --fo", ["--force"]),
    ("plot a.rec --w", ["--width"]),
    ("metrics gpu0 ", POOLS),
    ("man ", COMMANDS),
    ("man --into ", ["bin"]),
    ("completion ", ["bash", "zsh", "fish"]),
    ("--help ", COMMANDS),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One with some files in it, two pools, and the command."""
    folder = tmp_path_factory.mktemp("completion")
    for name in FILES:
        (folder / name).touch()
    name = folder / "bin" / "memlimits"
    name.parent.mkdir()
    name.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m memlimits "$@"\n')
    name.chmod(0o755)
    pools = folder / "bin" / "pools"
    pools.mkdir()
    for one in POOLS:
        done = execute(
            "-m", "memlimits", "pool", "create", one, "--limit=2MiB", env=environ(folder)
        )
        assert done.returncode == 0, done.stderr
    for shell in ("bash", "zsh", "fish"):
        done = execute("-m", "memlimits", "completion", shell)
        assert (done.returncode, done.stderr) == (0, b"")
        (folder / "bin" / f"script.{shell}").write_bytes(done.stdout)
    return folder


def environ(folder):
    return {
        **os.environ,
        "HOME": str(folder / "bin"),
        "LC_ALL": "C.UTF-8",
        "MEMLIMITS_POOLS": str(folder / "bin" / "pools"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "TERM": "xterm",
    }


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"no {program} here")


def run(shell, script, folder, *words):
    done = subprocess.run(
        [shell, "-c", script, *words],
        cwd=folder,
        env=environ(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


# Readline's own words, which the = of an option and its value is one of.
IN_BASH = """
source bin/script.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_memlimits "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
[ -z "${COMPREPLY[*]}" ] || printf '%s\\n' "${COMPREPLY[@]}"
"""


def in_bash(folder, line):
    words = line.replace("=", " = ").split(" ")
    return run("bash", IN_BASH, folder, "bash", "memlimits", *words)


@pytest.mark.parametrize(("line", "found"), CASES)
def test_in_bash(folder, line, found):
    needs("bash")
    # Bash completes files itself where nothing is found; and nothing by itself where that is off.
    expected = [] if found is FILES else found
    assert sorted(in_bash(folder, line)) == sorted(expected)


def test_in_bash_a_value_may_stand_behind_its_option(folder):
    needs("bash")
    assert in_bash(folder, "run --policy=") == ["guideline", "strict", "wait"]
    assert in_bash(folder, "run --policy=w") == ["wait"]
    assert in_bash(folder, "run --policy=wait --tim") == ["--timeout"]


@pytest.mark.parametrize(("line", "found"), CASES)
def test_in_fish(folder, line, found):
    needs("fish")
    script = f"source bin/script.fish; complete -C {shlex.quote(f'memlimits {line}')}"
    seen = [one.partition("\t")[0] for one in run("fish", script, folder)]
    if found is FILES:
        assert set(seen) - {"bin/"} >= FILES
    elif found == ["bin"]:
        assert seen == ["bin/"]
    else:
        assert sorted(seen) == sorted(found)


def test_in_fish_words_are_explained(folder):
    needs("fish")
    lines = run("fish", "source bin/script.fish; complete -C 'memlimits '", folder)
    assert sorted(lines) == sorted(f"{name}\t{what}" for name, what in texts.COMMANDS.items())


# ---- as it is typed ----

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source bin/script.bash"),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -D -u; eval "$(memlimits completion zsh)"',
    ),
    # Found by its name, as the installed one is.
    "zsh, a file": (
        ["zsh", "-f", "-i"],
        "cp bin/script.zsh bin/_memlimits; fpath=($PWD/bin $fpath); autoload -Uz compinit; "
        "compinit -D -u",
    ),
    "fish": (["fish", "--no-config", "-i"], "source bin/script.fish"),
}


class Prompt:
    """An interactive shell in a terminal."""

    def __init__(self, terminal, folder, shell):
        self.terminal = terminal
        words, first = STARTS[shell]
        script = f"cd {shlex.quote(str(folder))} && exec {shlex.join(words)}"
        terminal.start(["sh", "-c", script], environ(folder))
        self.typed(f"{first}; echo rea''dy")
        terminal.says("ready")

    def typed(self, line):
        self.terminal.type(line)
        self.terminal.press("Enter")

    def write(self, line, *keys):
        self.typed("clear")
        until(lambda: "clear" not in self.terminal.text())
        self.terminal.type(line)
        self.terminal.says(line.rstrip())
        self.terminal.press(*keys)

    def becomes(self, line, completed):
        """Press Tab behind a line, and wait for it to be what it is to be."""
        self.write(line, "Tab")
        self.terminal.type("<end")
        self.terminal.says(f"{completed}<end")
        self.terminal.press("C-u")

    def lists(self, line, *shown):
        self.write(line, "Tab", "Tab")  # bash lists them at the second
        for one in shown:
            self.terminal.says(one)
        self.terminal.press("C-u")


@pytest.fixture(params=STARTS)
def prompt(request, folder):
    needs("tmux", STARTS[request.param][0][0])
    with terminal(columns=120, lines=40) as one:
        yield Prompt(one, folder, request.param)


def test_as_it_is_typed(prompt):
    prompt.becomes("memlimits conv", "memlimits convert ")
    prompt.becomes("memlimits run --policy=s", "memlimits run --policy=strict ")
    prompt.becomes("memlimits run --policy s", "memlimits run --policy strict ")
    prompt.becomes("memlimits run --memory-limit 1GiB tr", "--memory-limit 1GiB train.py ")
    prompt.becomes("memlimits run -m json.tool a", "memlimits run -m json.tool a.rec ")
    prompt.becomes("memlimits run train.py --mem", "memlimits run train.py --mem")
    prompt.becomes("memlimits run --memory-limit tr", "memlimits run --memory-limit tr")
    prompt.becomes("memlimits pool s", "memlimits pool set ")
    prompt.becomes("memlimits man --into b", "memlimits man --into bin/")
    prompt.lists("memlimits run --policy ", "guideline", "strict", "wait")
    prompt.lists("memlimits pool set gpu", "gpu0", "gpu1")
    prompt.lists("memlimits convert a.rec --to ", "flamegraph", "parquet", "viz")
    prompt.lists("memlimits run ", "train.py", "a.rec")


# ---- what a script asks for ----


@pytest.mark.host
def test_pids_are_those_of_programs_that_use_memlimits(folder, tmp_path):
    with members(tmp_path, 1) as (one,):
        one.ask("take(1 << 20)")
        done = execute("-m", "memlimits", "_names", "pids", "pools", env=environ(folder))
        lines = dict(line.split("\t") for line in done.stdout.decode().splitlines())
        assert str(one.pid) in lines
        assert [name for name in lines if lines[name] == "pool"] == POOLS


def test_nothing_is_said_in_the_middle_of_a_line(folder):
    (folder / "bin" / "odd").touch()
    wrong = {**environ(folder), "MEMLIMITS_POOLS": str(folder / "bin" / "odd")}
    done = execute("-m", "memlimits", "_names", "pools", env=wrong)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_has_every_command_and_option(folder, shell):
    text = (folder / "bin" / f"script.{shell}").read_text()
    missing = [name for name in RUN if (name[2:] if shell == "fish" else name) not in text]
    assert missing == []
    assert [name for name in COMMANDS if name not in text] == []


def test_shellcheck_finds_nothing_in_it(folder):
    needs("shellcheck")
    script = folder / "bin" / "script.bash"
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_shell_that_is_not_known_is_named(capfd):
    from memlimits import cli

    with pytest.raises(SystemExit) as leaves:
        cli.main(["completion", "basch"])
    assert leaves.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.endswith("invalid value 'basch': write one of bash, zsh, fish (did you mean bash?)")
