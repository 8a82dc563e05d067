"""Shims built from changed sources, in the place of the one in this installation of memlimits."""

import os
import subprocess
import sys

from support.fake_metal import client_flags
from support.places import OBJC, TESTS

UNUSED = [f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "hypothesispytest")]


def execute(*words):
    subprocess.run(words, check=True)


class Shim:
    """A library with all functions of mlim.h, loaded before memlimits.

    Built over the stand-in those of the package can be replaced so (fake_metal/visible.h).
    """

    def __init__(self, folder):
        self.folder = folder
        self.library = folder / "libshim.so"
        self.objects, self.texts = {}, {}  # what stands there, by the name of the source
        self.flags = ["-O1", "-g", "-w", "-fPIC", "-pthread", "-D_GNU_SOURCE", f"-I{OBJC}"]
        self.flags += client_flags("cflags")

    def compile(self, path, text):
        source = self.folder / path.name
        source.write_text(text)
        made = source.with_suffix(".o")
        execute("clang", "-std=c11", *self.flags, "-c", source, "-o", made)
        return made

    def link(self, replaced=None, text=None):
        """Build it, one of its files replaced by a text."""
        for path in OBJC.glob("metal_*.m"):
            wanted = text if path.name == replaced else path.read_text()
            if self.texts.get(path.name) != wanted:
                self.objects[path.name] = self.compile(path, wanted)
                self.texts[path.name] = wanted
        words = ["clang", "-shared", *self.objects.values(), *client_flags("ldflags")]
        execute(*words, "-o", self.library)

    def pytest(self, *tests):
        """Run some of these tests with it. Leaks, too, end it with an error."""
        words = [sys.executable, "-m", "pytest", "-x", "-s"]
        return subprocess.run(
            [*words, *UNUSED, *(TESTS / test for test in tests)],
            env={**os.environ, "LD_PRELOAD": str(self.library), "FAKE_METAL": ""},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
