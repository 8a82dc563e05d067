"""`memlimits --help` and that of each command; what is said of a word that is not known."""

import doctest
import os
import re
import shlex
import subprocess
import sys

import pytest

import memlimits
from memlimits import cli
from memlimits.cli import meant as cli_meant
from memlimits.cli import options, parsers, texts
from support.commands import execute
from support.places import ROOT


def command(*words, code=0, **environ):
    done = execute("-m", "memlimits", *words, env={**os.environ, **environ})
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def error_of(capfd, *words):
    """The last line that the command says where its words are wrong."""
    try:
        status = cli.main(words)
    except SystemExit as leaves:
        status = leaves.code
    said = capfd.readouterr()
    assert (status, said.out) == (2, "")
    return said.err.splitlines()[-1]


def test_the_first_screen_fits_one():
    text, _ = command("--help")
    lines = text.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert "\033" not in text


def test_it_is_the_same_however_it_is_asked_for():
    asked, _ = command("--help", COLUMNS="40")
    assert command("-h", FORCE_COLOR="1") == (asked, "")
    # A script whose variable is empty has not done what it was to do.
    assert command(code=2) == ("", asked)


def test_what_people_want_first_comes_before_all_commands():
    text, _ = command("--help")
    first, _, rest = text.partition("\ncommands:\n")
    assert re.findall(r"^  (memlimits .*)$", first, re.M) == list(texts.FIRST.values())
    listed = re.findall(r"^  (\w+)  +\S", rest, re.M)
    assert listed == list(texts.COMMANDS)


@pytest.fixture
def folder(tmp_path):
    """One with a program in it, and the command on the path before all others."""
    (tmp_path / "train.py").write_text("print(sum(range(1000)))\n")
    name = tmp_path / "bin" / "memlimits"
    name.parent.mkdir()
    name.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m memlimits "$@"\n')
    name.chmod(0o755)
    return tmp_path


@pytest.mark.host
@pytest.mark.parametrize("words", texts.FIRST.values())
def test_what_people_want_first_can_be_typed(words, folder):
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", words], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("499500\n" if "train.py" in words else "memlimits top ")
    if "convert" in words:
        assert (folder / "a.html").read_text().startswith("<!")


@pytest.mark.parametrize("name", texts.EXAMPLES)
def test_each_commands_help_ends_with_examples(name):
    text, _ = command(*name.split(), "--help", COLUMNS="80")
    assert text.endswith(f"\n\n{texts.examples(name)}")
    described = text.partition("\nkeys:")[0]
    assert max(map(len, described.splitlines())) <= 80


def test_every_command_has_examples():
    below = [
        f"{name} {last}"
        for name in texts.COMMANDS
        if name != "run"
        for last in parsers.below(parsers.parser_of(name))
    ]
    assert sorted(texts.EXAMPLES) == sorted([*texts.COMMANDS, *below])


EXAMPLES = [words for some in texts.EXAMPLES.values() for words in some]


@pytest.mark.parametrize("example", [*EXAMPLES, *texts.FIRST.values()])
def test_examples_are_what_the_command_takes(example):
    found = re.findall(r"\bmemlimits ([^|)&]+)", example)
    assert found
    for part in found:
        first, *words = shlex.split(part.rstrip('"'))
        if first == "run":
            assert options.read(words, {}).program
        else:
            assert parsers.read([first, *words]).command == first


def test_the_help_of_run_has_every_option_and_variable():
    text, _ = command("run", "--help")
    assert text.startswith(f"{options.USAGE}\n")
    shown = re.findall(r"^  (?:-h, )?(--[\w-]+)", text, re.M)
    taken = [*options._WITH_VALUE, *options._WITHOUT_VALUE]
    assert sorted(shown) == sorted(taken)
    assert [name for name in options.VARIABLES.values() if name not in text] == []
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["convrt"], "there is no command 'convrt' (did you mean convert?)"),
        (["tpo", "--once"], "there is no command 'tpo' (did you mean top?)"),
        (["pool", "creat", "p"], "(did you mean create?)"),
        (["convert", "--too", "html", "a.rec"], "unknown option: --too (did you mean --to?)"),
        (["convert", "--to", "htm", "a.rec"], "(did you mean html?)"),
        (["convert", "a.rec", "--too=html"], "unknown option: --too=html (did you mean --to?)"),
        (["pool", "create", "p", "--limt", "1GiB"], "--limt (did you mean --limit?)"),
        (["top", "--jsn"], "unknown option: --jsn (did you mean --json?)"),
        (["info", "--jso"], "unknown option: --jso (did you mean --json?)"),
        (["run", "--memory-limt=1GiB", "x.py"], "(did you mean --memory-limit?)"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(capfd, words, answer):
    assert error_of(capfd, *words).endswith(answer)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["frobnicate"], ", completion; memlimits --help has more"),
        (["train.py"], "a program follows run: memlimits run train.py"),
        (["--frobnicate"], "memlimits --help lists the commands"),
        (["run", "--frobnicate"], "memlimits run --help lists them"),
        (["run"], " is missing, such as in memlimits run train.py"),
        (["run", "--memory-limit=1GiB", "-O"], "in memlimits run --memory-limit=1GiB -O train.py"),
        (["run", "-m"], "a module is missing, as in -m pytest"),
        (
            ["top", "--frobnicate"],
            "unknown option: --frobnicate; memlimits top --help has examples",
        ),
        (["pool", "list", "p", "q"], "'q' is one too many; memlimits pool --help has examples"),
        (["plot", "a.rec"], "-o/--output; memlimits plot --help has examples"),
        (["pool"], "required: ACTION; memlimits pool --help has examples"),
        (["top", "-z"], "'-z' is one too many; memlimits top --help has examples"),
    ],
)
def test_an_error_ends_with_the_way_out(capfd, words, way_out):
    assert error_of(capfd, *words).endswith(way_out)


