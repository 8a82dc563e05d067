"""How sources that use the stand-in for Metal are compiled and linked."""

import shlex
import subprocess

from support.places import TESTS

FOLDER = TESTS / "fake_metal"


def client_flags(kind):
    make = ["make", "-s", "-C", FOLDER, f"client-{kind}"]
    return shlex.split(subprocess.run(make, capture_output=True, text=True, check=True).stdout)
