"""The pod that docs/guides/containers.md shows: its command, run in a group of the pod's limit."""

import os
import re
import subprocess
import sys

import pytest

from memlimits.cli.options import unknown_variables
from memlimits.sizes import parse_size
from support.cgroup import inside, needs_groups, nested, set_limit
from support.places import ROOT

yaml = pytest.importorskip("yaml")
PAGE = ROOT / "docs/guides/containers.md"
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not PAGE.exists(), reason="not in a clone"),
]


@pytest.fixture
def container():
    [pod] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    [container] = yaml.safe_load(pod)["spec"]["containers"]
    return container


def variables(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_its_variables_are_memlimits(container):
    assert len(variables(container)) > 0
    assert unknown_variables(variables(container)) == []


@needs_groups
def test_it_runs_within_a_share_of_its_limit(container):
    pytest.importorskip("numpy")
    limit = parse_size(container["resources"]["limits"]["memory"], None)
    program, *words = [*container["command"], *container["args"]]
    assert program == "memlimits"
    words = [word.replace("/app", str(ROOT)) for word in words]
    with nested("pod") as groups:
        set_limit(groups[-1], limit)
        done = subprocess.run(
            [*inside(groups[-1]), sys.executable, "-m", "memlimits", *words],
            env={**os.environ, **variables(container)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1776 of 1797 ")
    share = int(variables(container)["MEMLIMITS_MEMORY_LIMIT"].removesuffix("%"))
    assert f"limit {limit * share // 100 >> 20} MiB (strict)" in done.stderr
