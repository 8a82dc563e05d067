"""Make a C compiler for a glibc that is older than this machine's.

old_glibc.py FOLDER

It is the machine's gcc, or what OLD_GLIBC_CC names, with the headers and the symbols of that glibc,
which come with Zig's compiler (the package ziglang). Zig's own code is no choice: its linker knows
neither -z initfirst nor -Bsymbolic-functions. Prints the path of the compiler.
"""

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MINOR = 28  # as manylinux_2_28 has it
LIBRARIES = ("m", "pthread", "dl", "rt")
COMPILER = """\
#!/bin/sh
# gcc against glibc 2.{minor}. Made by .ci/wheels/old_glibc.py.
here=$(dirname "$0")
cc=${{OLD_GLIBC_CC:-gcc}}
exec $cc -nostdinc -isystem "$($cc -print-file-name=include)" {includes} \\
    -idirafter "$here/python" -D__GLIBC_MINOR__={minor} -L"$here/lib" "$@"
"""


def told_by_zig():
    """The folders of its headers, and the libraries that it links: made now, if never before."""
    target = f"{platform.machine()}-linux-gnu.2.{MINOR}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.c")
        source.write_text("int nothing;\n")
        words = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-v", "-shared"]
        words += [source, "-o", Path(folder, "empty.so"), *(f"-l{name}" for name in LIBRARIES)]
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"Zig could not compile for {target}:\n{done.stderr}")
    headers = [Path(path) for path in re.findall(r"-isystem (\S+)", done.stderr)]
    link = [line for line in done.stderr.splitlines() if line.startswith("ld.lld")][-1]
    libraries = [
        Path(word) for word in link.split() if re.search(r"\.so\.\d+$|nonshared\.a$", word)
    ]
    # The compiler's own headers are gcc's.
    return [path for path in headers if path.parents[1].name == "libc"], libraries


def make(folder):
    """Fill the folder, unless this has filled it. Return the path of the compiler."""
    compiler, made_by, this = folder / "cc", folder / "made_by", Path(__file__).read_text()
    if made_by.exists() and made_by.read_text() == this:
        return compiler
    headers, libraries = told_by_zig()
    shutil.rmtree(folder, ignore_errors=True)
    for path in headers:
        shutil.copytree(path, folder / "include" / path.name)
    lib = folder / "lib"
    lib.mkdir()
    for path in libraries:
        shutil.copy(path, lib)
    for name in LIBRARIES:
        [library] = lib.glob(f"lib{name}.so.*")
        (lib / f"lib{name}.so").symlink_to(library.name)
    (lib / "libc.so").write_text("GROUP ( libc.so.6 libc_nonshared.a )\n")
    # Debian has some of Python's headers beside the machine's glibc's: they alone are found there.
    architecture = f"{platform.machine()}-linux-gnu"
    (folder / "python").mkdir()
    (folder / "python" / architecture).symlink_to(Path("/usr/include", architecture))
    includes = " ".join(f'-isystem "$here/include/{path.name}"' for path in headers)
    compiler.write_text(COMPILER.format(minor=MINOR, includes=includes))
    compiler.chmod(0o755)
    made_by.write_text(this)  # last: what an interrupted run left behind is made anew
    return compiler


if __name__ == "__main__":
    print(make(Path(sys.argv[1]).resolve()))
