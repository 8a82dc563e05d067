"""The extensions that call the C interface, compiled once for all tests of it."""

import importlib
import re
import shutil

import pytest

from support import extensions
from support.places import ROOT


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Compile the extensions where the source tree is not in sight."""
    folder = tmp_path_factory.mktemp("users")
    shutil.copy(extensions.SOURCES / "in_c.c", folder / "in_cpp.cpp")
    guide = (ROOT / "docs/guides/c.md").read_text()
    for language, name in (("cython", "in_guide_cython.pyx"), ("c", "in_guide.c")):
        [example] = re.findall(rf"^```{language}\n(.*?)^```$", guide, re.M | re.S)
        (folder / name).write_text(example)
    extensions.build(folder, "in_c.c", "in_cython.pyx")
    return folder


@pytest.fixture
def extension(build, monkeypatch):
    """Import one of the extensions by its name."""
    monkeypatch.syspath_prepend(build)
    return importlib.import_module


@pytest.fixture(params=["in_cython", "in_c", "in_cpp"])
def heap(request, extension):
    return extension(request.param)


@pytest.fixture(params=["in_c", "in_cpp"])
def in_c(request, extension):
    return extension(request.param)


@pytest.fixture
def cython(extension):
    return extension("in_cython")
