"""The Pythons that are tested are the ones that are said to be, and any other is warned of."""

import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser

import pytest

from memlimits import _TESTED as TESTED
from support.places import ROOT

pytestmark = pytest.mark.inside

ORDINARY = [version for version in TESTED if not version.endswith("t")]
ENVS = ["py" + version.replace(".", "") for version in TESTED]
HERE = "{}.{}".format(*sys.version_info) + ("t" if "t" in sys.abiflags else "")

# The list of what was tested is shorter, the rest of the package is as it was installed.
SHORTENED = f"""
import sys
from importlib.util import find_spec, module_from_spec

spec = find_spec("memlimits")
package = sys.modules["memlimits"] = module_from_spec(spec)
source = spec.loader.get_source("memlimits")
assert source.count('"{HERE}"') == 1
exec(compile(source.replace('"{HERE}"', '"3.0"'), spec.origin, "exec"), package.__dict__)

import memlimits
import memlimits.scopes, memlimits.system
print(memlimits.allocate(1000).nbytes)
"""


def run(program, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60
    )


def test_this_python_is_not_warned_of():
    done = run("import memlimits", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_another_python_is_warned_of_once():
    done = run(SHORTENED, "-W", "always")
    assert (done.returncode, done.stdout) == (0, "1000\n")
    assert done.stderr.count("Warning") == 1
    first = done.stderr.splitlines()[0]
    assert f"RuntimeWarning: memlimits was not tested on Python {HERE}, only on 3." in first
    assert re.match(r"<string>:\d+: ", first)  # where it was imported, not where it warns


def test_the_warning_says_how_to_do_without_it():
    shown = run(SHORTENED).stderr
    option, value = re.search(r'(-W) "(.+?)"', shown).groups()
    done = run(SHORTENED, "-W", "error", option, value)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


def test_where_warnings_are_errors_the_import_is_one():
    done = run(SHORTENED, "-W", "error")
    assert done.returncode == 1
    assert "RuntimeWarning: memlimits was not tested on Python" in done.stderr


def text(name):
    path = ROOT / name
    if not path.exists():
        pytest.skip("not in a clone")
    return path.read_text()


def test_what_is_tested_is_what_is_said_to_be():
    project = tomllib.loads(text("pyproject.toml"))
    prefix = "Programming Language :: Python :: "
    classified = [one.removeprefix(prefix) for one in project["project"]["classifiers"]]
    assert [one for one in classified if re.fullmatch(r"3\.\d+", one)] == ORDINARY
    wheels = project["tool"]["cibuildwheel"]
    assert wheels["build"].split() == [f"cp{one.replace('.', '')}-*" for one in ORDINARY]


def test_wheels_are_tested_with_what_the_tests_need():
    tox = ConfigParser()
    tox.read_string(text("tox.ini"))
    # What one environment alone has is not among them.
    needed = {one for one in tox["testenv"]["deps"].split("\n") if re.match(r"[\w-]+(?!\w*:)", one)}
    wheels = tomllib.loads(text("pyproject.toml"))["tool"]["cibuildwheel"]
    assert needed <= {*wheels["test-requires"]}


def test_what_is_tested_has_an_environment():
    tox = ConfigParser()
    tox.read_string(text("tox.ini"))
    in_tox = re.findall(r"\bpy\w+", tox["tox"]["env_list"])
    assert sorted(in_tox) == sorted(ENVS)


@pytest.mark.parametrize("path", [".ci/run", "tests/run.sh", ".github/workflows/tests.yml"])
def test_the_environments_are_listed_in_no_other_place(path):
    assert "environments.py" in text(path)
    assert re.findall(r"\bpy3\d+t?\b|\b3\.1[1-9]t?\b", text(path)) == []
