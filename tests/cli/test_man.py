"""`memlimits man`: its pages, as man and mandoc show them."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from memlimits.cli import model, options, texts
from support.commands import execute
from support.places import ROOT

NAMES = ["memlimits", *(f"memlimits-{name}" for name in texts.COMMANDS)]


def printed(*words, code=0):
    done = execute("-m", "memlimits", "man", *words)
    assert done.returncode == code, done.stderr
    return (done.stderr if code else done.stdout).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One with all pages."""
    made = tmp_path_factory.mktemp("man") / "a" / "b"
    done = execute("-m", "memlimits", "man", "--into", made)
    assert done.stderr.decode() == f"memlimits: made {len(NAMES)} pages in {made}\n"
    assert sorted(path.name for path in made.iterdir()) == sorted(f"{name}.1" for name in NAMES)
    return made


def shown(program, path):
    """A page as text, as wide as it wants to be, without what makes letters bold."""
    words = {
        "man": ["man", "--warnings", "--nh", "--nj", "-l", path],
        "mandoc": ["mandoc", "-T", "ascii", "-O", "width=300", path],
    }[program]
    environ = {**os.environ, "MANWIDTH": "300", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=True)
    assert done.stderr == ""
    return re.sub(r".\x08|\033\[[0-9;]*m", "", done.stdout)


@pytest.mark.parametrize("program", ["man", "mandoc"])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_what_there_is_to_type(folder, name, program):
    # Other systems have another man, with other options.
    if not shutil.which({"man": "mandb"}.get(program, program)):
        pytest.skip(f"no {program} here")
    text = shown(program, folder / f"{name}.1")
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"):
        assert re.search(rf"^{title}$", text, re.M), title
    command = name.removeprefix("memlimits").removeprefix("-")
    if not command:
        assert [words for words in texts.FIRST.values() if f" {words}\n" not in text] == []
        assert [other for other in NAMES[1:] if f"{other}(1)" not in text] == []
        return
    assert re.search(rf"^ +{name} - {re.escape(texts.COMMANDS[command])}$", text, re.M)
    # So that what is copied from the page works: hyphens and quotes are those of the keyboard.
    assert [words for words in texts.EXAMPLES[command] if f" {words}\n" not in text] == []
    for one in COMMANDS.values():
        if one.name.split()[0] != command:
            continue
        for argument in one.arguments:
            head = f"{', '.join(argument.flags)} {argument.metavar}".strip()
            assert re.search(rf"^ +{re.escape(head)}( |$)", text, re.M), head


COMMANDS = model.commands()


def test_the_pages_have_what_the_help_of_each_command_has():
    """Which options there are is told by argparse's own help, and by what reads them for `run`."""
    for name, command in COMMANDS.items():
        if name == "run":
            taken = [*options._WITH_VALUE, *options._WITHOUT_VALUE, "-h"]
        else:
            done = execute("-m", "memlimits", *name.split(), "--help")
            text = done.stdout.decode().partition("\noptions:\n")[2].partition("\nexample")[0]
            heads = re.findall(r"^  (-.*?)(?:  |$)", text, re.M)
            taken = re.findall(r"(?<!\w)--?[a-z][\w-]*", " ".join(heads))
        assert sorted(flag for one in command.options for flag in one.flags) == sorted(taken), name


@pytest.mark.skipif(not shutil.which("mandoc"), reason="no mandoc here")
def test_mandoc_finds_nothing_wrong(folder):
    pages = sorted(folder.iterdir())
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True
    )
    # They have none, so that they change only where the command does.
    found = [line for line in done.stdout.splitlines() if 'missing date, using ""' not in line]
    assert (found, done.stderr) == ([], "")


def test_a_page_can_be_printed(folder):
    assert printed() == (folder / "memlimits.1").read_text()
    assert printed("run") == (folder / "memlimits-run.1").read_text()


def test_what_a_value_can_be_is_said(folder):
    text = (folder / "memlimits-run.1").read_text()
    for value in ("strict", "guideline", "wait", "numpy", "resident"):
        assert value in text
    assert "samples, pool, holders, refusals, processes" in (
        (folder / "memlimits-convert.1").read_text().replace("\n", " ")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "invalid value 'rum': write one of run, top, "),
        (["run", "--into", "."], "argument --into: it is for all pages, and run is one: leave"),
        (
            ["--into", "/proc/nonesuch"],
            "cannot write '/proc/nonesuch': No such file or directory; ",
        ),
        (["--into", "/proc"], "cannot write '/proc/memlimits.1': "),
        (["--into", ""], "cannot write '': No such file or directory; choose another folder by "),
    ],
)
def test_what_is_wrong_is_said(words, message):
    assert message in printed(*words, code=2)


def test_what_is_installed_is_what_the_command_prints(tmp_path):
    share = ROOT / "share"
    if not share.exists():
        pytest.skip("not in a clone")
    shutil.copy(share / "make.sh", tmp_path)
    environ = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["sh", "make.sh"], cwd=tmp_path, env=environ, check=True, capture_output=True)

    def texts_in(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in files}

    assert texts_in(tmp_path) == texts_in(share), "sh share/make.sh makes it anew"