def test_what_is_meant_is_the_nearest():
    assert cli_meant.meant("--quite", ["--quiet", "--policy"]) == " (did you mean --quiet?)"
    assert cli_meant.meant("--frobnicate", ["--quiet", "--once"]) == ""
    assert cli_meant.meant("MEMLIMITS_FOO", ["MEMLIMITS_POOL", "MEMLIMITS_QUIET"]) == ""


def test_a_value_that_looks_like_an_option_comes_after_two_dashes(capfd):
    assert error_of(capfd, "top", "--", "--odd").endswith("a letter or a digit first")


def test_to_run_a_program_none_of_this_is_imported(tmp_path):
    (tmp_path / "train.py").write_text("print(1)\n")
    words = ["-X", "importtime", "-m", "memlimits", "run", "--memory-limit=1GiB", "train.py"]
    done = execute(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr.decode(), re.M))
    ours = {f"memlimits.cli.{name}" for name in ("help", "meant", "model", "parsers", "texts")}
    assert "memlimits.cli.options" in imported
    assert imported & {"argparse", "difflib", "textwrap", *ours} == set()


def test_the_version_needs_no_argparse():
    program = (
        "import sys; from memlimits.cli import main; status = main(['--version']);"
        "sys.exit(status or 'argparse' in sys.modules)"
    )
    done = execute("-c", program)
    assert (done.returncode, done.stdout) == (0, f"memlimits {memlimits.__version__}\n".encode())


def test_a_program_that_is_not_there_is_told_as_python_tells_it(tmp_path):
    plain = execute("nonesuch.py", cwd=tmp_path)
    ours = execute("-m", "memlimits", "run", "nonesuch.py", cwd=tmp_path)
    assert plain.returncode == ours.returncode == 2
    told = plain.stderr.decode().partition(": ")[2]
    assert ours.stderr.decode() == f"memlimits: {told}"


def test_a_pool_that_is_not_there_is_told_with_what_makes_it(tmp_path):
    (tmp_path / "train.py").write_text("")
    environ = {**os.environ, "MEMLIMITS_POOLS": str(tmp_path)}
    words = ["-m", "memlimits", "run", "--pool", "gpu0", "train.py"]
    done = execute(*words, env=environ, cwd=tmp_path)
    assert done.returncode == 2
    assert b"no pool 'gpu0': memlimits pool create gpu0 --limit SIZE makes it" in done.stderr


def test_the_page_on_it_shows_the_same(tmp_path):
    page = ROOT / "docs" / "guides" / "terminal.md"
    if not page.exists():
        pytest.skip("not in a clone")
    text = page.read_text()
    shown = re.findall(r"^```console\n\$ memlimits ([^\n]*)\n(.*?)^```$", text, re.M | re.S)
    assert [words for words, _ in shown] == ["--help", "run --memory-limt 2GiB train.py"]
    for words, expected in shown:
        done = execute("-m", "memlimits", *shlex.split(words))
        said = (done.stdout + done.stderr).decode()
        assert doctest.OutputChecker().check_output(expected, said, doctest.ELLIPSIS), said
    for example in texts.EXAMPLES["completion"]:
        assert f"| `{example}` |" in text.replace("\\|", "|")
    # Each line of the scripts is run, in a home of its own.
    scripts = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S))
    scripts = re.sub(r"^man .*\n|\| man -l -", "", scripts, flags=re.M)
    scripts = scripts.replace("memlimits ", f"{shlex.quote(sys.executable)} -m memlimits ")
    environ = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-ec", scripts], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("*.1"))) == len(texts.COMMANDS) + 1
    assert len([path for path in tmp_path.rglob("memlimits*") if path.suffix != ".1"]) == 2
