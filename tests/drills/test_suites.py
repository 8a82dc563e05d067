"""The tests of NumPy, SciPy and pandas, with memlimits and without: the same passes and failures.

All runs take place at once, in one process each, in the same order and from the same seeds: without
memlimits, with what `run` governs by itself, and with all that malloc gives. What differs has to be
in suites/excepted.txt, and what is there has to differ. A part of each suite is run, and all of it
with `MEMLIMITS_SUITES=whole`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.drills import WHOLE

pytestmark = pytest.mark.host

PLUGINS = Path(__file__).parent / "suites"
EXCEPTED = {
    line
    for line in (PLUGINS / "excepted.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
LIMIT = ["--memory-limit", "4GiB", "--policy", "strict"]
WAYS = {"run": [], "all": ["--govern", "all"]}

# What numpy.test() runs is what is not slow. f2py's tests are Fortran's, and say nothing of memory.
FAST = ["-m", "not slow and not network and not single_cpu"]
ALL_OF_NUMPY = ["numpy", "--ignore=numpy/f2py"]
MUCH_OF_NUMPY = [
    "numpy/_core/tests/test_ufunc.py",
    "numpy/_core/tests/test_regression.py",
    "numpy/ma",
]
NUMPY = [*(ALL_OF_NUMPY if WHOLE else MUCH_OF_NUMPY), *FAST]
# The tests of NumPy's own handlers are slow ones: they compile an extension.
HANDLERS = ["numpy/_core/tests/test_mem_policy.py"]
ALL_OF_SCIPY = ["scipy/linalg/tests", "--ignore=scipy/linalg/tests/test_extending.py"]
MUCH_OF_SCIPY = [f"scipy/linalg/tests/test_{name}.py" for name in ("basic", "decomp")]
SCIPY = [*(ALL_OF_SCIPY if WHOLE else MUCH_OF_SCIPY), *FAST]
MUCH_OF_PANDAS = [
    "pandas/tests/frame/test_constructors.py",
    "pandas/tests/frame/indexing",
    "pandas/tests/reshape/merge",
    "pandas/tests/internals",
]
MORE_OF_PANDAS = [
    "pandas/tests/frame/test_reductions.py",
    "pandas/tests/groupby/test_groupby.py",
    "pandas/tests/series/indexing",
    "pandas/tests/test_algos.py",
    "pandas/tests/test_nanops.py",
    "pandas/tests/test_sorting.py",
]
PANDAS = [*MUCH_OF_PANDAS, *(MORE_OF_PANDAS if WHOLE else []), *FAST]


def start(words, paths, folder, name):
    """Run pytest on installed tests, started by `words`; return the process."""
    installed = Path(importlib.util.find_spec("numpy").origin).parents[1]
    options = ["-q", "-p", "outcomes", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=."]
    with open(folder / f"{name}.txt", "w") as output:
        return subprocess.Popen(
            [sys.executable, *words, "pytest", *options, f"--basetemp={folder / name}", *paths],
            cwd=installed,
            env={
                **{key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"},
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": str(PLUGINS),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OUTCOMES": str(folder / f"{name}.json"),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def outcomes(process, folder, name):
    # 1: some of them failed.
    if process.wait(1200) not in (0, 1):
        pytest.fail((folder / f"{name}.txt").read_text()[-4000:])
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("paths", "least"),
    [
        (NUMPY, 40_000 if WHOLE else 5_500),
        (HANDLERS, 9),
        (SCIPY, 7_000 if WHOLE else 2_900),
        (PANDAS, 8_000 if WHOLE else 4_000),
    ],
    ids=["numpy", "numpy-handlers", "scipy", "pandas"],
)
def test_suite(paths, least, tmp_path):
    def report(way):
        return tmp_path / f"report-{way}.json"

    runs = {"plain": start(["-m"], paths, tmp_path, "plain")}
    for way, words in WAYS.items():
        governing = ["-m", "memlimits", "run", *LIMIT, *words, "--report", report(way), "-m"]
        runs[way] = start(governing, paths, tmp_path, way)
    try:
        found = {way: outcomes(process, tmp_path, way) for way, process in runs.items()}
    finally:
        for process in runs.values():
            process.kill()
    before = found.pop("plain")
    assert len(before) >= least
    for way, after in found.items():
        facts = json.loads(report(way).read_text())
        assert facts["peak"] > 0
        assert facts["hits"] > least
        assert list(after) == list(before), way
        differs = {test: (old, after[test]) for test, old in before.items() if old != after[test]}
        assert set(differs) == EXCEPTED & set(before), (way, differs)
        passed = sum("call passed" in each for each in after.values())
        assert passed > least * 0.8
