#!/bin/sh
# Build memlimits with the Metal device into this Python: on macOS over Metal itself, elsewhere over
# the stand-in, which is built and has to pass its self-test; with sanitizers, for clang's runtime to
# be loaded before it.
# Usage: install.sh PYTHON [address,undefined]
set -eu
python=$1
sanitizers=${2:-}
cd "$(dirname "$0")/../.."
export MEMLIMITS_DEVICE=metal MEMLIMITS_WERROR=1 MEMLIMITS_SANITIZE="$sanitizers"
if [ "$(uname -s)" = Darwin ]; then
    exec "$python" -m pip install --force-reinstall --no-deps .
fi
missing=
packages="clang gobjc make"
for need in clang make gcc; do
    command -v $need >/dev/null || missing="$missing $need"
done
[ -e "$(gcc -print-file-name=include 2>/dev/null)/objc/objc.h" ] || missing="$missing gobjc"
if [ "$sanitizers" ]; then
    packages="$packages libclang-rt-dev"
    [ -e "$(clang -print-file-name="libclang_rt.asan-$(uname -m).so" 2>/dev/null)" ] ||
        missing="$missing libclang-rt"
fi
if [ "$missing" ]; then
    echo "memlimits: the Metal tests need:$missing (apt-get install $packages)" >&2
    exit 1
fi
stand_in=$PWD/tests/fake_metal
make -s -C "$stand_in" SANITIZE="$sanitizers" all check
CC=clang LDSHARED="clang -shared" \
    CFLAGS=$(make -s -C "$stand_in" client-cflags) \
    LDFLAGS=$(make -s -C "$stand_in" SANITIZE="$sanitizers" client-ldflags) \
    "$python" -m pip install --force-reinstall --no-deps .
