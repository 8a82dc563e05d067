#!/bin/sh
# Build the stand-in for Metal, and memlimits with the Metal device over it, into this Python.
# Usage: install.sh PYTHON
set -eu
python=$1
cd "$(dirname "$0")/../.."
for need in clang make gcc; do
    command -v $need >/dev/null || missing="${missing:-} $need"
done
[ -e "$(gcc -print-file-name=include 2>/dev/null)/objc/objc.h" ] || missing="${missing:-} gobjc"
if [ "${missing:-}" ]; then
    echo "memlimits: the Metal tests need:$missing (apt-get install clang gobjc make)" >&2
    exit 1
fi
stand_in=$PWD/tests/fake_metal
make -s -C "$stand_in" all
MEMLIMITS_DEVICE=metal MEMLIMITS_WERROR=1 CC=clang LDSHARED="clang -shared" \
    CFLAGS="-fobjc-runtime=gcc -fconstant-string-class=NSConstantString -fexceptions -I$stand_in/include -idirafter $(gcc -print-file-name=include)" \
    LDFLAGS="-L$stand_in/build -Wl,-rpath,$stand_in/build -lfakemetal -lobjc" \
    "$python" -m pip install --force-reinstall --no-deps .
