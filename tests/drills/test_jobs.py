"""Real jobs at half of the memory that they need, and at twice that.

These are some of them, of few libraries; `python tests/drills/jobs` runs all that can be run.
"""

import sys

import pytest

from support import jobs
from support.cgroup import needs_groups
from support.units import MIB

pytestmark = [pytest.mark.host, needs_groups]

# Of few libraries, and what they are governed by.
SOME = {
    "--govern numpy": ["numpy_matrices", "thread_pool_arrays"],
    "--govern python": ["json_loads", "pandas_strings", "thread_pool"],
    "--govern all": ["bytes_join", "instances", "numpy_sort", "pandas_csv", "sqlite_table"],
}
SOME = [(job, options) for options, names in SOME.items() for job in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def interpreters(folder):
    return jobs.own(folder)


@pytest.mark.parametrize(("job", "options"), SOME)
def test_a_job(job, options, folder, interpreters):
    if absent := jobs.missing(job):
        pytest.skip(f"not installed: {', '.join(absent)}")
    need = jobs.measure(job, folder, interpreters)
    assert 64 * MIB < need.nbytes < 512 * MIB

    def within(share):
        return jobs.run_within(job, need, share, options.split(), folder, interpreters)

    less, more = within(0.5), within(2)
    assert less.kind in (jobs.EXCEPTION, jobs.REFUSAL), less
    assert more.kind == jobs.RIGHT, more


# ---- what the drill is worth ----

TAKE = "held = bytearray(96 << 20)"
SLEEP = "import subprocess as s; s.Popen(['sleep', '1000']{})"
ENDS = {
    "print('as it is to be')": jobs.RIGHT,
    "print('as it is not to be')": jobs.WRONG,
    "raise MemoryError": jobs.OTHER,
    "import os; os.abort()": jobs.CRASH,
    "import sys; sys.exit(1)": jobs.CRASH,
    TAKE: jobs.KILLED,
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TAKE!r}])": jobs.KILLED,
    "import time; time.sleep(1000)": jobs.HANGS,
    SLEEP.format(""): jobs.HANGS,
}


@pytest.mark.parametrize("program", ENDS)
def test_ends_are_told_apart(program, tmp_path):
    ended = jobs.execute([sys.executable, "-c", program], tmp_path, 64 * MIB, timeout=3)
    end = jobs.judge("json_loads", ended, "as it is to be\n", tmp_path / "no report")
    assert end.kind == ENDS[program]


CHAIN = """
import atexit
@atexit.register
def later():
    raise ValueError("a later one")
try:
    raise MemoryError("a first one")
except MemoryError as error:
    raise RuntimeError("what came of it"){}
"""


TORN = """
import sys
print("Traceback (most recent call last):", file=sys.stderr)
print("    memlimits: refused 1 MiB to malloc", file=sys.stderr)
print("some line\\nValueError: torn", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (CHAIN.format(""), "RuntimeError: what came of it"),
        (CHAIN.format(" from error"), "RuntimeError: what came of it"),
        (TORN, "ValueError: torn"),
        ("raise SystemExit('a sentence')", "a sentence"),
        ("pass", ""),
    ],
)
def test_the_error_is_that_which_ended_the_program(program, error, tmp_path):
    assert jobs.error_of(jobs.execute([sys.executable, "-c", program], tmp_path).stderr) == error


@pytest.mark.parametrize("size", [32, 64])
def test_what_a_job_needs_is_what_it_takes(size, tmp_path, interpreters):
    ended = jobs.execute([sys.executable, "-c", f"bytearray({size} << 20)"], tmp_path)
    assert abs(ended.peak - interpreters - size * MIB) < 2 * MIB


def test_a_child_left_behind_is_ended(tmp_path):
    program = SLEEP.format(", stdout=s.DEVNULL, stderr=s.DEVNULL")
    assert jobs.execute([sys.executable, "-c", program], tmp_path).status == 0


def test_jobs_are_documented_and_know_nothing_of_limits():
    assert len(jobs.PROGRAMS) >= 38
    assert set(jobs.EXPECTED) == set(jobs.PROGRAMS)
    for path in jobs.PROGRAMS.values():
        text = path.read_text()
        assert text.startswith('"""')
        assert "memlimits" not in text
