"""The package as a module: its names, and what importing it imports."""

import importlib
import sys

import pytest

import memlimits
from memlimits import _modules
from support.process import execute, run

pytestmark = [pytest.mark.inside, pytest.mark.core]


def test_all_lists_what_is_there():
    assert set(memlimits.__all__) <= set(dir(memlimits))
    assert "TYPE_CHECKING" not in dir(memlimits)
    assert list(memlimits.__all__) == sorted(memlimits.__all__)
    for name in memlimits.__all__:
        assert getattr(memlimits, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = memlimits.nonsense


def test_import_and_core_functions_import_no_numpy():
    result = execute(
        "import sys, memlimits\n"
        "heavy = {'argparse', 'dataclasses', 'numpy', 'typing'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'empty' in dir(memlimits)\n"
        "memlimits.device_info(), memlimits.allocate(10, zeroed=True)\n"
        "assert 'numpy' not in sys.modules\n"
        "memlimits.empty\n"
        "assert 'numpy' in sys.modules\n"
    )
    assert (result.stderr, result.returncode) == ("", 0)


@pytest.mark.host
def test_the_first_use_of_a_function_opens_and_imports_nothing():
    """So it works without a free descriptor, and in a signal's handler."""
    run("""
        loaded = set(sys.modules)
        take_all_descriptors()
        memlimits.stats(), memlimits.device_info(), memlimits.would_fit(10)
        assert memlimits.trim() == 0 and memlimits.get_pressure_trim()
        limit = memlimits.effective_limit()
        assert repr(limit).startswith(f"EffectiveLimit(nbytes={limit.nbytes}, tightest=")
        assert limit.candidates[0]._asdict() == {
            "kind": limit.tightest, "name": limit.name, "nbytes": limit.nbytes}
        assert limit._replace(nbytes=1) == (1, *limit[1:])
        with memlimits.limits(cache=0), memlimits.budget("b"), memlimits.reserve(10):
            memlimits.allocate(10).release()
        assert refused_by(1 << 62) == "max_buffer_length"
        memlimits.auto_trim(1000).close()
        memlimits.set_memory_policy("wait", timeout=0.001)
        memlimits.set_memory_limit(MIB)
        held = memlimits.allocate(MIB // 2)
        assert refused_by(MIB // 2 + 1) == "limit"
        assert set(sys.modules) == loaded, set(sys.modules) - loaded
    """)


def test_modules_in_one_file_are_as_if_each_had_its_own():
    core = {name: module for name, module in sys.modules.items() if name.startswith("memlimits._")}
    files = {name: getattr(module, "__file__", None) for name, module in core.items()}
    made = [name for name, file in files.items() if file == _modules.__file__]
    assert len(made) > 10
    for name in made:
        module = core[name]
        assert importlib.import_module(name) is module
        spec, parent = module.__spec__, name.rpartition(".")[0]
        assert (spec.name, spec.parent, spec.origin) == (name, parent, module.__file__)
        assert spec.loader is module.__loader__
        assert spec.loader.get_filename(name) == module.__file__
        assert module.__package__ == parent


def test_whoever_looks_inside_finds_the_rooms():
    run("""
        import memlimits, memlimits._bindings.buffer as buffer, memlimits._device.device
        assert memlimits._bindings.buffer is buffer
        assert memlimits._device.device.Device.__module__ == "memlimits._device.device"
        from memlimits._bindings import allocator
        assert allocator.Allocator is type(allocator.default_allocator())
    """)


@pytest.mark.parametrize("name", ["_malloc", "metal", "adapters"])
def test_a_thread_imports_a_part_while_another_imports_the_package(name):
    result = execute(f"""
        import importlib, sys, threading
        from importlib.machinery import ExtensionFileLoader as Loader

        def exec_module(self, module, execute=Loader.exec_module):
            if module.__name__ == "memlimits._modules":
                thread.start()
                thread.join(0.2)  # it gets as far as it can
            execute(self, module)

        Loader.exec_module = exec_module
        thread = threading.Thread(target=importlib.import_module, args=["memlimits.{name}"])
        import memlimits
        thread.join()
        assert "memlimits.{name}" in sys.modules
    """)
    assert (result.stderr, result.returncode) == ("", 0)


def test_answers_of_would_fit_compare_by_what_they_say():
    one, same, other = (memlimits.would_fit(n) for n in (100, 100, 200))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != 100
