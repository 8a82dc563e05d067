#!/bin/sh
# Linux and CPython 3.11: the ru_maxrss of a small program is its parent's, where that was large.
#
# The peak that getrusage(2) tells of is of the process, not of the program in it: exec keeps the peak of
# the memory that it replaces. A child that was made by vfork, as subprocess does where it can, has its
# parent's memory until then. So a child of a program with 300 MiB is told that it had 300 MiB, while
# VmHWM in /proc/self/status is its own few. One would have guessed that resource.getrusage tells what
# the program itself needed; many tests and monitors measure their children by it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/child.py" <<'END'
import resource
with open("/proc/self/status") as file:
    own = int(file.read().split("VmHWM:")[1].split()[0]) >> 10
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, own)
END
cat >"$folder/parent.py" <<'END'
import platform, subprocess, sys
held = bytearray(b"x") * (300 << 20)
told = subprocess.run([sys.executable, sys.argv[1]], capture_output=True, text=True, check=True)
maxrss, own = map(int, told.stdout.split())
print(f"Python {platform.python_version()}, Linux {platform.release()}")
print(f"a child of a program with 300 MiB: ru_maxrss {maxrss} MiB, VmHWM {own} MiB")
sys.exit(not (maxrss >= 300 and own < 100))
END
python3 "$folder/parent.py" "$folder/child.py" || { echo "another ru_maxrss was expected" && exit 1; }
