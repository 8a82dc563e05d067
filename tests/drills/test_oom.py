"""Programs that take all the memory there is: refused each time, and alive afterwards.

Without memlimits each of them is ended by the system. Those in groups of several sizes are refused
100 times, and all with `MEMLIMITS_SUITES=whole`.
"""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cgroup import inside, kills, needs_groups, nested, set_limit
from support.drills import WHOLE
from support.units import MIB

pytestmark = pytest.mark.host

HUNGRY = Path(__file__).parent / "hungry.py"
MANY = 100
TIMES = MANY if WHOLE else 30
LONG, MIXED = "8192", "100,300,1024,3072"
NUMPY = ["ones", "zeros", "empty"]


def hungry(
    make, when="later", sizes=LONG, how="go on", *, times=TIMES, words=(), options=(), **keywords
):
    """Run the program, after `words`, with Python's `options`."""
    arguments = [HUNGRY, make, when, sizes, str(times), how]
    return subprocess.run(
        [*words, sys.executable, *options, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        **keywords,
    )


def check_refused(done, times=TIMES):
    assert (done.returncode, done.stdout) == (0, f"{times}\n"), done.stderr


# ---- a control group ----


@pytest.fixture
def group():
    with nested() as (group,):
        set_limit(group, 144 * MIB)
        yield group


@needs_groups
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("make", [*NUMPY, "bytearray"])
def test_the_kernel_kills(make, when, group):
    done = hungry(make, when, words=inside(group))
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    assert kills(group) == 1


@needs_groups
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize(
    "make", [*(f"governed {name}" for name in NUMPY), "allocate", "allocate zeroed"]
)
def test_a_group_refuses(make, when, group):
    check_refused(hungry(make, when, words=inside(group)))
    assert kills(group) == 0


@needs_groups
@pytest.mark.parametrize(
    "limits", [[], ["--memory-limit", "1TiB"], ["--memory-limit", "64MiB"]], ids=" ".join
)
def test_a_group_refuses_under_memlimits_run(limits, group, tmp_path):
    """Whether the limit is in the way, or the group."""
    report = tmp_path / "report.json"
    options = ["-m", "memlimits", "run", *limits, "--report", report]
    check_refused(hungry("zeros", words=inside(group), options=options))
    assert kills(group) == 0
    facts = json.loads(report.read_text())
    assert facts["refusals"] >= TIMES
    assert facts["last_refusal"]["blocked_by"] == ("limit" if "64MiB" in limits else "system")


@needs_groups
@pytest.mark.parametrize("make", ["governed zeros", "allocate"])
def test_a_group_refuses_many_sizes(make, group):
    check_refused(hungry(make, sizes=MIXED, words=inside(group)))
    assert kills(group) == 0


@needs_groups
@pytest.mark.parametrize("size", [64, 256, 512] if WHOLE else [64, 256])
@pytest.mark.parametrize("make", ["governed zeros", "allocate"])
def test_a_group_of_any_size_refuses(make, size, group):
    """The margin is a part of what there is."""
    set_limit(group, size * MIB)
    check_refused(hungry(make, sizes="100,1024", times=MANY, words=inside(group)), MANY)
    assert kills(group) == 0


# ---- RLIMIT_AS ----


def address_space(n):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (n, n))


SPACE = 400 * MIB


@pytest.mark.parametrize("make", [f"governed {name}" for name in NUMPY] + ["allocate"])
def test_address_space_is_refused(make):
    """Nothing else is in the way."""
    check_refused(hungry(make, preexec_fn=address_space(SPACE)))


@pytest.mark.parametrize("make", NUMPY)
def test_without_address_space_nothing_goes_on(make):
    """What is left after a refusal, if all was given away, is not enough for the program itself."""
    done = hungry(make, sizes=MIXED, how="thread", preexec_fn=address_space(SPACE))
    assert done.returncode != 0
    assert "can't start new thread" in done.stderr


@pytest.mark.parametrize("make", NUMPY)
def test_a_limit_below_that_leaves_room(make):
    options = ["-m", "memlimits", "run", "--memory-limit", "128MiB"]
    done = hungry(make, sizes=MIXED, how="thread", options=options, preexec_fn=address_space(SPACE))
    check_refused(done)
