"""Copies of this installation of memlimits whose shim was built from changed sources."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import memlimits
from support.fake_metal import client_flags
from support.places import OBJC, ROOT, TESTS

UNUSED = [f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "hypothesispytest")]


def execute(*words, **options):
    subprocess.run(words, check=True, **options)


class Copy:
    """The package in a folder, linked anew with each shim; its other modules stay as they are."""

    def __init__(self, folder):
        self.folder = folder
        self.package = folder / "memlimits"
        self.objects, self.texts = {}, {}  # what stands there, by the name of the source
        shutil.copytree(Path(memlimits.__file__).parent, self.package)
        self.device = next(self.package.glob("_device.*.so"))
        self.flags = ["-O1", "-g", "-w", "-fPIC", "-pthread", "-D_GNU_SOURCE", f"-I{OBJC}"]
        self.flags += [f"-I{sysconfig.get_path('include')}", *client_flags("cflags")]
        source, self.module = folder / "_device.c", folder / "_device.o"
        cython = ["-m", "cython", "-3", "--module-name", "memlimits._device", "-o", source]
        execute(sys.executable, *cython, ROOT / "memlimits" / "_device.pyx")
        execute("clang", *self.flags, "-c", source, "-o", self.module)

    def compile(self, path, text):
        source = self.folder / path.name
        source.write_text(text)
        made = source.with_suffix(".o")
        execute("clang", "-std=c11", *self.flags, "-c", source, "-o", made)
        return made

    def link(self, replaced=None, text=None):
        """Build the shim, one of its files replaced by a text."""
        for path in OBJC.glob("metal_*.m"):
            wanted = text if path.name == replaced else path.read_text()
            if self.texts.get(path.name) != wanted:
                self.objects[path.name] = self.compile(path, wanted)
                self.texts[path.name] = wanted
        libraries = client_flags("ldflags")
        execute(
            "clang", "-shared", self.module, *self.objects.values(), *libraries, "-o", self.device
        )

    def pytest(self, *tests):
        """Run some of these tests with this copy. Leaks, too, end it with an error."""
        words = [sys.executable, "-m", "pytest", "-x", "-s"]
        return subprocess.run(
            [*words, *UNUSED, *(TESTS / test for test in tests)],
            env={**os.environ, "PYTHONPATH": str(self.folder), "FAKE_METAL": ""},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
