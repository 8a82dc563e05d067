"""What .ci/environments.py makes of tox.ini, on the real one and on small ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/environments.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in a clone")

SMALL = """
[tox]
env_list = py311, py313t,
    minimum, lint, drills, bench

[testenv:minimum]
base_python = py311
"""


def run(script, *arguments):
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def clone(tmp_path):
    """A copy of the script beside a tox.ini that names few environments."""
    (tmp_path / "tox.ini").write_text(SMALL)
    (tmp_path / ".ci").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / ".ci"))


def ended(python, output="== 3 passed, 1 skipped in 0.1s ==", retcode=0):
    """One environment of a result file of tox's."""
    runs = [{"command": ["pytest"], "output": output, "retcode": retcode}]
    return {"python": {"version": python}, "test": runs}


GOOD = {
    "py311": ended("3.11.7 (main) [GCC]"),
    "py313t": ended("3.13.15 experimental free-threading build (main) [GCC]"),
    "minimum": ended("3.11.7 (main) [GCC]"),
    "lint": ended("3.14.8 (main) [GCC]", "All checks done"),
    "drills": ended("3.11.7 (main) [GCC]"),
}


def judge(clone, *parts):
    files = []
    for number, part in enumerate(parts):
        files.append(clone.with_name(f"{number}.json"))
        files[-1].write_text(json.dumps({"testenvs": part}))
    done = run(clone, "judge", *files)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_it_is_good_when_all_passed(clone):
    status, lines = judge(clone, GOOD)
    assert status == 0
    assert lines[0] == "py311, Python 3.11.7: passed: 3 passed, 1 skipped in 0.1s"
    assert [line.split(",")[0] for line in lines] == list(GOOD)


def test_several_runs_are_judged_together(clone):
    """Each result lists every environment; those of other runs have no tests in it."""
    skipped = {name: {"python": {"version": "3.11.7"}, "test": []} for name in GOOD}
    first = skipped | {"py311": GOOD["py311"]}
    second = GOOD | {"py311": skipped["py311"]}
    assert judge(clone, first, second)[0] == judge(clone, second, first)[0] == 0


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("py311", None),
        ("py311", {"python": {"version": "3.11.7"}, "test": []}),
        ("py311", ended("3.12.1 (main)")),
        ("py311", ended("3.11.7 experimental free-threading build (main)")),
        ("py313t", ended("3.13.15 (main)")),
        ("minimum", ended("3.12.1 (main)")),
        ("py311", ended("3.11.7 (main)", retcode=1)),
        ("py311", ended("3.11.7 (main)", output="no tests ran")),
        ("lint", ended("3.11.7 (main)", output="", retcode=1)),
        ("drills", None),
    ],
)
def test_it_is_bad_when_one_did_not_pass(clone, name, result):
    others = {other: end for other, end in GOOD.items() if other != name}
    status, lines = judge(clone, others | ({name: result} if result else {}))
    assert status == 1
    assert [line.split(",")[0] for line in lines if "FAILED" in line] == [name]


def test_it_says_why_one_did_not_pass(clone):
    output = """
__ ERROR at teardown of test_a __
    assert 1 == 2
E   assert 1 == 2
==== short test summary info ====
FAILED tests/test_a.py::test_a - assert 1 == 2
== 1 failed, 2 passed in 0.1s ==
"""
    why = output.splitlines()
    race = "SUMMARY: ThreadSanitizer: data race a.c:1 in f"
    failed = ended("3.11.7 (main)", output, retcode=1)
    failed["test"][0]["err"] = f"==================\n{race}\n"
    _, lines = judge(clone, GOOD | {"py311": failed})
    assert lines[1:5] == [why[1], why[3], why[5], race]
    assert lines[5].startswith("py313t, ")


def test_what_did_not_run_says_nothing_more(clone):
    others = {name: end for name, end in GOOD.items() if name != "drills"}
    assert judge(clone, others)[1][-1] == "drills, Python none: FAILED: "


def test_it_is_bad_when_nothing_ran(clone):
    assert judge(clone)[0] == 1


def test_no_environment_at_all_is_not_good(clone):
    (clone.parents[1] / "tox.ini").write_text("[tox]\nenv_list =\n")
    assert judge(clone, GOOD)[0] == 1


def test_a_list_that_tox_would_expand_is_refused(clone):
    (clone.parents[1] / "tox.ini").write_text("[tox]\nenv_list = py3{11,12}\n")
    done = run(clone, "versions")
    assert done.returncode == 1
    assert "env_list is to be plain names, one after another, not py3{11" in done.stderr


def test_what_is_no_command_is_named(clone):
    done = run(clone, "all")
    assert (done.returncode, done.stderr) == (
        1,
        "'all' is none of: versions, checks, github, judge\n",
    )


def test_what_the_scripts_ask_for(clone):
    assert run(clone, "versions").stdout == "3.11 3.13t\n"
    assert run(clone, "checks").stdout == "minimum,lint,drills\n"


def test_what_the_workflow_asks_for(clone):
    outputs = dict(line.split("=", 1) for line in run(clone, "github").stdout.splitlines())
    assert json.loads(outputs["linux"]) == [
        {"env": "py311", "python": "3.11"},
        {"env": "py313t", "python": "3.13t"},
        {"env": "minimum", "python": "3.11"},
        {"env": "lint", "python": "3.11"},
        {"env": "drills", "python": "3.11"},
    ]
    assert json.loads(outputs["macos"]) == ["3.11"]


def test_each_environment_of_the_real_list_is_run_by_some_script():
    """By its version, or among the checks."""
    listed = run(SCRIPT, "github").stdout.splitlines()[0].removeprefix("linux=")
    names = {one["env"] for one in json.loads(listed)}
    pythons = {"py" + one.replace(".", "") for one in run(SCRIPT, "versions").stdout.split()}
    checks = set(run(SCRIPT, "checks").stdout.strip().split(","))
    assert names == pythons | checks
