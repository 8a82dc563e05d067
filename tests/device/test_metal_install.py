"""install.sh says in one line what a machine lacks for the Metal tests."""

import subprocess
import sys

import pytest

from support.places import TESTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is for Linux")

INSTALL = TESTS / "fake_metal" / "install.sh"
TOOLS = {
    "clang": 'echo "${1#*=}"',  # as it answers about a file that it does not have
    "gcc": 'echo "${0%/*}"',  # its headers stand beside it
    "make": "exit 3",
}


def install(folder, without, *words):
    """Run it on a machine that has stand-ins for all the tools but one, and no runtime."""
    for name, script in TOOLS.items():
        if name != without:
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
    for name in ("dirname", "uname"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    if without != "gobjc":
        (folder / "objc").mkdir()
        (folder / "objc" / "objc.h").touch()
    return subprocess.run(
        ["/bin/sh", INSTALL, "no-python", *words],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("without", "named"),
    [("clang", "clang"), ("make", "make"), ("gcc", "gcc gobjc"), ("gobjc", "gobjc")],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path, without, named):
    done = install(tmp_path, without)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"memlimits: the Metal tests need: {named} (apt-get install clang gobjc make)\n"
    )


def test_the_sanitizers_runtime_is_named_too(tmp_path):
    done = install(tmp_path, None, "address,undefined")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "memlimits: the Metal tests need: libclang-rt "
        "(apt-get install clang gobjc make libclang-rt-dev)\n"
    )


def test_where_nothing_is_missing_the_build_begins(tmp_path):
    done = install(tmp_path, None)
    assert done.returncode == 3  # make's
    assert done.stderr == ""
