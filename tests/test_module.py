"""The package as a module: its names, and what importing it imports."""

import pytest

import memlimits
from support.process import execute

pytestmark = pytest.mark.core


def test_all_lists_what_is_there():
    assert set(memlimits.__all__) <= set(dir(memlimits))
    for name in memlimits.__all__:
        assert getattr(memlimits, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = memlimits.nonsense


def test_import_imports_no_numpy():
    program = (
        "import sys, memlimits, memlimits.memory\n"
        "memlimits.allocate(100, zeroed=True).release()\n"
        "print('numpy' in sys.modules, 'empty' in dir(memlimits))\n"
    )
    result = execute(program, check=True)
    assert result.stdout == "False True\n"


def test_import_and_core_functions_import_no_numpy():
    result = execute(
        "import sys, memlimits, memlimits.memory\n"
        "dir(memlimits), memlimits.device_info(), memlimits.allocate(10)\n"
        "assert 'numpy' not in sys.modules\n"
        "memlimits.empty\n"
        "assert 'numpy' in sys.modules\n"
    )
    assert (result.stderr, result.returncode) == ("", 0)
