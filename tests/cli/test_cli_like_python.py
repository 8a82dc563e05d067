"""Programs under `memlimits run` and under `python`: the same, byte for byte.

Standard output, standard error, and the exit status or the signal; of one thing only is nothing
said: addresses of objects.
"""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from support.programs import ALL

ENVIRONMENT = {
    **os.environ,
    # Nobody leaves bytecode to the other, and the seed of one is that of the other.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)
# What a line marks depends on where in a loop a signal arrived.
UNSTABLE = re.compile(rb"0x[0-9a-f]+|^ +[~^]+\n", re.MULTILINE)


def start(directory, program, *command):
    source = program.source
    source = source if isinstance(source, bytes) else textwrap.dedent(source).encode()
    words = {
        "script": ["program.py", *program.words],
        "module": ["-m", "program", *program.words],
        "code": ["-c", os.fsdecode(source), *program.words],
        "stdin": ["-", *program.words],
        "words": [*program.words],
    }[program.how]
    stdin = source if program.how == "stdin" else program.stdin
    path = directory / "program.py"
    # Once: who was started before may be about to read it.
    if program.how != "code" and not path.exists():
        path.write_bytes(source)
    shell = ["sh", "-c", f'{program.shell} exec "$@"', "sh"] if program.shell else []
    process = subprocess.Popen(
        [*shell, sys.executable, *command, *program.options, *words],
        cwd=directory,
        env={**ENVIRONMENT, **dict(program.env)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return process, stdin


def outcomes(started):
    """What comes of processes that run beside each other."""
    found = []
    for process, stdin in started:
        stdout, stderr = process.communicate(stdin, timeout=120)
        found.append((process.returncode, UNSTABLE.sub(b"", stdout), UNSTABLE.sub(b"", stderr)))
    return found


@pytest.mark.parametrize("name", ALL)
def test_same(tmp_path, name):
    program = ALL[name]
    plain, ours = outcomes(
        [
            start(tmp_path, program),
            start(tmp_path, program, "-m", "memlimits", "run", "--quiet"),
        ]
    )
    assert ours == plain


def test_there_are_enough_of_them_and_none_twice():
    assert len(ALL) >= 100
    assert len({str(program) for program in ALL.values()}) == len(ALL)
