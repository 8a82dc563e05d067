"""Pythons below a program whose children are governed."""

import os

import pytest

from memlimits.adapters import children
from support.places import ROOT

# Where the hook is not installed, as in a tree that was only built, this puts it in: but under -I.
INSTALLED = children.hook_is_there()
_INSTEAD = f"import site; site.addsitedir({str(ROOT / 'hook')!r})\n"
needs_installed = pytest.mark.skipif(
    not INSTALLED, reason="the hook is not installed: pip install -e . (CONTRIBUTING.md)"
)


def environment(folder, **more):
    """The variables of the tests' own process, with which Pythons find the hook."""
    environ = {name: text for name, text in os.environ.items() if name != children.VARIABLE}
    if not INSTALLED:
        (folder / "hook").mkdir(exist_ok=True)
        (folder / "hook" / "sitecustomize.py").write_text(_INSTEAD)
        paths = [str(folder / "hook"), *filter(None, [environ.get("PYTHONPATH")])]
        environ["PYTHONPATH"] = os.pathsep.join(paths)
    return environ | more
