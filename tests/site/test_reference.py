"""The reference has every public name, and of each what a reader needs."""

import importlib
import re
import subprocess
import sys

import pytest

import memlimits
from memlimits import testing
from support.places import ROOT

# Their `__all__` is what is public; the others have no more than the classes of what they return.
MODULES = (
    "memlimits",
    "memlimits.metal",
    "memlimits.pools",
    "memlimits.processes",
    "memlimits.recording",
    "memlimits.system",
    "memlimits.testing",
    "memlimits.adapters.dask",
    "memlimits.adapters.jupyter",
    "memlimits.adapters.mlx",
    "memlimits.adapters.prometheus",
)
# The format's number; what begins with a capital and is no class has no entry.
NOT_SHOWN = {"memlimits.recording.VERSION"}
# What validation asks of methods: the build asks more of all else (docs/conf.py).
OF_METHODS = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "SS01", "SS03", "SS04"}


@pytest.fixture(scope="module")
def entries(site):
    """Every name of Python's and C's that the site has an entry for."""
    inventory = pytest.importorskip("sphinx.util.inventory")
    loaded = inventory.InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {kind: set(names) for kind, names in loaded.data.items()}


def named(entries, domain):
    kinds = [names for kind, names in entries.items() if kind.startswith(f"{domain}:")]
    return set().union(*kinds)


def home(module, name):
    """Under which of its names an object has its entry."""
    if name.endswith("Error") and module == "memlimits":
        return f"memlimits.errors.{name}"
    own = getattr(memlimits, name, None) is getattr(importlib.import_module(module), name)
    return f"memlimits.{name}" if own else f"{module}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(entries, module):
    names = {home(module, name) for name in importlib.import_module(module).__all__}
    assert names - NOT_SHOWN - named(entries, "py") == set()


def test_methods_have_docstrings_with_their_parameters(entries):
    validate = pytest.importorskip("numpydoc.validate")
    memlimits.govern_python, testing.fail()  # what makes the modules of what they return
    methods = entries["py:method"] | entries.get("py:property", set())
    assert len(methods) > 20
    wrong = {
        name: found
        for name in sorted(methods)
        if (found := [e for e in validate.validate(name)["errors"] if e[0] in OF_METHODS])
    }
    assert wrong == {}


def test_every_member_of_the_header_has_an_entry(entries):
    header = (ROOT / "memlimits/include/memlimits.h").read_text()
    shown = {name.rpartition(".")[2] for name in named(entries, "c")}
    structs = re.findall(r"typedef struct (\w+) \{(.*?)\n\} ", header, re.S)
    assert len(structs) == 3
    for struct, body in structs:
        plain = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        members = re.findall(r"\(\*(\w+)\)\(|\b(\w+);", plain)
        assert members
        assert {struct} | {one or other for one, other in members} <= shown
    assert {"memlimits_import", "MEMLIMITS_VERSION", "MEMLIMITS_NEEDED"} <= shown


def test_every_command_has_its_options_there(site):
    page = (site / "reference" / "command.html").read_text()
    titles = set(re.findall(r"<h2>memlimits (\w+)<", page))
    assert {"run", "info", "top", "pool", "metrics", "convert", "plot"} <= titles
    for command in titles:
        words = [sys.executable, "-m", "memlimits", command, "--help"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"^ {2,4}(?:-\w, )?(--[\w-]+)", shown, re.M))
        section = page.partition(f"<h2>memlimits {command}<")[2].partition("<h2>")[0]
        assert [one for one in options | {"usage:"} if one not in section] == [], command


def test_every_option_and_mark_of_the_plugin_is_there():
    page = (ROOT / "docs/reference/testing.md").read_text()
    plugin = (ROOT / "memlimits/pytest.py").read_text()
    options = re.findall(r'addoption\(\s*"(--[\w-]+)"', plugin)
    assert len(options) == 3
    assert [option for option in options if f"`{option} " not in page] == []
    marks = importlib.import_module("memlimits.adapters.marks").LINES
    signatures = [line.partition("):")[0] + ")" for line in marks]
    assert [one for one in signatures if f"`@pytest.mark.{one}`" not in page] == []
