"""Apple's own names, as metal-cpp has them, and the names that Objective-C sources use.

metal-cpp is Apple's C++ interface to Metal, under the Apache License 2.0. The macOS wheel of MLX's
mlx-metal carries its headers.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from support.fake_metal import client_flags

WHEEL = "mlx-metal==0.32.4"
HEADERS = ("Metal/MTLHeaderBridge.hpp", "Foundation/NSPrivate.hpp")

KNOWN = re.compile(r'_PRIVATE_DEF_(?:SEL\(\s*\w+,\s*"([^"]+)"\s*\)|(?:CLS|PRO)\(\s*(\w+)\s*\))')

# As clang prints the nodes of its syntax tree. Its JSON would be nicer; clang 14 crashes over it.
NODES = {
    "sends": re.compile(r"ObjCMessageExpr .* selector=(\S+)"),
    "names": re.compile(r"ObjCSelectorExpr .* (\S+)$", re.MULTILINE),
    "declares": re.compile(r"ObjCMethodDecl .* [-+] (\S+) '"),
    "has the type": re.compile(r"ObjC(?:Interface|Protocol)Decl .* (\w+)$", re.MULTILINE),
    "looks up": re.compile(r'ObjCStringLiteral .*\n.* "((?:MTL|NS)\w+)"'),
}
# clang's: Foundation has the first, and only the GNU runtime's strings are of the second.
CLANGS = {"Protocol", "NSConstantString"}


def headers(folder):
    """The two headers' text. They are fetched into the folder, unless they are there."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            fetch(Path(temporary))
            try:
                Path(temporary, "headers").rename(folder)
            except OSError:  # somebody else was faster
                assert folder.exists()
    return [(folder / Path(name).name).read_text() for name in HEADERS]


def fetch(folder):
    options = "--only-binary=:all: --no-deps --platform macosx_14_0_arm64 --python-version 3.12"
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options.split(), WHEEL]
    subprocess.run(command, cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    (folder / "headers").mkdir()
    with ZipFile(wheel) as archive:
        for name in HEADERS:
            (inside,) = (path for path in archive.namelist() if path.endswith("/" + name))
            target = folder / "headers" / Path(name).name
            with archive.open(inside) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def known(texts):
    """Every selector, class and protocol that the headers list."""
    return {selector or kind for text in texts for selector, kind in KNOWN.findall(text)}


def syntax_tree(source):
    command = [
        "clang", "-x", "objective-c", "-std=gnu11", "-D_GNU_SOURCE", "-fsyntax-only",
        *client_flags("cflags"), "-Xclang", "-ast-dump", "-fno-color-diagnostics", source,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def names(source):
    """Pairs of what a source does, as NODES lists it, and with which name. Declarations and types
    of the stand-in's headers are among them."""
    tree = syntax_tree(source)
    pairs = {(what, name) for what, node in NODES.items() for name in node.findall(tree)}
    return {(what, name) for what, name in pairs if name not in CLANGS}
