"""What an older macOS lacks is guarded: clang compiles the shim for the oldest one and says."""

import platform
import re
import subprocess

import pytest

from support.fake_metal import client_flags
from support.metal import stand_in
from support.places import OBJC, ROOT

pytestmark = pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal")

OLDEST = re.search(r'OLDEST_MACOS = "(.*)"', (ROOT / "setup.py").read_text())[1]


def complaints(source):
    """What clang says when it compiles for macOS, with Linux's C headers and the stand-in's."""
    multiarch = subprocess.run(
        ["gcc", "-print-multiarch"], capture_output=True, text=True, check=True
    ).stdout.strip()
    c_headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{multiarch}"]
    words = ["clang", "-target", f"{platform.machine()}-apple-macos{OLDEST}", "-fsyntax-only"]
    # A macro to Linux's headers, and a word of clang's on macOS.
    words += ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-U__nonnull", f"-I{OBJC}"]
    words += [*client_flags("cflags"), *c_headers, source]
    return subprocess.run(words, capture_output=True, text=True).stderr


@pytest.mark.parametrize("source", sorted(OBJC.glob("*.m")), ids=lambda path: path.name)
def test_the_shim_compiles_for_the_oldest_macos(source):
    assert complaints(source) == ""


@pytest.mark.parametrize("guard", ["macOS 15.0", "macOS 14.0", None])
def test_what_has_no_guard_is_found(tmp_path, guard):
    source = tmp_path / "planted.m"
    source.write_text(f"""
#include "metal.h"
void planted(mlim_queue *queue, id<MTLCommandQueue> metal, mlim_residency *set)
{{
    (void)queue;
    {f"if (@available({guard}, *))" if guard else ""}
        [metal addResidencySet:set->metal];
}}
""")
    said = complaints(source)
    expected = "warning: 'addResidencySet:' is only available on macOS 15.0 or newer"
    assert (expected in said) == (guard != "macOS 15.0"), said
