"""`memlimits run` whose standard streams are closed, full or replaced."""

import json
import os
import signal
import subprocess
import sys

import pytest

from support.commands import runner

pytestmark = pytest.mark.usefixtures("buffered_streams")

COMMAND = [sys.executable, "-m", "memlimits", "run"]


@pytest.fixture
def run(tmp_path):
    return runner(tmp_path)


BROKEN = {
    "closed": "exec 2>&-;",
    "full": "exec 2>/dev/full;",
    "read-only": "exec 2</dev/null;",
}


@pytest.mark.parametrize("how", [*BROKEN, "pipe"])
@pytest.mark.parametrize("source", ["", "import sys; sys.exit(3)", "PIPE"])
def test_broken_standard_error_changes_nothing(tmp_path, how, source):
    if source == "PIPE":
        source = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    (tmp_path / "program.py").write_text(f"{source}\n")
    reader, writer = os.pipe()
    os.close(reader)
    outcomes = []
    for words in ([], ["-m", "memlimits", "run", "--report", "report.json"]):
        command = ["sh", "-c", f'{BROKEN.get(how, "")} exec "$@"', "sh", sys.executable]
        done = subprocess.run(
            [*command, *words, "program.py"], cwd=tmp_path, stderr=writer, timeout=60
        )
        outcomes.append(done.returncode)
    os.close(writer)
    assert outcomes[0] == outcomes[1]
    assert json.loads((tmp_path / "report.json").read_text())["program"] == ["program.py"]


@pytest.mark.parametrize("death", ["SIG_IGN", "SIG_DFL"])
def test_broken_standard_output_ends_as_without_us(tmp_path, death):
    (tmp_path / "program.py").write_text(
        f"import signal; signal.signal(signal.SIGPIPE, signal.{death}); print('lost')\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    outcomes = [
        subprocess.run(
            [sys.executable, *words, "program.py"],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        ).returncode
        for words in ([], ["-m", "memlimits", "run"])
    ]
    os.close(writer)
    assert outcomes[0] == outcomes[1] in (120, -signal.SIGPIPE)


def test_nothing_is_written_into_a_file_that_took_the_place_of_standard_error(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os; fd = os.open('data', os.O_CREAT | os.O_WRONLY); print(fd)\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout == b"2\n"
    assert (tmp_path / "data").read_bytes() == b""


def test_a_program_may_replace_or_close_its_streams(run):
    done = run("import sys, io; sys.stderr = io.StringIO(); sys.stdout = None")
    assert done.stderr.startswith(b"memlimits: peak: ")
    done = run("import sys; sys.stderr.close(); sys.stdout.close()")
    assert done.stderr.startswith(b"memlimits: peak: ")
