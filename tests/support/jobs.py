"""Real jobs under a limit: what each needs, and how it ends with less and with more than that.

A job is an ordinary program of tests/drills/jobs/programs that prints a result and knows nothing of
memlimits. What it needs is what a control group without a limit counts at the peak, less what it
counts for an interpreter that does nothing. It is then run inside limits of a share of that, in a
control group of as much, what the interpreter has, and `SLACK`.
"""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import time
from typing import NamedTuple

from support.cgroup import inside, kills, nested, set_limit
from support.places import ROOT, TESTS
from support.units import MIB

PLACE = TESTS / "drills" / "jobs"
# What data.py makes, without what its name ends in.
FILES = {"grid", "model", "records", "table", "tree"}
PROGRAMS = {path.stem: path for path in sorted((PLACE / "programs").glob("*.py"))}
# What a command of the package has besides, and what the kernel counts in batches.
SLACK = 16 * MIB

PAGE = ROOT / "docs" / "governed.md"
# What it says of a library that cannot raise where memory is refused: the process ends, after a
# sentence of ours.
ENDS_THE_PROCESS = "end the process", "ends the process"

RIGHT, WRONG = "right result", "wrong result"
EXCEPTION, REFUSAL = "exception", "clean refusal"
OTHER, CRASH, KILLED, HANGS = "other exception", "crash", "killed", "hangs"
TRACEBACK = "Traceback (most recent call last):"
CHAINED = ("During handling of", "The above exception was")
FAULTS = {WRONG, OTHER, CRASH, KILLED, HANGS}


class Ended(NamedTuple):
    """How a process in a control group of its own ended, and the most bytes it had."""

    status: int | None
    stdout: str
    stderr: str
    peak: int
    kills: int


class Need(NamedTuple):
    """What a job takes when nothing is in its way: bytes, seconds; and what it prints."""

    nbytes: int
    seconds: float
    result: str


class End(NamedTuple):
    """How a job under limits ended: its error, what it said was refused, the report's count."""

    kind: str
    error: str
    said: str
    refusals: int | None


class Expected(NamedTuple):
    """What docs/governed.md says of a job: from which level on it ends well, and how."""

    level: str
    errors: set
    may_end_the_process: bool


def documented():
    """What docs/governed.md says of each job."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = line.split("|")
        if len(cells) != 6:
            continue
        _, _, level, errors, names, _ = cells
        may_end = any(words in errors for words in ENDS_THE_PROCESS)
        for job in set(re.findall(r"`(\w+)`", names)) & set(PROGRAMS):
            found[job] = Expected(
                level.strip(" `"), set(re.findall(r"`([\w.]+)`", errors)), may_end
            )
    return found


EXPECTED = documented()


def imports(path):
    """The names of the modules that a program imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def missing(job):
    """The modules that a job needs and this Python has not."""
    return sorted(name for name in imports(PROGRAMS[job]) if importlib.util.find_spec(name) is None)


def files_of(job):
    """The names of the files that a job reads: those that data.py makes."""
    strings = (
        node.value
        for node in ast.walk(ast.parse(PROGRAMS[job].read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {word for word in strings if word.partition(".")[0] in FILES}


def make_files(job, folder):
    # By a process outside of the group: the page cache that they take is not the job's.
    wanted = [name for name in files_of(job) if not (folder / name).exists()]
    if wanted:
        subprocess.run([sys.executable, PLACE / "data.py", *wanted], cwd=folder, check=True)


def execute(words, folder, limit=None, timeout=300):
    """Run a command in a control group of its own, where it is the only one."""
    with nested() as (group,):
        if limit is not None:
            set_limit(group, limit)
        process = subprocess.Popen(
            [*inside(group), *map(str, words)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            status = None
            end_all(group)
            stdout, stderr = process.communicate()
        end_all(group)
        peak = int((group / "memory.max_usage_in_bytes").read_text())
        return Ended(status, stdout, stderr, peak, kills(group))


def end_all(group):
    """What is left in the group are children of the job's."""
    for number in (group / "cgroup.procs").read_text().split():
        subprocess.run(["kill", "-KILL", number], capture_output=True)


def own(folder):
    """The bytes of an interpreter that does nothing."""
    return execute([sys.executable, "-c", "pass"], folder).peak


def measure(job, folder, interpreters):
    """What the job needs. The first run reads what others then find in the page cache."""
    make_files(job, folder)
    words = [sys.executable, PROGRAMS[job]]
    first = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert first.returncode == 0, f"{job} fails by itself:\n{first.stderr}"
    start = time.monotonic()
    second = execute(words, folder)
    seconds = time.monotonic() - start
    assert second.stdout == first.stdout, f"{job} does not say the same each time"
    return Need(second.peak - interpreters, seconds, first.stdout)


def run_within(job, need, share, options, folder, interpreters):
    """Run the job inside a share of its need, with options of `memlimits run`; how it ended."""
    limit = int(need.nbytes * share)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    words = [sys.executable, "-m", "memlimits", "run", *options, "--memory-limit", limit]
    words += ["--report", report, PROGRAMS[job]]
    patience = 60 + 20 * need.seconds
    ended = execute(words, folder, limit + interpreters + SLACK, patience)
    return judge(job, ended, need.result, report)


def judge(job, ended, result, report):
    text = report.read_text() if report.exists() else ""
    refusals = json.loads(text)["refusals"] if text else None
    said = re.findall("memlimits: refused .*", ended.stderr)
    told = bool(refusals or said)
    expected = EXPECTED.get(job, Expected("", set(), False))
    kind = kind_of(ended, result, told, expected.may_end_the_process)
    error = error_of(ended.stderr)
    if kind == EXCEPTION and not is_one_of(error, expected.errors):
        kind = OTHER
    return End(kind, error, said[-1] if said else "", refusals)


def is_one_of(error, names):
    """Whether its type is one of these, or its name ends so: _ArrayMemoryError is a MemoryError."""
    kind = error.partition(":")[0]
    return any(kind.endswith(name) for name in names)


def kind_of(ended, result, told, may_end):
    if ended.status is None:
        return HANGS
    if ended.kills:
        return KILLED
    if ended.status == 0:
        return RIGHT if ended.stdout == result else WRONG
    if ended.status == 1 and TRACEBACK in ended.stderr:
        return EXCEPTION if told else OTHER
    return REFUSAL if told and may_end else CRASH


def error_of(stderr):
    """What the first traceback and what followed from it end in; without one, the last line."""
    # What was refused is said when it is: also in the midst of another line.
    lines = [line for line in re.sub("memlimits: .*\n", "", stderr).splitlines() if line]
    error = None
    for number, line in enumerate(lines):
        if line == TRACEBACK:
            if error is not None and not lines[number - 1].startswith(CHAINED):
                break
            after = (line for line in lines[number + 1 :] if not line.startswith(" "))
            error = next(after, "")
    return error if error is not None else (lines or [""])[-1]
