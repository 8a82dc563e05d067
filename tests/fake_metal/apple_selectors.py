"""Selectors: those that Objective-C sources send or declare, and those on Apple's list.

    python apple_selectors.py <metal_cpp folder> <source.m or header> ...

prints each one that metal-cpp does not know, and exits with their number. metal_cpp is the folder
of that name in the macOS wheel of mlx-metal.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LISTS = ("Metal/MTLHeaderBridge.hpp", "Foundation/NSPrivate.hpp")

# As clang prints the nodes of its syntax tree. Its JSON would be nicer; clang 14 crashes over it.
NODES = {
    "sends": re.compile(r"ObjCMessageExpr .* selector=(\S+)"),
    "names": re.compile(r"ObjCSelectorExpr .* (\S+)$", re.MULTILINE),
    "declares": re.compile(r"ObjCMethodDecl .* [-+] (\S+) '"),
}


def known(metal_cpp):
    """Every selector that metal-cpp registers."""
    text = "".join((Path(metal_cpp) / name).read_text() for name in LISTS)
    return set(re.findall(r'_PRIVATE_DEF_SEL\(\s*\w+,\s*"([^"]+)"\s*\)', text))


def syntax_tree(source):
    gcc = subprocess.run(
        ["gcc", "-print-file-name=include"], capture_output=True, text=True, check=True
    )
    command = [
        "clang", "-x", "objective-c", "-std=gnu11", "-D_GNU_SOURCE", "-fsyntax-only",
        "-fobjc-runtime=gcc", "-fconstant-string-class=NSConstantString", "-fexceptions",
        "-iquote", HERE, "-I", HERE / "include", "-idirafter", gcc.stdout.strip(),
        "-Xclang", "-ast-dump", "-fno-color-diagnostics", source,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def selectors(source):
    """Pairs of "sends", "names" (@selector) or "declares" and a selector, for a source and what it
    includes: the stand-in's headers declare, and only the source itself sends."""
    tree = syntax_tree(source)
    return {(what, name) for what, node in NODES.items() for name in node.findall(tree)}


def main(metal_cpp, *sources):
    apples = known(metal_cpp)
    unknown = 0
    for source in sources:
        for what, selector in sorted(selectors(source)):
            if selector not in apples:
                print(f"{source}: {what} {selector}, which is not in metal-cpp")
                unknown += 1
    return min(unknown, 100)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
