"""Commands that a page shows with their output, run as a reader runs them."""

import doctest
import os
import re
import shlex
import subprocess
import sys

from support.places import ROOT


def shown(page):
    """Return each `$ command` of a page's console blocks, with the output shown below it."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    return [part.split("\n", 1) for block in blocks for part in block.split("$ ")[1:]]


def run_as_shown(page, program, folder, *more):
    """Run the one command of the page that has this program, with more arguments if any.

    What it prints has to be what the page shows. The folder is where it runs, and where its
    arguments lie.
    """
    [(command, output)] = [one for one in shown(page) if program in one[0]]
    first, *words = shlex.split(command)
    before = {"memlimits": ["-m", "memlimits"], "python": []}[first]
    # Not in the source tree, whose package would be found before the installed one.
    (folder / "examples").symlink_to(ROOT / "examples")
    run = subprocess.run(
        [sys.executable, *before, *words, *map(str, more)],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout
    assert doctest.OutputChecker().check_output(output, run.stdout, doctest.ELLIPSIS), run.stdout
    return run.stdout
