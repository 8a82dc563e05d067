"""Pools of workers in a control group that has little more than their limit, many times.

The kernel kills who passes the group's limit. `MEMLIMITS_ROUNDS` says how often each kind of pool
is run; without it once.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cgroup import kills, needs_groups, nested, set_limit
from support.commands import RUN
from support.units import MIB

PROGRAM = Path(__file__).with_name("worker_pools.py")
ROUNDS = int(os.environ.get("MEMLIMITS_ROUNDS", "1"))
TASKS = 12
# Three of four workers have room for both of their arrays.
LIMIT = 420 * MIB
# For what is not governed: NumPy's code, stacks, page tables.
GROUP = LIMIT + 160 * MIB
METHODS = ("fork", "spawn", "forkserver")
POOLS = [
    *(pytest.param(kind, method, id=f"{kind}-{method}")
      for kind in ("futures", "multiprocessing") for method in METHODS),
    pytest.param("joblib", "loky", id="joblib"),
]  # fmt: skip

pytestmark = [pytest.mark.host, needs_groups, pytest.mark.parametrize(("kind", "method"), POOLS)]


def run(kind, method, policy):
    """What came of all rounds: for each so many right, refused, and told why."""
    found = []
    if kind == "joblib":
        pytest.importorskip("joblib")
    with nested() as (group,):
        set_limit(group, GROUP)
        words = [sys.executable, *RUN, f"--memory-limit={LIMIT}B", f"--policy={policy}", PROGRAM]
        words = [*map(str, words), kind, method, str(TASKS)]
        for _ in range(ROUNDS):
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=200,
                preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
            )
            assert done.returncode == 0, done.stderr
            assert "blocked by" not in done.stderr or policy == "strict", done.stderr
            found.append(tuple(map(int, done.stdout.split())))
        assert kills(group) == 0
    return found


def test_all_that_wait_are_done(kind, method):
    assert run(kind, method, "wait") == [(TASKS, 0, 0)] * ROUNDS


def test_what_is_refused_is_an_error_of_its_task(kind, method):
    for right, refused, told in run(kind, method, "strict"):
        assert right + refused == TASKS
        assert told == refused
        assert right > 0
