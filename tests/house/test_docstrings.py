"""Every example in the docstring of a public name is run, and shows the same here."""

import importlib
import inspect
import sys

import pytest

from support.process import execute

# What a user may import, with the library that it is for.
MODULES = {
    "memlimits": None,
    "memlimits.errors": None,
    "memlimits.figures": None,
    "memlimits.cuda": None,
    "memlimits.metal": None,
    "memlimits.pools": None,
    "memlimits.processes": None,
    "memlimits.recording": None,
    "memlimits.recording.history": None,
    "memlimits.system": None,
    "memlimits.testing": None,
    "memlimits.adapters.dask": "distributed",
    "memlimits.adapters.jupyter": "IPython",
    "memlimits.adapters.mlx": "mlx.core",
    "memlimits.adapters.prometheus": "prometheus_client",
}


def public(module):
    """The names that it lists, or without a list those that it defines."""
    own = [name for name, value in vars(module).items() if is_own(value, module)]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def is_own(value, module):
    return getattr(value, "__module__", None) == module.__name__


def examples(module):
    """The names of a module, and methods of its classes, whose docstrings have examples."""
    found = importlib.import_module(module)
    for name in public(found):
        value = getattr(found, name)
        members = vars(value) if inspect.isclass(value) else {}
        below = [f"{name}.{member}" for member in members if not member.startswith("_")]
        for each in [name, *below]:
            parent, _, last = each.rpartition(".")
            of = getattr(found, parent) if parent else found
            text = inspect.getdoc(getattr(of, last)) or ""
            # Objects that are never governed without the GIL are not refused there.
            left_out = "t" in sys.abiflags and "govern_python()" in text
            if ">>> " in text and not left_out:
                yield each


@pytest.mark.host
@pytest.mark.parametrize("module", MODULES)
def test_examples_show_what_they_do(module, tmp_path):
    for needed in filter(None, ("numpy", MODULES[module])):
        pytest.importorskip(needed)
    names = list(examples(module))
    assert names or module in ("memlimits.metal", "memlimits.cuda", "memlimits.recording.history")
    # Each in a process of its own: counters start at 0, and limits are set.
    result = execute(f"""
        import doctest, importlib, inspect, os, sys

        def run(name):
            value = module
            for part in name.split("."):
                value = getattr(value, part)
            test = doctest.DocTestParser().get_doctest(
                inspect.getdoc(value), {{}}, name, None, None)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            return runner.run(test).failed != 0

        module = importlib.import_module({module!r})
        os.chdir({str(tmp_path)!r})
        failed = []
        for name in {names!r}:
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    status = run(name)
                finally:
                    sys.stdout.flush()
                    os._exit(status)
            if os.waitpid(pid, 0)[1]:
                failed.append(name)
        assert not failed, failed
    """)
    assert result.returncode == 0, result.stdout + result.stderr
