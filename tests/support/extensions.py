"""Extensions compiled from c_interface/, where the source tree is not in sight."""

import importlib
import shutil
import subprocess
import sys
from contextlib import contextmanager

from support.places import TESTS

SOURCES = TESTS / "c_interface"


def build(folder, *names):
    """Compile these sources, and whatever else lies in the folder, against the package."""
    for name in ("setup.py", *names):
        shutil.copy(SOURCES / name, folder)
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def imported(folder, name):
    """A module from the folder, which can be imported from meanwhile."""
    sys.path.insert(0, str(folder))
    yield importlib.import_module(name)
    sys.path.remove(str(folder))
