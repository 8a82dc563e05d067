"""Where Python has no GIL, nothing of ours makes it have one."""

import pkgutil
import sysconfig

import pytest

import memlimits
from support.process import execute

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# They need other libraries, which may have the GIL come back.
OF_LIBRARIES = (
    "adapters._exposition",
    "adapters._figures",
    "adapters.dask",
    "adapters.jupyter",
    "adapters.prometheus",
    "cli.screen",
)
EVERYTHING = sorted(
    module.name
    for module in pkgutil.walk_packages(memlimits.__path__, "memlimits.")
    if not module.name.endswith(("__main__", *OF_LIBRARIES))
)


def enabled_after(program):
    program += "\nimport sys; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    done = execute(program, "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout == "True\n"


@pytest.mark.core
@pytest.mark.parametrize("module", ["memlimits", *EVERYTHING])
def test_a_module_needs_no_gil(module):
    assert enabled_after(f"import {module}") == (not FREE_THREADED)


@pytest.mark.core
def test_what_is_imported_when_it_is_used_needs_none():
    names = ["metal", *memlimits.__all__]
    program = f"import memlimits\nfor name in {names}: getattr(memlimits, name)\nmemlimits.stats()"
    assert enabled_after(program) == (not FREE_THREADED)
